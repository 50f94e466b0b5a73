"""The types that requests and responses are made of.

Requests are strict and closed: unknown fields, wrong types and unbounded values are refused, with
the field's name. Ids have one spelling. It must never hold a rule of the game.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from pokerarena.errors import Invalid
from pokerarena.ids import IdKind, id_text, parse_id

CHIPS_MAX = 1_000_000_000
INT32_MAX = 2**31 - 1

Item = TypeVar("Item")

# Names are one line of visible text: no control characters, no directional overrides, and no
# space at either end, so that two names that look alike are rarely different.
_VISIBLE = (
    r"^[^\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
    r"([^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]*"
    r"[^\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff])?$"
)
# A description may have several lines, but nothing that a database or a terminal chokes on.
_PROSE = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]*$"


class RequestShape(BaseModel):
    """A request body: closed and strict."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class QueryShape(BaseModel):
    """Query parameters: closed; numbers come as text there."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Shown(BaseModel):
    """A response, or a part of one."""

    model_config = ConfigDict(frozen=True)


def _name(max_length: int) -> Any:
    return StringConstraints(min_length=1, max_length=max_length, pattern=_VISIBLE)


AgentName = Annotated[str, _name(60)]
TableName = Annotated[str, _name(80)]
TokenName = Annotated[str, _name(80)]
Description = Annotated[str, StringConstraints(max_length=1000, pattern=_PROSE)]
# Bounded before anything is done with it; what makes a good one is `auth.passwords`' word.
PasswordText = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
UsernameText = Annotated[str, StringConstraints(min_length=1, max_length=100)]
CodeText = Annotated[str, StringConstraints(min_length=1, max_length=40)]
ProviderIdText = Annotated[str, StringConstraints(min_length=1, max_length=40)]
# What a path of ours is, is `auth.federation`'s word.
ReturnToText = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
UrlText = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Chips = Annotated[int, Field(ge=0, le=CHIPS_MAX)]
Blind = Annotated[int, Field(ge=1, le=CHIPS_MAX)]


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise PydanticCustomError("null", "Leave the field out to keep what it is")
    return value


# A field of a change: left out it stays as it is, which null must not be mistaken for.
OrKeep = Annotated[Item | None, BeforeValidator(_refuse_null)]


def _id(kind: IdKind) -> Any:
    def parse(value: Any) -> UUID:
        if isinstance(value, UUID):
            return value
        if isinstance(value, str):
            try:
                return parse_id(kind, value)
            except Invalid as error:
                raise PydanticCustomError("invalid_id", "{why}", {"why": error.message}) from None
        raise PydanticCustomError("invalid_id", "An id is a text")

    return (
        BeforeValidator(parse),
        PlainSerializer(lambda value: id_text(kind, value), return_type=str),
        WithJsonSchema({"type": "string", "pattern": f"^{kind.value}_[0-9a-f]{{32}}$"}),
    )


UserId = Annotated[UUID, *_id(IdKind.USER)]
SessionId = Annotated[UUID, *_id(IdKind.SESSION)]
IdentityId = Annotated[UUID, *_id(IdKind.IDENTITY)]
TokenId = Annotated[UUID, *_id(IdKind.TOKEN)]
ViewerLinkId = Annotated[UUID, *_id(IdKind.VIEWER_LINK)]
AgentId = Annotated[UUID, *_id(IdKind.AGENT)]
VersionId = Annotated[UUID, *_id(IdKind.VERSION)]
TableId = Annotated[UUID, *_id(IdKind.TABLE)]
RunId = Annotated[UUID, *_id(IdKind.RUN)]
EgressRuleId = Annotated[UUID, *_id(IdKind.EGRESS_RULE)]
DeadLetterId = Annotated[UUID, *_id(IdKind.DEAD_LETTER)]
HandId = Annotated[UUID, *_id(IdKind.HAND)]


class Page(Shown, Generic[Item]):
    """One page of a list. ``next_cursor`` is null at the end."""

    items: list[Item]
    next_cursor: str | None
