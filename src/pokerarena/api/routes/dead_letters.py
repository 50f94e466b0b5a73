"""Dead letters: what gave up, and what an operator makes of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from pokerarena.api.access import needs
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.paging import PageQuery, cut
from pokerarena.api.shapes import DeadLetterId, Page, RunId, Shown, UserId
from pokerarena.auth.permissions import Permission, Principal
from pokerarena.runs import dead_letters
from pokerarena.runs.models import DeadLetter, DeadLetterState

router = APIRouter(prefix="/dead-letters", tags=["dead letters"], route_class=IdempotentRoute)


class DeadLetterShown(Shown):
    """What gave up, why, and after how many attempts; `run_id` and `job_id` lead to the payload."""

    id: DeadLetterId
    subject: dead_letters.Subject
    run_id: RunId | None
    job_id: int | None
    code: str
    detail: str
    attempts: int
    epoch: int
    request_id: str | None
    claimed_by: str | None
    state: DeadLetterState
    created_at: datetime
    last_failed_at: datetime
    closed_at: datetime | None
    closed_by: UserId | None

    @classmethod
    def of(cls, letter: DeadLetter) -> DeadLetterShown:
        return cls.model_validate(letter, from_attributes=True)


class LettersQuery(PageQuery):
    """Which letters to list."""

    state: Annotated[
        Literal["open", "retried", "discarded", "all"], Field(description="letters in this state")
    ] = "open"


class LettersPage(Page[DeadLetterShown]):
    """Letters, newest first, and how many are open."""

    open: int


@router.get("")
async def list_dead_letters(
    _: Annotated[Principal, needs(Permission.DEAD_LETTERS_MANAGE)],
    page: Annotated[LettersQuery, Query()],
    parts: PartsOf,
    session: Session,
) -> LettersPage:
    """Dead letters, newest first."""
    limit = page.bounded_limit(parts.settings)
    rows = await dead_letters.list_letters(
        session,
        state=None if page.state == "all" else DeadLetterState(page.state),
        before=page.before_id("letters"),
        limit=limit + 1,
    )
    shown, cursor = cut(rows, limit, "letters", lambda letter: letter.id)
    return LettersPage(
        items=[DeadLetterShown.of(letter) for letter in shown],
        next_cursor=cursor,
        open=await dead_letters.count_open(session),
    )


@router.get("/{letter_id}")
async def read_dead_letter(
    _: Annotated[Principal, needs(Permission.DEAD_LETTERS_MANAGE)],
    letter_id: DeadLetterId,
    session: Session,
) -> DeadLetterShown:
    """One dead letter."""
    return DeadLetterShown.of(await dead_letters.get_letter(session, letter_id))


@router.post("/{letter_id}/retry")
async def retry_dead_letter(
    caller: Annotated[Principal, needs(Permission.DEAD_LETTERS_MANAGE)],
    letter_id: DeadLetterId,
    session: Session,
) -> DeadLetterShown:
    """Resume the run from where it stands; the letter is closed."""
    return DeadLetterShown.of(await dead_letters.retry(session, letter_id, by=caller.known_id()))


@router.post("/{letter_id}/discard")
async def discard_dead_letter(
    caller: Annotated[Principal, needs(Permission.DEAD_LETTERS_MANAGE)],
    letter_id: DeadLetterId,
    session: Session,
) -> DeadLetterShown:
    """Close the letter; what it is about stays failed."""
    return DeadLetterShown.of(await dead_letters.discard(session, letter_id, by=caller.known_id()))
