"""`pokerarena admin service-key`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from pokerarena.errors import ConfigurationError
from pokerarena.ops import examination
from pokerarena.ops.cli import app
from pokerarena.service_identity import rotation
from pokerarena.service_identity.keys import PrivateKey, ServiceName, new_private_key
from pokerarena.service_identity.rotation import read_key_set, read_private_key
from pokerarena.settings import load_settings
from tests.arena import open_arena


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["admin", "service-key", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


async def test_keys_are_made_shown_rotated_and_retired_and_it_is_audited(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    monkeypatch.setenv("POKERARENA_DATABASE_URL", database_url)
    monkeypatch.setattr(rotation, "NOTICED_AFTER_S", 0.0)
    monkeypatch.setattr(rotation, "LAPSES_AFTER_S", 0.0)
    key, keys = tmp_path / "worker.pem", tmp_path / "service-keys.json"
    files = ("--key", key, "--public-keys", keys)
    said = await asyncio.to_thread(run, "new", "worker", *files)
    first = read_private_key(key)
    assert first.kid in said
    assert first.pem().decode().splitlines()[1] not in said
    await asyncio.to_thread(
        run, "new", "agent-host", "--key", tmp_path / "h", "--public-keys", keys
    )
    assert f"{first.kid}  worker" in run("list", "--public-keys", keys)
    said = await asyncio.to_thread(run, "rotate", "worker", *files)
    second = read_private_key(key)
    assert second.kid != first.kid
    assert f"retired {first.kid}" in said
    assert first.kid not in read_key_set(keys)
    host = read_private_key(tmp_path / "h")
    await asyncio.to_thread(run, "retire", host.kid, "--public-keys", keys)
    assert [*read_key_set(keys)] == [second.kid]
    with pytest.raises(ConfigurationError, match="no key is overwritten"):
        await asyncio.to_thread(run, "new", "worker", *files)
    async with open_arena(database_url) as arena:
        rows = await arena.rows(
            "SELECT details FROM audit_records WHERE event = 'service_key.changed' ORDER BY seq"
        )
    details = [json.loads(row[0]) for row in rows]
    assert [(one["step"], one["service"], one["kid"]) for one in details] == [
        ("published", "worker", first.kid),
        ("published", "agent-host", host.kid),
        ("rotated", "worker", second.kid),
        ("retired", "agent-host", host.kid),
    ]


def test_without_a_database_a_key_is_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = make_url("postgresql+psycopg://x@/x").set(query={"host": str(tmp_path)})
    for url in (None, nowhere.render_as_string(False)):
        if url is None:
            monkeypatch.delenv("POKERARENA_DATABASE_URL", raising=False)
        else:
            monkeypatch.setenv("POKERARENA_DATABASE_URL", url)
        name = tmp_path / f"{url is None}.pem"
        run("new", "api", "--key", name, "--public-keys", tmp_path / "keys.json")
        assert read_private_key(name).kid in read_key_set(tmp_path / "keys.json")


def test_the_doctor_says_what_is_wrong_with_a_key(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    worker = rotation.publish(ServiceName.WORKER, tmp_path / "worker.pem", keys)

    def finding(key: PrivateKey | None) -> examination.Finding:
        return examination._service_key(
            load_settings(
                database_url="postgresql+psycopg://x@/x",
                agent_hosts=("one=/run/one.sock",),
                service_key=key.pem().decode() if key else "",
                service_public_keys=keys.read_text(),
            )
        )

    assert "no public key of an agent-host" in finding(worker).text
    host = rotation.publish(ServiceName.AGENT_HOST, tmp_path / "host.pem", keys)
    assert finding(worker) == ("service key", True, f"{worker.kid} is published")
    for wrong in (None, host, new_private_key()):
        assert not finding(wrong).well
