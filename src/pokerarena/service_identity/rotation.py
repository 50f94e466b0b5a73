"""The life of a service's key: published, then used, then retired.

Owns the files. A key is published (its public half is in the set) before anybody signs with it, and
stays published until the last token that it signed has lapsed: so no valid token is refused at any
moment. Every file is replaced whole or not at all. It must never write a private key where others
can read it, nor over another one.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from pokerarena.errors import ConfigurationError
from pokerarena.service_identity import tokens
from pokerarena.service_identity.keys import (
    KeySet,
    PrivateKey,
    ServiceName,
    new_private_key,
    parse_key_set,
    parse_private_key,
)
from pokerarena.watched_file import CHECK_EVERY_S

T = TypeVar("T")
# Until every process on this machine has noticed a file that was replaced, with room to spare.
NOTICED_AFTER_S: Final = 5 * CHECK_EVERY_S
LAPSES_AFTER_S: Final[float] = tokens.LAPSES_AFTER_S


def publish(service: ServiceName, private: Path, key_set: Path) -> PrivateKey:
    """Make a key: its private half in a new file, its public half added to the set."""
    key = new_private_key()
    with _changing(key_set):
        known = read_key_set(key_set) if key_set.exists() else KeySet()
        grown = KeySet([*known.values(), key.published(service)])
        _write_new_private(private, key.pem())
        try:
            _replace(key_set, grown.json().encode(), 0o644)
        except OSError:
            private.unlink()
            raise
    return key


def use(successor: Path, private: Path) -> PrivateKey:
    """Let a published key take the place of the one in use; processes notice by themselves.

    It goes to whom the former one belongs: whoever rotates may be root, and whoever signs is not.
    """
    key = read_private_key(successor)
    if private.exists():
        former, new = private.stat(), successor.stat()
        if (former.st_uid, former.st_gid) != (new.st_uid, new.st_gid):
            os.chown(successor, former.st_uid, former.st_gid)
        successor.chmod(former.st_mode & 0o777)
    successor.replace(private)
    return key


def retire(kid: str, key_set: Path) -> ServiceName:
    """Take a key out of the set, from now on nothing that it signed is believed; whose it was."""
    with _changing(key_set):
        known = read_key_set(key_set)
        if kid not in known:
            raise ConfigurationError(f"{key_set} has no key {kid}")
        left = KeySet(key for key in known.values() if key.kid != kid)
        _replace(key_set, left.json().encode(), 0o644)
    return known[kid].service


def rotate(
    service: ServiceName,
    private: Path,
    key_set: Path,
    *,
    noticed_after_s: float,
    lapses_after_s: float,
    sleep: Callable[[float], None] = time.sleep,
    say: Callable[[str], None] = lambda _: None,
) -> PrivateKey:
    """All steps, for files that the processes of this machine read themselves."""
    old = read_private_key(private)
    successor = private.with_name(private.name + ".next")
    key = publish(service, successor, key_set)
    say(f"published {key.kid}; used in {noticed_after_s:g} s")
    sleep(noticed_after_s)
    use(successor, private)
    say(f"{key.kid} is in use; {old.kid} is retired in {noticed_after_s + lapses_after_s:g} s")
    sleep(noticed_after_s + lapses_after_s)
    retire(old.kid, key_set)
    say(f"retired {old.kid}")
    return key


def read_private_key(path: Path) -> PrivateKey:
    """The key in a file. Raises `ConfigurationError`."""
    return _parsed(path, parse_private_key)


def read_key_set(path: Path) -> KeySet:
    """The set in a file. Raises `ConfigurationError`."""
    return _parsed(path, parse_key_set)


def _parsed(path: Path, parse: Callable[[bytes], T]) -> T:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.message}") from None


@contextmanager
def _changing(key_set: Path) -> Iterator[None]:
    """Two who change the set do so one after the other."""
    try:
        folder = os.open(key_set.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigurationError(f"{key_set.parent} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write_new_private(path: Path, pem: bytes) -> None:
    try:
        _write(path, pem, 0o600)
    except FileExistsError:
        raise ConfigurationError(
            f"{path} is there already: name another file; no key is overwritten"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None


def _replace(path: Path, data: bytes, mode: int) -> None:
    building = path.with_name(f".{path.name}.new")
    building.unlink(missing_ok=True)
    _write(building, data, mode)
    building.replace(path)


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        # Whatever the umask says: who is to read the set must be able to.
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
