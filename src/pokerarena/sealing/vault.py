"""Master keys in HashiCorp Vault's transit engine: they never leave it.

Speaks the documented HTTP API (``/v1/MOUNT/encrypt/KEY``, ``decrypt/KEY``, ``keys/KEY``), which
OpenBao shares. The id of a master key is the name and version in Vault. Requests are few (one for
each data key that a process makes or meets), so each has a connection of its own, in a thread: the
event loop never waits. The token may be replaced in its file, as an agent of Vault's does; one that is
refused is read again before that is believed. This module must never log a request, and never follow a
redirect.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from pokerarena.errors import ConfigurationError, Unavailable
from pokerarena.sealing.sealer import WrappedKey
from pokerarena.watched_file import Source

ANSWER_MAX_BYTES: Final = 64 * 1024
TRIES: Final = 3
RETRY_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class VaultAddress:
    """Where the key is, and the token that may use it (and nothing else)."""

    url: str
    mount: str
    key: str
    token: Source[str]
    ca_file: str | None
    timeout_s: float

    def __repr__(self) -> str:
        return f"VaultAddress({self.url}, {self.mount}/{self.key})"


class _Refused(Exception):
    """Vault answered, and not with success."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class VaultTransit:
    """A `KeyProvider` over one transit key."""

    def __init__(self, address: VaultAddress) -> None:
        self._address = address
        self._tls = (
            ssl.create_default_context(cafile=address.ca_file)
            if address.url.startswith("https://")
            else None
        )

    async def wrap(self, data_key: bytes) -> WrappedKey:
        text = base64.b64encode(data_key).decode()
        answer = await self._ask("POST", "encrypt", {"plaintext": text})
        ciphertext = _text_of(answer, "ciphertext")
        return WrappedKey(self._id_of(_version_of(ciphertext)), ciphertext.encode())

    async def unwrap(self, key: WrappedKey) -> bytes:
        if key.key_id.rpartition(":")[0] != self._id_of("").rpartition(":")[0]:
            raise ConfigurationError(
                f"a stored secret was sealed under the master key {key.key_id}, and this program "
                f"uses {self._address.key} of a Vault: correct POKERARENA_KEY_PROVIDER"
            )
        answer = await self._ask("POST", "decrypt", {"ciphertext": key.wrapped.decode()})
        try:
            return base64.b64decode(_text_of(answer, "plaintext"), validate=True)
        except ValueError:
            raise _strange() from None

    async def current_key_id(self) -> str:
        answer = await self._ask("GET", "keys", None)
        version = answer.get("latest_version")
        if not isinstance(version, int):
            raise _strange()
        return self._id_of(f"v{version}")

    def _id_of(self, version: str) -> str:
        return f"vault:{self._address.mount}/{self._address.key}:{version}"

    async def _ask(
        self, method: str, operation: str, body: dict[str, str] | None
    ) -> dict[str, Any]:
        """The `data` of Vault's answer; a try that found nobody is made again."""
        failure = ""
        for number in range(TRIES):
            if number:
                await asyncio.sleep(RETRY_PAUSE_S * 2**number)
            token = self._address.token.current()
            try:
                return await asyncio.to_thread(self._request, method, operation, body, token)
            except _Refused as refused:
                if refused.status == 403 and self._address.token.fresh() != token:
                    failure = "its token was replaced"
                    continue
                if refused.status < 500 and refused.status != 429:
                    raise ConfigurationError(
                        f"Vault refuses {operation} with the key {self._address.key} "
                        f"(status {refused.status}): does the key exist, may the token use it, "
                        "and is this version of the key still allowed to decrypt?"
                    ) from None
                failure = f"status {refused.status}"
            except (OSError, http.client.HTTPException) as error:
                failure = type(error).__name__
        raise Unavailable(
            "key_service_unavailable",
            f"The key service does not answer now ({failure}); try again shortly.",
        )

    def _request(
        self, method: str, operation: str, body: dict[str, str] | None, token: str
    ) -> dict[str, Any]:
        address = urlsplit(self._address.url)
        host, timeout_s = address.hostname or "", self._address.timeout_s
        connection: http.client.HTTPConnection
        if self._tls is not None:
            connection = http.client.HTTPSConnection(
                host, address.port, timeout=timeout_s, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection(host, address.port, timeout=timeout_s)
        path = f"/v1/{quote(self._address.mount)}/{operation}/{quote(self._address.key, safe='')}"
        try:
            connection.request(
                method,
                address.path.rstrip("/") + path,
                body=json.dumps(body) if body is not None else None,
                headers={
                    "X-Vault-Token": token,
                    "X-Vault-Request": "true",
                    "Content-Type": "application/json",
                },
            )
            response = connection.getresponse()
            raw = response.read(ANSWER_MAX_BYTES)
            if response.status != http.client.OK:
                raise _Refused(response.status)
        finally:
            connection.close()
        try:
            data = json.loads(raw)["data"]
        except (ValueError, KeyError, TypeError):
            raise _strange() from None
        if not isinstance(data, dict):
            raise _strange()
        return data


def _text_of(answer: dict[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise _strange()
    return value


def _version_of(ciphertext: str) -> str:
    """``v3`` of ``vault:v3:…``."""
    prefix, _, rest = ciphertext.partition(":")
    version = rest.partition(":")[0]
    if prefix != "vault" or not version.startswith("v") or not version[1:].isdecimal():
        raise _strange()
    return version


def _strange() -> ConfigurationError:
    return ConfigurationError(
        "what answers at POKERARENA_VAULT_ADDRESS does not speak Vault's transit API"
    )
