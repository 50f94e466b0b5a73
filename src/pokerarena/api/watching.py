"""One caller watching one table: what to send when, and whether the caller still may.

Rights are looked up anew for each run (seats differ), when a run's status changes, and every few
seconds: a revoked token or a table that turned private ends the stream. It must never render a
live hand but through `engine.view.see`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

from pokerarena.api.context import Parts
from pokerarena.api.hand_shapes import LiveHandShown
from pokerarena.api.hub import Pulse, Subscription, Watched
from pokerarena.api.stream import KEEP_ALIVE, event
from pokerarena.auth.permissions import Permission, Principal, authorize
from pokerarena.engine.view import see
from pokerarena.errors import ArenaError, NotFound
from pokerarena.history.live import LiveHand
from pokerarena.ids import IdKind, id_text
from pokerarena.runs.viewers import Sight, see_run
from pokerarena.tables import service as tables


@contextmanager
def watching(
    parts: Parts, caller: Principal, table_id: UUID
) -> Iterator[AsyncGenerator[bytes, None]]:
    """The events of a table for one caller; raises `Unavailable` where there are too many."""
    with parts.hub.subscribe(table_id) as subscription:
        yield Watcher(parts, caller, table_id, subscription).chunks()


class Watcher:
    """The stream of one caller."""

    def __init__(
        self, parts: Parts, caller: Principal, table_id: UUID, subscription: Subscription
    ) -> None:
        self._parts = parts
        self._caller = caller
        self._table_id = table_id
        self._watched = subscription.watched
        self._news = subscription.news
        self._rights: tuple[UUID, str] | None = None
        self._sight: Sight | None = None
        self._checked_at = time.monotonic()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Events until the limit, the end of the process, or the end of the caller's rights."""
        settings = self._parts.settings
        ends_at = time.monotonic() + settings.stream_max_s
        hand_seq = pulse_seq = 0
        while True:
            if self._parts.hub.closing.is_set():
                yield event("end", {"reason": "shutdown"})
                return
            now = time.monotonic()
            if now >= ends_at:
                yield event("end", {"reason": "limit"})
                return
            try:
                if now - self._checked_at >= settings.stream_recheck_s:
                    await self._recheck()
                self._news.clear()
                chunk = b""
                if self._watched.pulse_seq != pulse_seq:
                    pulse_seq = self._watched.pulse_seq
                    chunk += await self._run_event()
                if self._watched.hand_seq != hand_seq:
                    hand_seq = self._watched.hand_seq
                    chunk += await self._hand_event()
            except ArenaError as error:
                yield event("end", {"reason": error.code})
                return
            if chunk:
                yield chunk
                continue
            # Never asleep beyond the next look at the caller's rights, nor beyond the end.
            recheck_in_s = max(0.0, self._checked_at + settings.stream_recheck_s - now)
            wait_s = min(settings.stream_keepalive_s, recheck_in_s, ends_at - now)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
                continue
            yield KEEP_ALIVE

    async def _recheck(self) -> None:
        async with self._parts.database.unit_of_work() as session:
            self._caller = await self._parts.callers.again(session, self._caller)
            authorize(self._caller, Permission.TABLE_READ)
            await tables.visible_table(session, self._caller, self._table_id)
        self._rights = None
        self._checked_at = time.monotonic()

    async def _sight_of(self, run_id: UUID, status: str) -> Sight | None:
        """The caller's sight of a run, looked up when the run or its status is another."""
        if self._rights != (run_id, status):
            try:
                async with self._parts.database.unit_of_work() as session:
                    self._sight = (await see_run(session, self._caller, run_id)).sight
            except NotFound:
                self._sight = None
            self._rights = (run_id, status)
        return self._sight

    def _status_of(self, run_id: UUID) -> str:
        pulse = self._watched.pulse
        return pulse.status if pulse is not None and pulse.run_id == run_id else ""

    async def _run_event(self) -> bytes:
        pulse = self._watched.pulse
        if pulse is None or await self._sight_of(pulse.run_id, pulse.status) is None:
            return b""
        return event("run", pulse_shown(self._table_id, pulse))

    async def _hand_event(self) -> bytes:
        live = self._watched.hand
        if live is None:
            return b""
        sight = await self._sight_of(live.run_id, self._status_of(live.run_id))
        if sight is None or self._watched.hand is not live:
            # Either nothing for this caller, or something newer came during the look-up.
            return b""
        return event("hand", render_live(self._watched, live, sight))


def pulse_shown(table_id: UUID, pulse: Pulse) -> dict[str, Any]:
    """A run's counters as an event."""
    return {
        "table_id": id_text(IdKind.TABLE, table_id),
        "run_id": id_text(IdKind.RUN, pulse.run_id),
        "status": pulse.status,
        "hands_done": pulse.hands_done,
        "hands_target": pulse.hands_target,
        "failure_code": pulse.failure_code,
    }


def render_live(watched: Watched, live: LiveHand, sight: Sight) -> bytes:
    """The live hand for these eyes, rendered once for all who have the same."""
    eyes = (live.hand_id, sight.viewer.everything, sight.viewer.seats)
    rendered = watched.rendered.get(eyes)
    if rendered is None:
        rendered = live_hand_shown(live, sight).model_dump_json().encode()
        if watched.hand is live:
            watched.rendered[eyes] = rendered
    return rendered


def live_hand_shown(live: LiveHand, sight: Sight) -> LiveHandShown:
    """The live hand as a caller with this sight may see it."""
    return LiveHandShown.of(
        see(live.hand(), sight.viewer),
        table_id=live.table_id,
        run_id=live.run_id,
        hand_id=live.hand_id,
        hand_no=live.hand_no,
    )
