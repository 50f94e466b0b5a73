"""What the API counts of its own requests."""

from __future__ import annotations

from pokerarena import metrics
from tests.api.arena import Arena, new_table, ok


async def test_a_request_is_counted_by_its_template_and_never_by_its_id(arena: Arena) -> None:
    user = await arena.user("counted")
    table_id = await new_table(user)
    key = ("GET", "/v1/tables/{table_id}", "200")
    before = metrics.API_RESPONSES.number(*key).value
    in_progress = metrics.API_IN_PROGRESS.number().value
    for _ in range(3):
        ok(await user.get(f"/v1/tables/{table_id}"))
    assert metrics.API_RESPONSES.number(*key).value == before + 3
    assert sum(metrics.API_SECONDS.distribution(*key[:2]).counts) >= 3
    assert metrics.API_IN_PROGRESS.number().value == in_progress
    assert not [labels for labels in metrics.API_RESPONSES.numbers if table_id in str(labels)]


async def test_requests_that_nobody_has_made_up_make_no_labels(arena: Arena) -> None:
    await arena.anonymous.request("BREW", "/v1/tables")
    for number in range(20):
        await arena.anonymous.get(f"/nothing/{number}")
        await arena.anonymous.put(f"/v1/tables/tbl_x/seats/{number:05}", {})
    labels = {label for cell in metrics.API_RESPONSES.numbers for label in cell}
    assert "BREW" not in labels
    assert not [label for label in labels if "nothing" in label or "0001" in label]


async def test_the_pool_is_counted(arena: Arena) -> None:
    samples = {
        (name, *labels): value
        for name, labels, value, *_ in metrics.snapshot()
        if name == metrics.POOL_CONNECTIONS.name
    }
    assert samples[metrics.POOL_CONNECTIONS.name, "allowed"] >= arena.settings.database_pool_size
