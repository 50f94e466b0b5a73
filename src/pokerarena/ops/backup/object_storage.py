"""Backups in object storage that speaks S3, by an S3-compatible client.

A small file is one PUT; a longer one is a multipart upload, which becomes an object only when its
last part is confirmed: a connection lost before leaves nothing that counts, and the upload is given
up with the storage where that still answers. Everything is sealed before it comes here.
Must never: speak without TLS beyond this machine, wait without an end, or show a credential.
"""

from __future__ import annotations

import io
import queue
import re
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from pokerarena.errors import ArenaError, ConfigurationError, Unavailable
from pokerarena.ops.backup.storage import Readable, Writable
from pokerarena.settings import Settings, is_loopback_url

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

# S3 allows 10,000 parts: with these an upload of 160 GB. Memory is a few of them.
PART_BYTES: Final = 16 * 1024 * 1024
PARTS_AT_ONCE: Final = 2
_PARTS_WAITING_MAX: Final = 2
_BUFFER_BYTES: Final = 1024 * 1024
_LOOK_S: Final = 0.2
_RETRIES_MAX: Final = 10
_CONNECT_TIMEOUT_S: Final = 5
# A request that moves, however slowly, may take so many times as long as a silent one.
_WHOLE_REQUEST_FACTOR: Final = 4
_CODE: Final = re.compile(r"<Code>(\w{1,60})</Code>")
_CAUSE: Final = re.compile(r'message: "([^"\n]{1,200})"')
_NO_BUCKET: Final = "NoSuchBucket"
_REFUSALS: Final = ("403 Forbidden", "401 Unauthorized")


class ObjectStorage:
    """One bucket, or what begins with a prefix in it."""

    def __init__(self, store: S3Store, address: str, locks: Path) -> None:
        self.store = store
        self._address = address
        self.locks = locks

    @classmethod
    def of(cls, settings: Settings) -> ObjectStorage:
        """Over the bucket that the settings name. Raises `ConfigurationError`; asks nobody yet."""
        key_id = settings.backup_s3_access_key_id.get_secret_value()
        secret = settings.backup_s3_secret_access_key.get_secret_value()
        if not key_id or not secret:
            raise ConfigurationError(
                "POKERARENA_BACKUP_S3_ACCESS_KEY_ID and POKERARENA_BACKUP_S3_SECRET_ACCESS_KEY "
                "must both be set (or …_FILE, the paths of files that hold them)."
            )
        if not settings.backup_spool_directory:
            raise ConfigurationError(
                "POKERARENA_BACKUP_SPOOL_DIRECTORY must be set: the directory of this machine in "
                "which WAL waits for the object storage."
            )
        locks = Path(settings.backup_spool_directory).expanduser().absolute()
        locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        endpoint = settings.backup_s3_endpoint
        plain = is_loopback_url(endpoint)
        if endpoint.startswith("http:") and not plain:
            raise ConfigurationError(
                "POKERARENA_BACKUP_S3_ENDPOINT must be https, except on this machine."
            )
        bucket, _, prefix = settings.backup_bucket.partition("/")
        config: S3Config = {
            "region": settings.backup_s3_region,
            "access_key_id": key_id,
            "secret_access_key": secret,
            "virtual_hosted_style_request": not endpoint,
        }
        if endpoint:
            config["endpoint"] = endpoint
        store = S3Store(
            bucket,
            prefix=prefix or None,
            config=config,
            client_options=_client_options(settings, allow_http=plain),
            retry_config={
                "max_retries": _RETRIES_MAX,
                "retry_timeout": timedelta(seconds=settings.backup_s3_retry_s),
            },
        )
        return cls(store, f"s3://{settings.backup_bucket}", locks)

    def where(self, name: str) -> str:
        return f"{self._address}/{name}"

    @contextmanager
    def writing(self, name: str) -> Iterator[Writable]:
        upload = _Upload(self.store, name)
        try:
            with self.told(name):
                yield upload
                upload.complete()
        except BaseException:
            upload.give_up()
            raise

    @contextmanager
    def reading(self, name: str) -> Iterator[Readable]:
        with io.BufferedReader(_Download(self, name), _BUFFER_BYTES) as source:
            yield source

    def size_bytes(self, name: str) -> int:
        with self.told(name):
            return int(obstore.head(self.store, name)["size"])

    def names(self, folder: str) -> list[str]:
        with self.told(folder):
            objects = [
                entry["path"]
                for page in obstore.list(self.store, prefix=folder, chunk_size=1000)
                for entry in page
            ]
        return sorted(path.rpartition("/")[2] for path in objects)

    def delete(self, name: str) -> None:
        try:
            with self.told(name):
                obstore.delete(self.store, name)
        except FileNotFoundError:
            pass

    @contextmanager
    def told(self, name: str) -> Iterator[None]:
        """What the client fails with, as one of our errors in one line."""
        try:
            yield
        except FileNotFoundError as error:
            if _NO_BUCKET in str(error):
                raise self._no_bucket() from None
            raise
        except BaseError as error:
            raise self._translated(name, error) from None

    def _no_bucket(self) -> ConfigurationError:
        return ConfigurationError(
            f"There is no bucket at {self._address}: make it, or correct POKERARENA_BACKUP_BUCKET."
        )

    def _translated(self, name: str, error: BaseError) -> ArenaError:
        text, _, details = str(error).partition("\n\nDebug source")
        code = _CODE.search(text)
        why = code[1] if code else ""
        if why == _NO_BUCKET:
            return self._no_bucket()
        refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
        if refused or any(words in text for words in _REFUSALS):
            return ConfigurationError(
                f"The object storage refuses access to {self.where(name)}"
                f"{f' ({why})' if why else ''}: check POKERARENA_BACKUP_S3_ACCESS_KEY_ID and "
                "…_SECRET_ACCESS_KEY, and what they may do with the bucket."
            )
        if "InvalidCertificate" in details:
            why = (
                "its certificate is signed by nobody that is trusted (POKERARENA_BACKUP_S3_CA_FILE)"
            )
        causes = _CAUSE.findall(details)
        told = why or (causes[-1] if causes else " ".join(text.split())[-200:])
        return Unavailable(
            "backup_storage_failed", f"The object storage failed at {self.where(name)}: {told}."
        )


