"""The second factor: codes that count once, and what an operator is without one."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import func, select, text, update

from pokerarena.auth.models import RecoveryCode, Role, SecondFactor
from pokerarena.auth.second_factor import STEP_S, code_at, matching_step
from pokerarena.settings import load_settings
from tests.api.arena import PASSWORD, Arena, ok
from tests.api.asgi import Client, Reply
from tests.api.conftest import NewArena

LOGIN = {"username": "alice", "password": PASSWORD}


class Authenticator:
    """Somebody's telephone, whose clock we can set."""

    def __init__(self, secret: str) -> None:
        self.seed = base64.b32decode(secret)

    def code(self, moment: float | None = None) -> str:
        moment = time.time() if moment is None else moment
        return code_at(self.seed, int(moment // STEP_S)).decode()

    def wrong_code(self) -> str:
        """A code of none of the steps around now."""
        near = {self.code(time.time() + STEP_S * step) for step in range(-3, 4)}
        return next(code for code in map("{:06d}".format, range(10)) if code not in near)


async def enrol(client: Client) -> tuple[Authenticator, list[str]]:
    made = ok(await client.post("/v1/me/second-factor", {"current_password": PASSWORD}), 201)
    phone = Authenticator(made["secret"])
    done = ok(await client.post("/v1/me/second-factor/confirm", {"code": phone.code()}))
    return phone, done["recovery_codes"]


async def let_time_pass(arena: Arena) -> None:
    """As if the accepted codes were those of long ago, so that the present one counts."""
    async with arena.database.unit_of_work() as session:
        await session.execute(update(SecondFactor).values(last_step=0))


async def log_in(arena: Arena, code: str | None, name: str = "alice") -> Reply:
    body = LOGIN | {"username": name} | ({} if code is None else {"code": code})
    return await arena.anonymous.post("/v1/auth/login", body)


@pytest.mark.parametrize(
    ("moment", "code"),
    # RFC 6238, appendix B, of which an authenticator shows the last six digits.
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_codes_are_those_of_rfc_6238(moment: int, code: str) -> None:
    seed = b"12345678901234567890"
    assert code_at(seed, moment // STEP_S).decode() == code
    assert matching_step(seed, code, moment) == moment // STEP_S
    assert matching_step(seed, f"{code[:3]} {code[3:]}", moment + STEP_S) == moment // STEP_S
    assert matching_step(seed, code, moment + 2 * STEP_S) is None
    assert matching_step(seed, code, moment - 2 * STEP_S) is None


@pytest.mark.parametrize("code", ["", "28708", "2870820", "abcdef", "２８７０８２", "\x00" * 6])
def test_what_is_no_code_matches_no_step(code: str) -> None:
    assert matching_step(b"12345678901234567890", code, 59) is None


async def test_a_login_needs_the_code_once_the_second_factor_is_confirmed(arena: Arena) -> None:
    alice = await arena.user("alice")
    made = ok(await alice.post("/v1/me/second-factor", {"current_password": PASSWORD}), 201)
    phone = Authenticator(made["secret"])
    uri = urlsplit(made["otpauth_uri"])
    assert (uri.scheme, uri.netloc, uri.path) == ("otpauth", "totp", "/pokerarena%3Aalice")
    assert parse_qs(uri.query)["secret"] == [made["secret"]]
    ok(await log_in(arena, None))  # not confirmed: it does not count yet
    reply = await alice.post("/v1/me/second-factor/confirm", {"code": phone.wrong_code()})
    assert (reply.status, reply.code) == (403, "second_factor_wrong")
    codes = ok(await alice.post("/v1/me/second-factor/confirm", {"code": phone.code()}))
    assert len(set(codes["recovery_codes"])) == 10
    has = ok(await alice.get("/v1/me/second-factor"))
    assert has == {"enabled": True, "recovery_codes_left": 10}

    await let_time_pass(arena)
    reply = await log_in(arena, None)
    assert (reply.status, reply.code) == (401, "second_factor_required")
    reply = await log_in(arena, phone.wrong_code())
    assert (reply.status, reply.code) == (401, "second_factor_wrong")
    granted = ok(await log_in(arena, phone.code()))
    client = arena.anonymous.with_token(granted["access_token"])
    shown = {one["id"]: one for one in ok(await client.get("/v1/sessions"))["items"]}
    assert shown[granted["session_id"]]["second_factor"]


async def test_without_the_password_nobody_learns_of_a_second_factor(arena: Arena) -> None:
    phone, _ = await enrol(await arena.user("alice"))
    for code in (None, phone.code(), phone.wrong_code()):
        body = {"username": "alice", "password": "not the password at all"}
        reply = await arena.anonymous.post(
            "/v1/auth/login", body | ({"code": code} if code else {})
        )
        assert (reply.status, reply.code) == (401, "login_failed")


async def test_no_code_counts_twice_nor_an_older_one_after_it(arena: Arena) -> None:
    phone, _ = await enrol(await arena.user("alice"))
    # The code that confirmed is used.
    async with arena.database.unit_of_work() as session:
        step = await session.scalar(select(SecondFactor.last_step))
    assert step is not None
    used = code_at(phone.seed, step).decode()
    assert (await log_in(arena, used)).code == "second_factor_wrong"
    await let_time_pass(arena)
    now = time.time()
    replies = await asyncio.gather(*(log_in(arena, phone.code(now)) for _ in range(4)))
    assert sorted(reply.status for reply in replies) == [200, 401, 401, 401]
    assert (await log_in(arena, phone.code(now - STEP_S))).code == "second_factor_wrong"


async def test_a_recovery_code_works_once_however_it_is_written(arena: Arena) -> None:
    alice, bob = await arena.user("alice"), await arena.user("bob")
    _, codes = await enrol(alice)
    await enrol(bob)
    assert (await log_in(arena, codes[0], "bob")).code == "second_factor_wrong"
    replies = await asyncio.gather(*(log_in(arena, codes[0]) for _ in range(3)))
    assert sorted(reply.status for reply in replies) == [200, 401, 401]
    ok(await log_in(arena, codes[1].upper().replace("-", " ")))
    assert ok(await alice.get("/v1/me/second-factor"))["recovery_codes_left"] == 8

    renewed = await alice.post("/v1/me/second-factor/recovery-codes", {"code": codes[2]})
    fresh = ok(renewed)["recovery_codes"]
    assert not set(fresh) & set(codes)
    assert (await log_in(arena, codes[3])).code == "second_factor_wrong"
    ok(await log_in(arena, fresh[0]))


async def test_setting_up_and_removing_need_the_password(arena: Arena) -> None:
    alice = await arena.user("alice")
    path = "/v1/me/second-factor"
    assert (await alice.post(path, {"current_password": "wrong"})).code == "password_wrong"
    reply = await alice.post(f"{path}/confirm", {"code": "000000"})
    assert (reply.status, reply.code) == (409, "second_factor_missing")
    first = ok(await alice.post(path, {"current_password": PASSWORD}), 201)
    second = ok(await alice.post(path, {"current_password": PASSWORD}), 201)
    assert first["secret"] != second["secret"], "one that was not confirmed is replaced"
    phone = Authenticator(second["secret"])
    ok(await alice.post(f"{path}/confirm", {"code": phone.code()}))
    for reply in (
        await alice.post(path, {"current_password": PASSWORD}),
        await alice.post(f"{path}/confirm", {"code": phone.code()}),
    ):
        assert (reply.status, reply.code) == (409, "second_factor_present")

    await let_time_pass(arena)
    for password, code, refusal in (
        ("wrong", phone.code(), "password_wrong"),
        (PASSWORD, phone.wrong_code(), "second_factor_wrong"),
    ):
        body = {"current_password": password, "code": code}
        assert (await alice.post(f"{path}/remove", body)).code == refusal
    body = {"current_password": PASSWORD, "code": phone.code()}
    ok(await alice.post(f"{path}/remove", body), 204)
    ok(await log_in(arena, None))
    async with arena.database.unit_of_work() as session:
        assert await session.scalar(select(func.count()).select_from(RecoveryCode)) == 0


async def test_neither_seed_nor_recovery_code_is_stored_in_the_clear(arena: Arena) -> None:
    phone, codes = await enrol(await arena.user("alice"))
    async with arena.database.unit_of_work() as session:
        stored = "\n".join(
            [
                *await session.scalars(text("SELECT second_factors::text FROM second_factors")),
                *await session.scalars(text("SELECT recovery_codes::text FROM recovery_codes")),
            ]
        )
    assert stored.count("\n") == 10
    assert phone.seed.hex() not in stored
    assert base64.b32encode(phone.seed).decode() not in stored
    for code in codes:
        assert code not in stored
        assert code.replace("-", "") not in stored
        assert code.replace("-", "").encode().hex() not in stored


async def test_an_operator_without_a_second_factor_is_a_member_where_one_is_required(
    new_arena: NewArena,
) -> None:
    arena = await new_arena(second_factor_for_operators="always")
    operator = await arena.user("operator", Role.OPERATOR)
    alice = await arena.user("alice")
    private = ok(await alice.post("/v1/tables", {"name": "Private"}), 201)["id"]
    reply = await operator.get("/v1/users")
    assert (reply.status, reply.code) == (403, "second_factor_required")
    # Also where being an operator only widens what one sees.
    assert (await operator.get(f"/v1/tables/{private}")).status == 404
    assert "operator" not in ok(await operator.get("/v1/me"))["scopes"]
    wish = {"name": "t", "scopes": ["operator"], "expires_in_s": 60}
    assert (await operator.post("/v1/tokens", wish)).code == "scope_excess"

    phone, _ = await enrol(operator)
    ok(await operator.get("/v1/users"))
    ok(await operator.get(f"/v1/tables/{private}"))
    token = ok(await operator.post("/v1/tokens", wish), 201)["token"]
    program = arena.anonymous.with_token(token)
    ok(await program.get("/v1/users"))

    # Without the second factor, what was made with it is a member's again.
    await let_time_pass(arena)
    body = {"current_password": PASSWORD, "code": phone.code()}
    ok(await operator.post("/v1/me/second-factor/remove", body), 204)
    assert (await program.get("/v1/users")).code == "second_factor_required"
    fresh = await arena.login("operator")
    assert (await fresh.get("/v1/users")).code == "second_factor_required"


@pytest.mark.parametrize(
    ("environment", "rule", "needed"),
    [
        ("production", "auto", True),
        ("development", "auto", False),
        ("development", "always", True),
        ("production", "never", False),
    ],
)
def test_production_requires_it_unless_told_otherwise(
    environment: str, rule: str, needed: bool
) -> None:
    given: dict[str, Any] = {
        "database_url": "postgresql+psycopg://u@/d",
        "environment": environment,
        "second_factor_for_operators": rule,
        "callback_schemes": ("https",),
    }
    assert load_settings(**given).operators_need_second_factor() is needed
