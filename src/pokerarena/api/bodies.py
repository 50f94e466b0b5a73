"""JSON bodies, read strictly: UTF-8, no key twice, no number that JSON does not have.

Two readers that disagree about a document are how checks are passed by: what one of them might
read otherwise is refused. It must never judge what a document says; shapes do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response


class BodyRefused(HTTPException):
    """A body that is not read, with the problem's own code."""

    def __init__(self, status: int, code: str, detail: str, *, close: bool = False) -> None:
        super().__init__(status, detail, {"Connection": "close"} if close else None)
        self.code = code


class StrictRequest(Request):
    """A request whose JSON has one meaning."""

    async def json(self) -> Any:
        try:
            text = (await self.body()).decode("utf-8")
        except UnicodeDecodeError:
            raise BodyRefused(
                400, "malformed_body", "The body cannot be read; send one JSON document in UTF-8."
            ) from None
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)


class StrictRoute(APIRoute):
    """A route that reads its body strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return answer


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise BodyRefused(
            400,
            "duplicate_key",
            "An object of the body names one of its members twice; name each once.",
        )
    return read


def _no_number(constant: str) -> Any:
    raise json.JSONDecodeError(f"{constant} is no number of JSON", "", 0)
