"""What a provider says of itself: asked for within bounds, kept for a while, believed with care."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey

from pokerarena.auth.federation.kept import PAUSE_S, Kept
from pokerarena.auth.federation.keys import KEYS_MAX, KeySet, ProviderKeys
from pokerarena.auth.federation.outgoing import Outgoing, Unreachable
from pokerarena.auth.federation.provider import Provider
from pokerarena.errors import ConfigurationError
from pokerarena.federation_settings import IdTokenAlgorithm, parse_providers
from pokerarena.settings import Settings
from tests.agents.misbehaving import Misbehaving
from tests.api.arena import settings_for
from tests.auth.hostile_provider import HostileProvider, rsa_key

NOWHERE = "postgresql+psycopg://nobody@/nowhere"
ENTRY = {
    "id": "acme",
    "name": "Acme",
    "issuer": "https://id.acme.example",
    "client_id": "arena",
    "client_secret": "0123456789abcdef",
}


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Source:
    """A provider's keys, and how often they were read."""

    def __init__(self, *keys: Any) -> None:
        self.keys: list[Any] = list(keys)
        self.reads = 0

    async def __call__(self) -> KeySet:
        self.reads += 1
        shown = [one if isinstance(one, dict) else one.as_dict(private=False) for one in self.keys]
        return KeySet(shown)

    def kept(self, clock: Clock, algorithm: str = "RS256") -> ProviderKeys:
        return ProviderKeys(
            self, IdTokenAlgorithm(algorithm), ttl_s=3600, refetch_s=10, monotonic=clock
        )


async def test_keys_are_read_once_and_again_for_one_that_is_new_but_not_for_every_one() -> None:
    clock, source = Clock(), Source(rsa_key("first"))
    keys = source.kept(clock)
    for _ in range(3):
        assert await keys.find("first") is not None
    for _ in range(50):
        assert await keys.find("invented") is None
    assert source.reads == 1, "whoever invents keys makes us ask for them"
    source.keys.append(rsa_key("second"))
    clock.now_s += 10
    assert await keys.find("second") is not None
    assert source.reads == 2
    # One that was withdrawn is known until its time is over, and not longer.
    source.keys = [rsa_key("second")]
    assert await keys.find("first") is not None
    clock.now_s += 3600
    assert await keys.find("first") is None
    assert await keys.find("second") is not None
    assert source.reads == 3


async def test_only_keys_that_fit_the_one_algorithm_count() -> None:
    rsa, ec = rsa_key("first"), ECKey.generate_key("P-256", {"kid": "ec"})
    public = rsa.as_dict(private=False)
    source = Source(
        OctKey.generate_key(256, {"kid": "oct"}).as_dict(private=True),
        public | {"kid": "short", "n": public["n"][:171]},
        ECKey.generate_key("P-384", {"kid": "curve"}),
        public | {"kid": "encrypts", "use": "enc"},
        public | {"kid": "other", "alg": "RS512"},
        {"kid": "broken", "kty": "RSA", "n": "!", "e": 1},
        {"kid": "unknown kind", "kty": "AKP"},
        {},
        public | {"kid": 7},
        rsa,
        ec,
        public | {"kid": "twice"},
        rsa_key("second").as_dict(private=False) | {"kid": "twice"},
    )
    kids = ("oct", "short", "curve", "encrypts", "other", "broken", "unknown kind", "ec", "twice")
    by_rsa, by_ec = source.kept(Clock()), source.kept(Clock(), "ES256")
    for kid in kids:
        assert await by_rsa.find(kid) is None, kid
    assert await by_rsa.find("first") is not None
    assert await by_rsa.find(None) is None, "without an id there is nothing to choose by"
    assert await by_ec.find("ec") is not None
    assert await by_ec.find(None) is not None, "the only one"
    assert await by_ec.find("first") is None
    many = Source(*[{"kty": "RSA"}] * KEYS_MAX, rsa)
    assert await many.kept(Clock()).find("first") is None, "more keys than anybody needs"


async def test_many_at_once_read_once_and_wait_for_a_dead_provider_once() -> None:
    clock, reads = Clock(), 0

    async def fetch() -> str:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0)
        if fail:
            raise Unreachable("no answer in time")
        return "document"

    fail = False
    kept = Kept(fetch, clock)
    assert set(await asyncio.gather(*(kept.no_older_than(10) for _ in range(20)))) == {"document"}
    assert reads == 1
    fail = True
    clock.now_s += 10
    asked = (kept.no_older_than(10) for _ in range(20))
    for one in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(one, Unreachable)
    assert reads == 2
    fail = False
    clock.now_s += PAUSE_S
    assert await kept.no_older_than(10) == "document"


def settings(**changes: Any) -> Settings:
    return settings_for(NOWHERE, **{"oidc_allow_private": True} | changes)


HABITS = {
    "redirect": "HTTP 307",
    "server-error": "HTTP 500",
    "no-content": "HTTP 204",
    "big": "larger than",
    "big-unannounced": "larger than",
    "gzip-bomb": "compressed",
    "gzip-unannounced": "not the document",
    "malformed": "not the document",
    "empty": "not the document",
    "hang": None,
    "drip": None,
    "drip-headers": None,
    "once-per-connection": None,
}


