"""Generated requests, valid and not, of every kind of caller: no error of ours, no undescribed answer."""

from __future__ import annotations

from tests.api.attack import attacked

EXAMPLES = 2
SEED = 20261127


def test_generated_requests_find_no_error_of_ours_and_no_undescribed_answer(
    database_url: str,
) -> None:
    with attacked(database_url) as attack:
        attack.run(EXAMPLES, SEED)
        assert attack.findings == [], "\n\n".join(attack.findings)
        assert len(attack.calls) > 40, "routes"
        assert {200, 401, 404, 422} <= set(attack.statuses), attack.statuses
