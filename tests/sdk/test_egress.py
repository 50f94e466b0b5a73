"""The SDK's way out: HTTP and TLS through the proxy's socket, or directly where there is none."""

import asyncio
import http.client
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pokerarena_sdk import egress
from tests.agents.test_tls import certificate  # noqa: F401 - a fixture
from tests.egress.proxies import a_proxy

HOST = "agent.test"


class Hello(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello " + body)

    def log_message(self, *_):
        pass


@contextmanager
def serving(tls=None):
    server = HTTPServer(("127.0.0.1", 0), Hello)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
async def way_out(tmp_path, monkeypatch):
    """A proxy, and the SDK's socket where the test listens; requests run in a thread."""
    async with a_proxy(tmp_path) as proxied:
        proxied.names[HOST] = ["127.0.0.1"]
        monkeypatch.setattr(egress, "SOCKET_PATH", str(proxied.outlet))
        yield proxied


def post(url, context=None):
    with egress.opener(context).open(url, data=b"you", timeout=5) as response:
        return response.read()


async def test_urllib_speaks_http_and_tls_through_the_proxy(way_out, certificate):  # noqa: F811
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with serving() as plain, serving(server_side) as secure:
        async with way_out.line(f"{HOST}:{plain}", f"{HOST}:{secure}"):
            assert egress.available()
            assert await asyncio.to_thread(post, f"http://{HOST}:{plain}/") == b"hello you"
            url = f"https://{HOST}:{secure}/"
            assert await asyncio.to_thread(post, url, trusting) == b"hello you"
            # The proxy is no reason to trust whoever answers.
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
                await asyncio.to_thread(post, url)
    assert {port for _, port in way_out.dialled} == {plain, secure}


async def test_http_client_does_too(way_out):
    with serving() as port:
        async with way_out.line(f"{HOST}:{port}"):

            def work():
                connection = egress.HTTPConnection(HOST, port, timeout=5)
                connection.request("POST", "/", body=b"you")
                said = connection.getresponse().read()
                connection.close()
                return said

            assert await asyncio.to_thread(work) == b"hello you"


async def test_a_refusal_says_why(way_out):
    async with way_out.line(f"{HOST}:443"):
        with pytest.raises(egress.EgressRefused, match=r"403 other\.test:443 is not approved"):
            await asyncio.to_thread(egress.connect, "other.test", 443, 5)
        with pytest.raises(OSError, match="not approved"):
            await asyncio.to_thread(post, "https://other.test/")
        assert issubclass(egress.HTTPSConnection, http.client.HTTPSConnection)
    assert way_out.dialled == []


def test_without_a_proxy_connections_are_made_directly(monkeypatch, tmp_path):
    monkeypatch.setattr(egress, "SOCKET_PATH", str(tmp_path / "none"))
    assert not egress.available()
    with serving() as port:
        assert post(f"http://127.0.0.1:{port}/") == b"hello you"
