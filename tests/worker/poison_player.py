"""A player process that dies as soon as it plays a table named ``POISON_TABLE``."""

import os
import signal
import sys

from pokerarena.runs.claim import Claim
from pokerarena.worker import player
from pokerarena.worker.stage import End, Stage

POISON_TABLE = os.environ["POISON_TABLE"]
play = Stage.play


async def play_or_die(self: Stage, claim: Claim) -> End:
    if str(claim.run.table_id) == POISON_TABLE:
        os.kill(os.getpid(), signal.SIGKILL)
    return await play(self, claim)


Stage.play = play_or_die  # type: ignore[method-assign]

# Importing it slows the house down, so that a run outlives its neighbour's crashes.
import tests.worker.slow_player  # noqa: E402, F401

if __name__ == "__main__":
    sys.exit(player.main(sys.argv[1:]))
