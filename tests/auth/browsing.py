"""A browser, as far as logging in at a provider needs one: cookies, redirects, forms."""

from __future__ import annotations

import http.client
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

from tests.api.asgi import Client, Reply

ORIGIN = "https://arena.test"
OWN_PAGE = {
    "x-pokerarena-client": "browser",
    "origin": ORIGIN,
    "sec-fetch-site": "same-origin",
    "user-agent": "a browser of the tests",
}
LOGIN_COOKIE = "__Host-pokerarena_login"
REDIRECTS_MAX = 20


class Browser:
    """Our own page in somebody's browser, with the cookies that the arena gave it."""

    def __init__(self, arena: Client) -> None:
        self.arena = arena
        self.cookies: dict[str, str] = {}

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """A request of our own page."""
        return await self._send(method, path, body, OWN_PAGE | headers)

    async def visit(self, path: str) -> Reply:
        """A navigation that another site began, as a provider's redirect is one."""
        return await self._send("GET", path, None, {"sec-fetch-site": "cross-site"})

    def cookie_header(self) -> dict[str, str]:
        """What it sends along with each request."""
        pairs = (f"{name}={value}" for name, value in self.cookies.items())
        return {"cookie": "; ".join(pairs)} if self.cookies else {}

    async def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Reply:
        headers = headers | self.cookie_header()
        more = {} if body is None else {"body": body}
        reply = await self.arena.request(method, path, headers=headers, **more)
        for text in reply.cookies:
            for name, morsel in SimpleCookie(text).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return reply

    async def depart(self, provider_id: str, return_to: str = "/tables") -> str:
        """Begin a login; gives the address at the provider."""
        reply = await self.ask(
            "POST", f"/v1/auth/providers/{provider_id}/login", {"return_to": return_to}
        )
        assert reply.status == 200, reply
        return str(reply.json["authorization_url"])

    async def finish(self, **body: Any) -> Reply:
        """Ask for the session of whoever came back."""
        return await self.ask("POST", "/v1/auth/federated", body)


class Page(NamedTuple):
    """What a provider showed."""

    url: str
    status: int
    text: str


class Form(HTMLParser):
    """The first form of a page, with what is filled in already; and the address to cancel."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.cancel = ""
        self.feed(page.text)
        self.action = urljoin(page.url, self.action)
        self.cancel = urljoin(page.url, self.cancel)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and not self.action:
            self.action = given["action"]
        elif tag == "input" and given.get("name"):
            self.fields[given["name"]] = given.get("value", "")
        elif tag == "a" and given.get("href", "").endswith("/abort"):
            self.cancel = given["href"]


class AtProvider:
    """The same browser at a real provider: follows redirects until one leads to the arena."""

    def __init__(self) -> None:
        self._cookies: dict[tuple[str, str], str] = {}

    def open(self, url: str) -> Page | str:
        """The page at an address; a path of the arena where it leads back there."""
        return self._go("GET", url, None)

    def submit(self, form: Form, **filled: str) -> Page | str:
        """Send a form."""
        return self._go("POST", form.action, urlencode(form.fields | filled))

    def log_in(self, url: str, name: str) -> str:
        """Log in and consent, wherever that is asked; gives the path that leads back."""
        seen: Page | str = self.open(url)
        for _ in range(REDIRECTS_MAX):
            if isinstance(seen, str):
                return seen
            assert seen.status == 200, seen
            form = Form(seen)
            filled = {"login": name, "password": "any"} if "login" in form.fields else {}
            seen = self.submit(form, **filled)
        raise AssertionError("the provider never sends anybody back")

    def _go(self, method: str, url: str, body: str | None) -> Page | str:
        for _ in range(REDIRECTS_MAX):
            if url.startswith(ORIGIN):
                return url.removeprefix(ORIGIN)
            status, location, text = self._fetch(method, url, body)
            if location is None:
                return Page(url, status, text)
            method, url, body = "GET", urljoin(url, location), None
        raise AssertionError("too many redirects")

    def _fetch(self, method: str, url: str, body: str | None) -> tuple[int, str | None, str]:
        address = urlsplit(url)
        assert address.hostname == "127.0.0.1", url
        target = address.path + (f"?{address.query}" if address.query else "")
        headers = {"cookie": "; ".join(self._sent_to(address.path))}
        if body is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            for name, value in response.getheaders():
                if name.lower() == "set-cookie":
                    self._keep(value)
            return response.status, response.getheader("location"), response.read().decode()
        finally:
            connection.close()

    def _keep(self, text: str) -> None:
        for name, morsel in SimpleCookie(text).items():
            key = (morsel["path"] or "/", name)
            if morsel.value and "1970" not in morsel["expires"]:
                self._cookies[key] = morsel.value
            else:
                self._cookies.pop(key, None)

    def _sent_to(self, path: str) -> list[str]:
        return [
            f"{name}={value}"
            for (prefix, name), value in self._cookies.items()
            if path == prefix or path.startswith(prefix.rstrip("/") + "/")
        ]
