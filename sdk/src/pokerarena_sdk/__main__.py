"""The author's command: `python -m pokerarena_sdk init|check|pack|push|run`.

Owns arguments and messages; exit codes are 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import sys


def main() -> int:
    # The sandbox starts every Python agent this way: no option parser, no needless import.
    if len(sys.argv) == 3 and sys.argv[1] == "run":
        from pokerarena_sdk.running import run_file

        run_file(sys.argv[2])
        return 0
    return _command(sys.argv[1:])


def _command(arguments: list[str]) -> int:
    import argparse
    import os
    from pathlib import Path

    from pokerarena_sdk import project

    parser = argparse.ArgumentParser(
        prog="pokerarena-agent", description="Write a pokerarena agent."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("init", "make a new agent folder"),
        ("check", "run the practice positions (with your rights: your own code only)"),
        ("pack", "write a tar.gz"),
        ("push", "upload it as a new version; the token is read from POKERARENA_TOKEN"),
        ("run", "run an agent's file on stdin and stdout"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("target")
        if name == "pack":
            command.add_argument("--out")
        if name == "push":
            command.add_argument("--server", required=True)
            command.add_argument("--agent", required=True)
    options = parser.parse_args(arguments)
    try:
        if options.command == "init":
            for written in project.init(options.target):
                print(f"wrote {options.target}/{written}")
        elif options.command == "check":
            return 1 if project.check(options.target) else 0
        elif options.command == "pack":
            out = options.out or f"{Path(options.target).resolve().stem}.tar.gz"
            packed = project.pack(options.target)
            Path(out).write_bytes(packed)
            print(f"wrote {out}, {len(packed)} bytes")
        elif options.command == "push":
            token = os.environ.get("POKERARENA_TOKEN")
            if not token:
                raise project.ProjectError(
                    "POKERARENA_TOKEN is not set; make a token and export it"
                )
            described = project.push(options.target, options.server, options.agent, token)
            print(f"version {described.get('id', '?')}")
    except (project.ProjectError, OSError) as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
