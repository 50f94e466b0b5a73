"""Files of hands: one open file to which hands are written as they end.

Owns which format a file's name asks for. What may be seen is the viewer's, through `engine.view`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from pokerarena.engine.view import Viewer
from pokerarena.errors import Invalid
from pokerarena.history.acpc import acpc_hand, acpc_header, acpc_score
from pokerarena.history.phh import phh_hand
from pokerarena.history.record import HandRecord
from pokerarena.runs.formats import RunRules


class HandFile(Protocol):
    """Where finished hands go to."""

    def write(self, hand: HandRecord) -> None:
        """Add one hand."""

    def end(self, totals: Mapping[int, int]) -> None:
        """Write what the format wants after the last hand: the chips of every seat."""


@contextmanager
def open_hand_file(
    path: Path,
    rules: RunRules,
    *,
    names: Mapping[int, str],
    viewer: Viewer,
    hands: int,
    seed: str,
) -> Iterator[HandFile]:
    """A new file of hands, in the format that its name ends in: ``.phhs`` or ``.log``.

    Raises `Invalid` (``export``, ``acpc_without_antes``) before anything is written.
    """
    if path.suffix not in (".phhs", ".log"):
        raise Invalid("export", f"The export's name must end in .phhs or .log, and is {path.name}.")
    if path.suffix == ".log" and rules.ante:
        raise Invalid(
            "acpc_without_antes",
            "The ACPC log format knows no antes; export to a .phhs file instead.",
        )
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise Invalid(
            "export", f"The export cannot be written to {path}: {error.strerror}."
        ) from None
    with file:
        if path.suffix == ".phhs":
            yield _PhhFile(file, rules, names, viewer)
        else:
            file.write(acpc_header(path.stem, len(names), hands, seed))
            yield _AcpcFile(file, rules, names, viewer)


class _PhhFile:
    def __init__(
        self, file: IO[str], rules: RunRules, names: Mapping[int, str], viewer: Viewer
    ) -> None:
        self._file = file
        self._rules = rules
        self._names = names
        self._viewer = viewer

    def write(self, hand: HandRecord) -> None:
        self._file.write(
            phh_hand(
                hand,
                self._rules.at_level(hand.level),
                names=self._names,
                viewer=self._viewer,
                section=hand.hand_no,
            )
        )

    def end(self, totals: Mapping[int, int]) -> None:
        """PHH has no last line."""


class _AcpcFile(_PhhFile):
    def write(self, hand: HandRecord) -> None:
        rules = self._rules.at_level(hand.level)
        self._file.write(acpc_hand(hand, rules, names=self._names, viewer=self._viewer))

    def end(self, totals: Mapping[int, int]) -> None:
        self._file.write(acpc_score(totals, self._names))
