"""Playing a run: from where it stands to its end, hand after hand.

Owns the loop: view → decide → apply → record. It must never know SQL or HTTP: players decide, a
recorder remembers, a control says when to halt, and time comes in as a clock.

One hand after the other, except where no hand depends on the one before it (`reset`, `duplicate`):
there as many hands are in flight as every player takes at once. What is recorded, and its order, is
the same either way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple
from uuid import UUID

from pokerarena import metrics, tracing
from pokerarena.agents.player import FallbackReason, HandVoid
from pokerarena.agents.seat import Decision, HandIds
from pokerarena.engine.deal import BOARD_CARDS, Deal, deal_from_deck, deck
from pokerarena.engine.rules import Rules
from pokerarena.engine.state import Hand
from pokerarena.engine.transition import apply, start
from pokerarena.engine.view import Viewer, see
from pokerarena.history.record import ActionRecord, HandRecord, NoteRecord
from pokerarena.ids import IdKind, id_text, new_id
from pokerarena.protocol.messages import LineupSeat, RunEnd, RunStart, hand_end_from_view
from pokerarena.runs.formats import HandSetup, next_unit, settle
from pokerarena.runs.seams import (
    Clock,
    Control,
    Halt,
    Lodging,
    Moment,
    PlayedUnit,
    Recorder,
    RunFault,
    RunOutcome,
    RunSpec,
    Seating,
    VoidReason,
)
from pokerarena.runs.totals import add_unit
from pokerarena.telemetry import get_logger

log = get_logger("runs.play")

# How long a run may compute without a pause while other runs of the same process wait.
SLICE_S: Final = 0.002
VOIDS_IN_A_ROW_MAX: Final = 8
VOID_PAUSE_S: Final = 0.05
VOID_PAUSE_CAP_S: Final = 2.0
FALLBACKS_LOGGED_PER_SEAT: Final = 3
# How often a run that waits for a place for its agents looks whether it is to halt.
LODGING_LOOK_S: Final = 0.5


async def play_run(
    spec: RunSpec,
    seating: Mapping[int, Seating],
    recorder: Recorder,
    control: Control,
    clock: Clock,
    lodging: Lodging | None = None,
) -> RunOutcome:
    """Play until the target, the end of the game, or a halt. Raises `RunFault` and `Crowded`."""
    run = _Run(spec, seating, recorder, control, clock, lodging)
    try:
        opened = await run.open()
        end = await run.play()
        await recorder.flush()
        if opened and end != "drained":
            await run.tell_end(end)
        return RunOutcome(end, run.hands_done, run.totals)
    finally:
        await run.close()


class _Run:
    """One run in play: what has been recorded, and the hands in flight."""

    def __init__(
        self,
        spec: RunSpec,
        seating: Mapping[int, Seating],
        recorder: Recorder,
        control: Control,
        clock: Clock,
        lodging: Lodging | None,
    ) -> None:
        self.hands_done = spec.hands_done
        self.totals = spec.totals
        self._spec = spec
        self._seating = seating
        self._recorder = recorder
        self._control = control
        self._clock = clock
        self._lodging = lodging
        self._position = spec.position
        self._last_deal = spec.deals_done
        self._viewers = {seat: Viewer.of_seats((seat,)) for seat in seating}
        self._listeners = [seat for seat, taken in seating.items() if taken.wants_events]
        self._stakes: dict[int, Rules] = {}
        self._run_text = id_text(IdKind.RUN, spec.run_id)
        self._table_text = id_text(IdKind.TABLE, spec.table_id)
        self._fallbacks_logged: dict[tuple[int, FallbackReason], int] = {}
        self._width = 1
        if spec.rules.several_in_flight:
            takes = [taken.player.player.max_in_flight for taken in seating.values()]
            self._width = min(spec.in_flight_max, *takes)

    async def play(self) -> Literal["completed", "stopped", "drained"]:
        """Keep the hands in flight going, and record them in order."""
        units = self._units()
        flying: deque[tuple[tuple[HandSetup, ...], asyncio.Task[_Finished | None]]] = deque()
        try:
            while True:
                while len(flying) < self._width and self._control.halt is None:
                    unit = next(units, None)
                    if unit is None:
                        break
                    flying.append((unit, asyncio.ensure_future(self._play_unit(unit))))
                if not flying:
                    break
                unit, task = flying[0]
                finished = await task
                flying.popleft()
                if finished is None:
                    break  # halted within a unit: hands after it would leave a gap
                await self._record(unit, finished)
        finally:
            await self._let_go([task for _, task in flying])
        if self._control.halt is None or self._is_over():
            return "completed"
        return "stopped" if self._control.halt is Halt.STOP else "drained"

    def _units(self) -> Iterator[tuple[HandSetup, ...]]:
        """What to play next. With several in flight no unit depends on the one before it."""
        hand_no = self._spec.hands_done + 1
        while hand_no <= self._spec.hands_target:
            unit = next_unit(self._spec.rules, self._position, hand_no)
            if not unit:
                return
            hand_no += len(unit)
            yield unit

    def _is_over(self) -> bool:
        return self.hands_done >= self._spec.hands_target or not next_unit(
            self._spec.rules, self._position, self.hands_done + 1
        )

    async def _record(self, unit: tuple[HandSetup, ...], finished: _Finished) -> None:
        for setup, hand in zip(unit, finished.hands, strict=True):
            self._position = settle(self._spec.rules, self._position, setup, hand.net)
        self.totals = add_unit(
            self.totals,
            finished.hands,
            unit[0].rebuys,
            {seat: taken.player.time_bank_left_ms for seat, taken in self._seating.items()},
        )
        self.hands_done += len(unit)
        await self._recorder.record(
            PlayedUnit(finished.hands, finished.deal_no, self._position, self.totals)
        )

    async def _let_go(self, tasks: Sequence[asyncio.Task[_Finished | None]]) -> None:
        """Hands that can no longer be recorded: their deals stay unsettled and become void."""
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _play_unit(self, unit: tuple[HandSetup, ...]) -> _Finished | None:
        """Play the hands of one deal; after a fault of ours, with another deal."""
        for attempt in range(VOIDS_IN_A_ROW_MAX):
            if not await self._lodged():
                return None
            self._last_deal += 1
            deal_no = self._last_deal
            await self._recorder.reserve(deal_no)
            seat_count = len(unit[0].seats)
            cards = deck(
                self._spec.seed,
                self._spec.run_id.bytes,
                deal_no,
                2 * seat_count + BOARD_CARDS,
            )
            hands: list[HandRecord] = []
            try:
                for setup in unit:
                    if hands and self._control.halt is not None:
                        await self._recorder.void(deal_no, _void_reason(self._control.halt))
                        return None
                    button_index = setup.seats.index(setup.button_seat)
                    deal = deal_from_deck(cards, seat_count, button_index)
                    hands.append(await self._play_hand(setup, deal_no, deal))
                return _Finished(tuple(hands), deal_no)
            except HandVoid as fault:
                metrics.DEALS_VOID.number().add()
                log.warning("deal_void", deal_no=deal_no, reason="infrastructure", why=str(fault))
                await self._recorder.void(deal_no, VoidReason.INFRASTRUCTURE)
                last_fault = str(fault)
            await asyncio.sleep(min(VOID_PAUSE_CAP_S, VOID_PAUSE_S * 2**attempt))
            if self._control.halt is not None:
                return None
        raise RunFault(
            "infrastructure", f"{VOIDS_IN_A_ROW_MAX} deals in a row were void: {last_fault}"
        )

    async def _play_hand(self, setup: HandSetup, deal_no: int, deal: Deal) -> HandRecord:
        """One hand from its first card to its last chip."""
        hand_id = new_id()
        ids = HandIds(
            self._run_text, self._table_text, id_text(IdKind.HAND, hand_id), setup.hand_no
        )
        if not tracing.traces_hand(setup.hand_no):
            return await self._play_cards(setup, deal_no, deal, hand_id, ids)
        with tracing.span(
            "hand",
            run_id=ids.run_id,
            hand_id=ids.hand_id,
            hand_no=ids.hand_no,
            deal_no=deal_no,
        ):
            return await self._play_cards(setup, deal_no, deal, hand_id, ids)

    async def _play_cards(
        self, setup: HandSetup, deal_no: int, deal: Deal, hand_id: UUID, ids: HandIds
    ) -> HandRecord:
        monotonic = self._clock.monotonic
        slice_began_s = monotonic()
        actions: list[ActionRecord] = []
        notes: list[NoteRecord] = []
        rules = self._rules_at(setup.level)
        hand = start(rules, setup.seats, setup.stacks, setup.button_seat, deal).hand
        while (seat := hand.seat_to_act) is not None:
            if self._recorder.watched:
                self._recorder.show(Moment(hand_id, deal_no, setup, deal.holes, hand))
            view = see(hand, self._viewers[seat])
            decision = await self._seating[seat].player.decide(view, view.legal, ids)
            hand = apply(hand, decision.action).hand
            _, street, _, kind, amount = hand.history[-1]
            if decision.fallback is not None:
                self._log_fallback(seat, ids, decision)
            if decision.note is not None or _tells_more(decision.fallback):
                notes.append(NoteRecord(len(actions), seat, decision.note, decision.detail))
            actions.append(
                ActionRecord(seat, street, kind, amount, decision.elapsed_ms, decision.fallback)
            )
            if monotonic() - slice_began_s > SLICE_S:
                await asyncio.sleep(0)
                slice_began_s = monotonic()
        if self._recorder.watched:
            self._recorder.show(Moment(hand_id, deal_no, setup, deal.holes, hand))
        await self._tell_result(hand, ids)
        return HandRecord(
            id=hand_id,
            hand_no=setup.hand_no,
            deal_no=deal_no,
            level=setup.level,
            ended_at=self._clock.now(),
            button_seat=setup.button_seat,
            seats=setup.seats,
            stacks=setup.stacks,
            net=hand.net(),
            board=hand.board,
            holes=deal.holes,
            actions=tuple(actions),
            notes=tuple(notes),
        )

    def _rules_at(self, level: int) -> Rules:
        rules = self._stakes.get(level)
        if rules is None:
            rules = self._stakes[level] = self._spec.rules.at_level(level)
        return rules

    def _log_fallback(self, seat: int, ids: HandIds, decision: Decision) -> None:
        """The first few of each kind; all of them are counted and stored with their actions."""
        reason = decision.fallback
        assert reason is not None, "the caller asked"
        count = self._fallbacks_logged.get((seat, reason), 0) + 1
        self._fallbacks_logged[seat, reason] = count
        if count <= FALLBACKS_LOGGED_PER_SEAT:
            log.info(
                "fallback",
                seat=seat,
                hand_id=ids.hand_id,
                hand_no=ids.hand_no,
                version_id=self._seating[seat].version_id,
                reason=reason.value,
                detail=decision.detail,
                elapsed_ms=decision.elapsed_ms,
                done_instead=decision.action.kind.name.lower(),
                last_one_logged=count == FALLBACKS_LOGGED_PER_SEAT,
            )

    # -- messages to agents -------------------------------------------------------------------

    async def _lodged(self) -> bool:
        """Wait until the agents have a place to play in; false when the run is to halt before."""
        if self._lodging is None:
            return True
        while not await self._lodging.ready(LODGING_LOOK_S):
            if self._control.halt is not None:
                return False
        return True

    async def open(self) -> bool:
        """Open every player, all at once: one that is slow to open delays nobody else.

        False when the run is to halt before they can play.
        """
        if not await self._lodged():
            return False
        rules = self._spec.rules
        stakes = self._rules_at(rules.level_of(self.hands_done + 1))
        lineup = tuple([LineupSeat(seat, taken.name) for seat, taken in self._seating.items()])
        messages = {
            seat: RunStart(
                run_id=self._run_text,
                table_id=self._table_text,
                seat=seat,
                lineup=lineup,
                format=rules.format.value,
                planned_hands=self._spec.hands_target,
                small_blind=stakes.small_blind,
                big_blind=stakes.big_blind,
                ante=stakes.ante,
                ante_kind=stakes.ante_kind,
                starting_stack=rules.starting_stack,
                time_limit_ms=rules.action_time_ms,
                time_bank_ms=rules.time_bank_ms,
            )
            for seat in self._seating
        }
        try:
            async with asyncio.TaskGroup() as opening:
                for seat, message in messages.items():
                    opening.create_task(self._seating[seat].player.open(message))
        except ExceptionGroup as failed:
            # One that cannot be opened ends the run, with its own words.
            raise failed.exceptions[0] from None
        return await self._lodged()

    async def _tell_result(self, hand: Hand, ids: HandIds) -> None:
        for seat in self._listeners:
            if seat in hand.seats:
                message = hand_end_from_view(
                    see(hand, self._viewers[seat]),
                    seat=seat,
                    run_id=ids.run_id,
                    table_id=ids.table_id,
                    hand_id=ids.hand_id,
                    hand_no=ids.hand_no,
                )
                await self._seating[seat].player.tell(message)

    async def tell_end(self, status: Literal["completed", "stopped"]) -> None:
        """Tell those who asked for it that the run is over."""
        for seat in self._listeners:
            message = RunEnd(
                run_id=self._run_text,
                table_id=self._table_text,
                seat=seat,
                status=status,
                hands_played=self.hands_done,
                net=self.totals[seat].net,
            )
            await self._seating[seat].player.tell(message)

    async def close(self) -> None:
        """Close every player; one that fails to close changes nothing any more."""
        results = await asyncio.gather(
            *[taken.player.close() for taken in self._seating.values()], return_exceptions=True
        )
        for result in results:
            if isinstance(result, Exception):
                log.warning("player_close_failed", why=f"{type(result).__name__}: {result}")


class _Finished(NamedTuple):
    hands: tuple[HandRecord, ...]
    deal_no: int


def _tells_more(fallback: FallbackReason | None) -> bool:
    """Whether the failure's detail is worth a row: an open circuit says the same every time."""
    return fallback is not None and fallback is not FallbackReason.CIRCUIT_OPEN


def _void_reason(halt: Halt) -> VoidReason:
    return VoidReason.STOPPED if halt is Halt.STOP else VoidReason.DRAINED