class _Upload:
    """Content that is written here and sent meanwhile: one PUT, or parts once it is long."""

    def __init__(self, store: S3Store, name: str) -> None:
        self._store = store
        self._name = name
        self._waiting = bytearray()
        self._parts: queue.Queue[bytes | None] = queue.Queue(_PARTS_WAITING_MAX)
        self._sender: threading.Thread | None = None
        self._given_up = False
        self._failure: Exception | None = None

    def write(self, data: bytes) -> None:
        """Raises what the client has failed with meanwhile."""
        self._waiting += data
        while len(self._waiting) >= PART_BYTES:
            self._hand_over(bytes(self._waiting[:PART_BYTES]))
            del self._waiting[:PART_BYTES]

    def complete(self) -> None:
        """Raises what the client failed with."""
        if self._sender is None:
            obstore.put(self._store, self._name, bytes(self._waiting), use_multipart=False)
            return
        self._hand_over(bytes(self._waiting))
        self._hand_over(None)
        self._sender.join()
        self._raise_failure()

    def give_up(self) -> None:
        """Nothing of it becomes an object."""
        self._given_up = True
        if self._sender is not None:
            self._sender.join()

    def _hand_over(self, part: bytes | None) -> None:
        if self._sender is None:
            self._sender = threading.Thread(target=self._send, name="backup upload", daemon=True)
            self._sender.start()
        while self._failure is None:
            try:
                self._parts.put(part, timeout=_LOOK_S)
            except queue.Full:
                continue
            return
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _send(self) -> None:
        try:
            obstore.put(
                self._store,
                self._name,
                self._content(),
                use_multipart=True,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )
        except Exception as error:
            self._failure = error

    def _content(self) -> Iterator[bytes]:
        while True:
            try:
                part = self._parts.get(timeout=_LOOK_S)
            except queue.Empty:
                if self._given_up:
                    # The client aborts an upload whose content fails.
                    raise InterruptedError from None
                continue
            if part is None:
                return
            yield part


class _Download(io.RawIOBase):
    """An object's content as a stream, read in ranges: each is bounded in time and tried again."""

    def __init__(self, storage: ObjectStorage, name: str) -> None:
        self._storage = storage
        self._name = name
        with storage.told(name):
            first = obstore.get(storage.store, name, options={"range": (0, PART_BYTES)})
            self._range = memoryview(first.bytes())
        # A file that is replaced meanwhile is another file.
        self._options: obstore.GetOptions = {"if_match": first.meta["e_tag"]}
        self._begins = iter(range(PART_BYTES, first.meta["size"], PART_BYTES))
        self._readers = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="backup download")
        self._coming: deque[Future[memoryview]] = deque()
        for _ in range(PARTS_AT_ONCE):
            self._ask()

    def _ask(self) -> None:
        begin = next(self._begins, None)
        if begin is not None:
            self._coming.append(self._readers.submit(self._read, begin))

    def _read(self, begin: int) -> memoryview:
        options: obstore.GetOptions = {**self._options, "range": (begin, begin + PART_BYTES)}
        with self._storage.told(self._name):
            return memoryview(obstore.get(self._storage.store, self._name, options=options).bytes())

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._range:
            if not self._coming:
                return 0
            self._range = self._coming.popleft().result()
            self._ask()
        count = min(len(buffer), len(self._range))
        buffer[:count] = self._range[:count]
        self._range = self._range[count:]
        return count

    def close(self) -> None:
        self._readers.shutdown(wait=True, cancel_futures=True)
        super().close()


def _client_options(settings: Settings, *, allow_http: bool) -> ClientConfig:
    options: ClientConfig = {
        "allow_http": allow_http,
        "connect_timeout": timedelta(seconds=_CONNECT_TIMEOUT_S),
        "read_timeout": timedelta(seconds=settings.backup_s3_timeout_s),
        "timeout": timedelta(seconds=_WHOLE_REQUEST_FACTOR * settings.backup_s3_timeout_s),
    }
    if settings.backup_s3_ca_file:
        try:
            options["root_certificate"] = Path(settings.backup_s3_ca_file).read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"POKERARENA_BACKUP_S3_CA_FILE cannot be read ({error.strerror})."
            ) from None
    return options
