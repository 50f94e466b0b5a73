"""Generated requests, valid and not, of every kind of caller: no error of ours, no undescribed answer."""

from __future__ import annotations

from tests.api.attack import Attack
from tests.api.attack_world import attacked

EXAMPLES = 1
CHAINS = 3
SEED = 20261127


def test_generated_requests_find_no_error_of_ours_and_no_undescribed_answer(
    database_url: str,
) -> None:
    with attacked(database_url) as (server, world):
        attack = Attack(server, world)
        attack.singly(EXAMPLES, SEED)
        attack.in_chains(CHAINS, SEED)
        assert attack.findings == [], "\n\n".join(attack.findings)
        assert len(attack.calls) > 40, "routes"
        assert attack.chained > 0
        assert {200, 401, 403, 404, 422} <= set(attack.statuses), attack.statuses
