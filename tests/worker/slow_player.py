"""A player process whose house agents take their time: ``HOUSE_DELAY_S`` seconds a decision."""

import asyncio
import json
import os
import sys

from pokerarena.agents.house import HousePlayer
from pokerarena.agents.player import Reply
from pokerarena.protocol.messages import Callback
from pokerarena.worker import player

DELAY_S = float(os.environ["HOUSE_DELAY_S"])
# From here on it is said, for tests that wait until somebody thinks.
LONG_S = 10.0
decide_at_once = HousePlayer.decide


async def decide(self: HousePlayer, callback: Callback, deadline_ms: int) -> Reply:
    if DELAY_S >= LONG_S:
        sys.stderr.write(json.dumps({"event": "thinking"}) + "\n")
    await asyncio.sleep(DELAY_S)
    return await decide_at_once(self, callback, deadline_ms)


HousePlayer.decide = decide  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(player.main(sys.argv[1:]))
