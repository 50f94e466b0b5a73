"""Checks the audit chain from its first record to its head, for `pokerarena admin audit verify`.

Owns: the connection, and how an anchor is spelled. Must never: change anything.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from sqlalchemy.exc import OperationalError

from pokerarena.auth.audit import Verdict, verify
from pokerarena.db import Database
from pokerarena.errors import Invalid, Unavailable
from pokerarena.settings import Settings

_ANCHOR: Final = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")


def check(settings: Settings, *, expect: str | None) -> Verdict:
    """The verdict on the whole chain; `expect` is the head that an earlier check printed."""
    seq: int | None = None
    link: bytes | None = None
    if expect is not None:
        match = _ANCHOR.fullmatch(expect)
        if match is None:
            raise Invalid(
                "anchor_invalid", "--expect takes what an earlier check printed after 'head'."
            )
        seq, link = int(match[1]), bytes.fromhex(match[2])
    return asyncio.run(_check(settings, seq, link))


async def _check(settings: Settings, seq: int | None, link: bytes | None) -> Verdict:
    database = Database(
        settings.model_copy(update={"database_pool_size": 1}), application_name="pokerarena-admin"
    )
    try:
        async with database.session() as session:
            return await verify(session, anchor_seq=seq, anchor_hash=link)
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise Unavailable(
            "database_unreachable", f"The database cannot be reached ({reason}): is it running?"
        ) from None
    finally:
        await database.close()
