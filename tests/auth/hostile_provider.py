"""An identity provider on loopback that says what a test wants it to say, and remembers what it was asked.

By default it is honest, and judges the arena: it takes a code with the right verifier, secret and
redirect URI only. Everything that it says can be changed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from tests.auth.browsing import ORIGIN

CLIENT_ID = "arena"
CLIENT_SECRET = "a secret between the two of us"
ACCESS_TOKEN = "an-access-token-of-the-provider"

Claims = dict[str, Any]


@cache
def rsa_key(name: str) -> RSAKey:
    """One key for each name: they are slow to make."""
    return RSAKey.generate_key(2048, {"kid": name})


def signed(header: Claims, claims: Claims, key: Any) -> str:
    registry = jws.JWSRegistry(algorithms=[header["alg"]], strict_check_header=False)
    return jws.serialize_compact(header, json.dumps(claims).encode(), key, registry=registry)


@dataclass
class Login:
    """What the arena asked for when it sent a browser."""

    nonce: str
    challenge: str
    redirect_uri: str
    begun_at_s: float = field(default_factory=time.time)


class HostileProvider:
    """Listens from the beginning, and serves while it is entered."""

    def __init__(self) -> None:
        self.subject = "person-1"
        self.client_secret = CLIENT_SECRET
        # Where the arena is.
        self.origin = ORIGIN
        self.key: RSAKey | ECKey = rsa_key("first")
        self.published: list[RSAKey | ECKey] | None = None
        # Laid over what an honest provider says.
        self.metadata: Claims = {}
        self.claims: Claims = {}
        self.header: Claims = {}
        self.userinfo: Claims | None = None
        self.response: dict[str, str | None] = {}
        self.sign: Callable[[Claims, Claims], str] | None = None
        self.token_answer: tuple[int, bytes] | None = None
        self.codes: dict[str, Login] = {}
        self.asked: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.tokens: list[str] = []
        self._server = self._listening()
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _listening(self) -> ThreadingHTTPServer:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(*provider.get(self.path, self.lowered()))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                self._answer(*provider.post(self.path, form, self.lowered()))

            def lowered(self) -> dict[str, str]:
                return {name.lower(): value for name, value in self.headers.items()}

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        return server

    def configured(self, **changes: Any) -> str:
        """The arena's setting for it."""
        return json.dumps([self.entry(**changes)])

    def entry(self, **changes: Any) -> Claims:
        return {
            "id": "hostile",
            "name": "The Other Side",
            "issuer": self.issuer,
            "client_id": CLIENT_ID,
            "client_secret": self.client_secret,
            "creates_accounts": True,
        } | changes

    # --- the browser's side -----------------------------------------------------------------------

    def authorize(self, url: str) -> str:
        """The path of the arena to which it sends the browser that comes with this address."""
        assert url.startswith(f"{self.issuer}/authorize?"), url
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split() and "email" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        self.codes[code] = Login(asked["nonce"], asked["code_challenge"], asked["redirect_uri"])
        assert asked["redirect_uri"].startswith(self.origin + "/")
        answer = {"code": code, "state": asked["state"], "iss": self.issuer} | self.response
        given = {name: value for name, value in answer.items() if value is not None}
        return f"{asked['redirect_uri'].removeprefix(self.origin)}?{urlencode(given)}"

    # --- the arena's side -------------------------------------------------------------------------

    def get(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        self.asked.append(path)
        if path == "/.well-known/openid-configuration":
            return _json(self.description())
        if path == "/jwks":
            keys = self.published if self.published is not None else [self.key]
            # Keys of kinds that nobody here knows stand beside them.
            strange = [{"kty": "AKP", "kid": "pq"}, {"kty": "RSA", "n": 1}, {"kid": "first"}]
            shown = [{**key.as_dict(private=False), "use": "sig"} for key in keys]
            return _json({"keys": strange + shown})
        if path == "/userinfo" and self.userinfo is not None:
            assert headers["authorization"] == f"Bearer {ACCESS_TOKEN}"
            return _json(self.userinfo)
        return 404, b"{}"

    def description(self) -> Claims:
        honest = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "authorization_response_iss_parameter_supported": True,
            "response_types_supported": ["code"],
        }
        return {name: value for name, value in (honest | self.metadata).items() if value is not ...}

    def post(self, path: str, form: dict[str, str], headers: dict[str, str]) -> tuple[int, bytes]:
        self.asked.append(path)
        self.forms.append(form)
        login = self.codes.get(form.get("code", ""))
        if self.token_answer is not None:
            return self.token_answer
        if path != "/token" or login is None or not self._knows(form, headers, login):
            return 400, b'{"error": "invalid_grant"}'
        # The code stays good: that it is used once is for the arena to see to as well.
        self.tokens.append(self.token(login))
        answer = {
            "access_token": ACCESS_TOKEN,
            "token_type": "Bearer",
            "id_token": self.tokens[-1],
        }
        return _json(answer)

    def _knows(self, form: dict[str, str], headers: dict[str, str], login: Login) -> bool:
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if "client_secret" in form:
            client = (form["client_id"], form["client_secret"])
        else:
            pair = base64.b64decode(headers["authorization"].removeprefix("Basic ")).decode()
            client_id, _, client_secret = pair.partition(":")
            client = (unquote_plus(client_id), unquote_plus(client_secret))
        return (
            form["grant_type"] == "authorization_code"
            and client == (CLIENT_ID, self.client_secret)
            and challenge == login.challenge
            and form["redirect_uri"] == login.redirect_uri
        )

    def token(self, login: Login) -> str:
        now = int(time.time())
        honest = {
            "iss": self.issuer,
            "sub": self.subject,
            "aud": CLIENT_ID,
            "exp": now + 300,
            "iat": now,
            "nonce": login.nonce,
            "email": f"{self.subject}@people.example",
            "email_verified": True,
            "preferred_username": self.subject,
        }
        claims = {k: v for k, v in (honest | self.claims).items() if v is not ...}
        said = {"alg": "RS256", "kid": self.key.kid, "typ": "JWT"} | self.header
        header = {k: v for k, v in said.items() if v is not ...}
        if self.sign is not None:
            return self.sign(header, claims)
        return signed(header, claims, self.key)


def _json(value: Any) -> tuple[int, bytes]:
    return 200, json.dumps(value).encode()