async def test_requests_to_a_provider_are_bounded_in_time_and_size_and_follow_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with Misbehaving() as server:
        outgoing = Outgoing(settings(oidc_timeout_s=0.5), issuer=server.url(""))
        for habit, why in HABITS.items():
            with pytest.raises(Unreachable, match=why):
                await asyncio.wait_for(outgoing.read(server.url(habit), KeySet), 30)
        assert "/good" not in {one.path for one in server.received}, "a redirect was followed"
        await outgoing.close()


@pytest.mark.parametrize(
    ("url", "issuer", "allowed"),
    [
        ("http://127.0.0.1:1/jwks", "http://127.0.0.1:1", False),
        ("http://169.254.169.254/jwks", "http://127.0.0.1:1", True),
        ("http://id.example/jwks", "https://id.example", True),
        ("https://user@id.example/jwks", "https://id.example", True),
        ("https://10.0.0.1/jwks", "https://id.example", False),
        ("https://localhost/jwks", "https://id.example", False),
        ("file:///etc/passwd", "https://id.example", True),
    ],
)
async def test_an_endpoint_where_nothing_of_a_provider_can_be_is_never_asked(
    url: str, issuer: str, allowed: bool
) -> None:
    outgoing = Outgoing(settings(oidc_allow_private=allowed), issuer=issuer)
    with pytest.raises(Unreachable, match="refused"):
        await outgoing.read(url, KeySet)
    await outgoing.close()


async def test_a_description_counts_under_its_own_issuer_with_endpoints_that_may_be_asked(
    provider: HostileProvider,
) -> None:
    configured = settings(oidc_providers=provider.configured())
    for changes in (
        {"issuer": "https://elsewhere.example"},
        {"issuer": provider.issuer + "/"},
        {"jwks_uri": "http://169.254.169.254/latest"},
        {"token_endpoint": "ftp://127.0.0.1/token"},
        {"userinfo_endpoint": "http://169.254.169.254/latest"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": ...},
        {"token_endpoint": 7},
    ):
        provider.metadata = changes
        one = Provider(configured.identity_providers()[0], configured)
        with pytest.raises(Unreachable):
            await one.metadata()
        await one.close()


async def test_a_provider_that_takes_secrets_in_the_form_only_gets_it_there(
    provider: HostileProvider,
) -> None:
    from pokerarena.auth.federation.pending import secrets_of
    from pokerarena.auth.tokens import new_text

    provider.metadata = {
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "authorization_endpoint": f"{provider.issuer}/authorize?tenant=1",
    }
    configured = settings(oidc_providers=provider.configured(), public_url="https://arena.test")
    one = Provider(configured.identity_providers()[0], configured)
    secrets = secrets_of(new_text("pkf_", random=43))
    url = await one.authorization_url(secrets)
    assert url.startswith(f"{provider.issuer}/authorize?tenant=1&response_type=code&")
    path = provider.authorize(url)
    code = path.partition("code=")[2].partition("&")[0]
    proof = await one.redeem(code, secrets, begun_at_s=0)
    assert proof.claims.sub == "person-1"
    assert provider.forms[-1]["client_id"] == "arena"
    await one.close()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"oidc_providers": "no json at all"}, "not a JSON list"),
        ({"oidc_providers": "[" * 100_000}, "not a JSON list"),
        ({"oidc_providers": json.dumps(ENTRY)}, "tuple"),
        ({"oidc_providers": json.dumps([ENTRY, ENTRY])}, "same id"),
        ({"oidc_providers": json.dumps([ENTRY, ENTRY | {"id": "other"}])}, "same issuer"),
        ({"oidc_providers": json.dumps([ENTRY] * 21)}, "at most 20"),
        ({"oidc_providers": json.dumps([ENTRY | {"algorithm": "HS256"}])}, "0.algorithm"),
        ({"oidc_providers": json.dumps([ENTRY | {"algorithm": "none"}])}, "0.algorithm"),
        ({"oidc_providers": json.dumps([ENTRY | {"id": "../x"}])}, "0.id"),
        ({"oidc_providers": json.dumps([ENTRY | {"client_secret": "hunter2"}])}, "0.client_secret"),
        ({"oidc_providers": json.dumps([ENTRY | {"secret": "hunter2-hunter2"}])}, "0.secret"),
        ({"oidc_providers": json.dumps([ENTRY | {"issuer": "http://id.acme.example"}])}, "http"),
        ({"oidc_providers": json.dumps([ENTRY | {"issuer": "http://127.0.0.1:1"}])}, "http"),
        (
            {
                "oidc_providers": json.dumps([ENTRY | {"issuer": "http://127.0.0.1:1"}]),
                "oidc_allow_private": True,
                "environment": "production",
                "callback_schemes": ("https",),
                "public_url": "https://poker.example",
            },
            "https in production",
        ),
    ],
)
def test_providers_that_would_open_a_door_are_refused_and_not_repeated(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why) as told:
        settings_for(NOWHERE, **changes)
    for secret in ("hunter2", ENTRY["client_secret"], "acme.example"):
        assert secret not in told.value.message


def test_a_list_of_providers_shows_no_secret_of_it() -> None:
    shown = settings_for(NOWHERE, oidc_providers=json.dumps([ENTRY]))
    (one,) = shown.identity_providers()
    assert one.client_secret.get_secret_value() == ENTRY["client_secret"]
    for text in (repr(shown), repr(one), str(one), shown.model_dump_json()):
        assert ENTRY["client_secret"] not in text
    assert parse_providers("  \n") == ()
