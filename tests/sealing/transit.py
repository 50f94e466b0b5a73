"""A stand-in for HashiCorp Vault's transit engine: the three documented endpoints that we use.

It keeps versions of one key as Vault does, checks the token as Vault does, and refuses what Vault
refuses with the status that Vault gives.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "hvs.a-token-of-this-test"


class Transit:
    """One key with its versions, behind HTTP on loopback."""

    def __init__(self) -> None:
        self.versions = {1: os.urandom(32)}
        self.min_decryption_version = 1
        self.requests: list[str] = []
        # Answered instead, once each, before anything is looked at.
        self.failures: list[int] = []
        self.raw_answer: bytes | None = None
        self.url = ""
        self.token = TOKEN

    def rotate(self) -> None:
        self.versions[len(self.versions) + 1] = os.urandom(32)

    def answer(self, path: str, body: bytes, token: str | None) -> tuple[int, object]:
        self.requests.append(path)
        if self.failures:
            return self.failures.pop(0), {"errors": ["Vault is sealed"]}
        if token != self.token:
            return 403, {"errors": ["permission denied"]}
        latest = len(self.versions)
        match path:
            case "/v1/transit/keys/pokerarena":
                return 200, {"data": {"name": "pokerarena", "latest_version": latest}}
            case "/v1/transit/encrypt/pokerarena":
                nonce = os.urandom(12)
                plaintext = base64.b64decode(json.loads(body)["plaintext"])
                sealed = nonce + AESGCM(self.versions[latest]).encrypt(nonce, plaintext, None)
                text = f"vault:v{latest}:{base64.b64encode(sealed).decode()}"
                return 200, {"data": {"ciphertext": text, "key_version": latest}}
            case "/v1/transit/decrypt/pokerarena":
                _, version, text = json.loads(body)["ciphertext"].split(":", 2)
                number = int(version[1:])
                if number < self.min_decryption_version:
                    return 400, {"errors": ["ciphertext or signature version is disallowed"]}
                sealed = base64.b64decode(text)
                try:
                    plain = AESGCM(self.versions[number]).decrypt(sealed[:12], sealed[12:], None)
                except InvalidTag:
                    return 400, {"errors": ["cipher: message authentication failed"]}
                return 200, {"data": {"plaintext": base64.b64encode(plain).decode()}}
        return 404, {"errors": []}


@contextmanager
def transit_server() -> Iterator[Transit]:
    transit = Transit()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, document = transit.answer(self.path, body, self.headers.get("X-Vault-Token"))
            raw = transit.raw_answer
            if raw is None:
                raw = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = _serve  # noqa: N815 - the names that the server looks for

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    transit.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield transit
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
