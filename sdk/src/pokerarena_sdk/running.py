"""How an agent's file runs: hosted, as an HTTP server, or in practice.

Owns the choice between them. Nothing here is specific to one of the three.
"""

from __future__ import annotations

import sys

from pokerarena_sdk import hosted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pokerarena_sdk.view import View

USAGE = "usage: python bot.py [--serve HOST:PORT | --practice | --pipe]"


def run(
    act: Callable[[View], Any],
    on_event: Callable[[dict[str, Any]], None] | None = None,
    argv: Sequence[str] | None = None,
) -> None:
    """Run an agent until its input ends.

    With pipes it speaks the protocol; on a terminal it plays the practice positions;
    `--serve HOST:PORT` makes it an HTTP agent. `on_event` gets `run_start`, `hand_end` and
    `run_end` as dictionaries, where the manifest asks for them.
    """
    options = list(sys.argv[1:] if argv is None else argv)
    if not options:
        options = ["--practice"] if sys.stdin.isatty() else ["--pipe"]
    if options == ["--pipe"]:
        hosted.serve_pipe(act, on_event)
    elif options == ["--practice"]:
        from pokerarena_sdk.practice import practise

        sys.exit(1 if practise(act) else 0)
    elif len(options) == 2 and options[0] == "--serve":
        from pokerarena_sdk.server import serve

        serve(act, options[1], on_event)
    else:
        sys.exit(USAGE)


def run_file(path: str) -> None:
    """Run an agent's file as the sandbox does: a file that only defines `act` works too."""
    import runpy

    sys.argv = [path]
    folder = path.rpartition("/")[0] or "."
    sys.path.insert(0, folder)
    names = runpy.run_path(path, run_name="__main__")
    if callable(names.get("act")):
        # A file that ran itself has met the end of its input by now, and this returns at once.
        hosted.serve_pipe(names["act"], names.get("on_event"))
