"""The manifest: what is valid, and a sentence for everything else."""

import json

import pytest

from pokerarena_sdk.manifest import BadManifest, Manifest, parse, read

GOOD = {"runtime": "python3", "entry_point": "bot.py"}


def test_the_smallest_manifest_has_safe_defaults():
    assert parse(GOOD) == Manifest("python3", "bot.py", 1, (), False, "")


def test_json_and_toml_say_the_same():
    fields = GOOD | {"max_in_flight": 4, "egress": ["api.example.org:443"], "events": True}
    toml = (
        'runtime = "python3"\nentry_point = "bot.py"\nmax_in_flight = 4\n'
        'egress = ["api.example.org:443"]\nevents = true\n'
    )
    assert read("agent.json", json.dumps(fields).encode()) == read("agent.toml", toml.encode())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_inflight": 3}, "unknown key 'max_inflight'"),
        ({"memory": 10**9}, "unknown key 'memory'"),
        ({"runtime": "node"}, "must be one of python3, binary"),
        ({"runtime": None}, "runtime is missing"),
        ({"entry_point": "../bot.py"}, "relative path"),
        ({"entry_point": "/bin/sh"}, "relative path"),
        ({"entry_point": ""}, "relative path"),
        ({"max_in_flight": 0}, "1 to 256"),
        ({"max_in_flight": 257}, "1 to 256"),
        ({"max_in_flight": True}, "whole number"),
        ({"max_in_flight": "4"}, "whole number"),
        ({"events": 1}, "true or false"),
        ({"name": "x" * 65}, "64 characters"),
        ({"name": "a\nb"}, "printable"),
        ({"egress": "api.example.org:443"}, "list"),
        ({"egress": ["api.example.org"]}, "host:port"),
        ({"egress": ["https://api.example.org:443"]}, "host:port"),
        ({"egress": ["127.0.0.1:80"]}, "host:port"),
        ({"egress": ["[::1]:80"]}, "host:port"),
        ({"egress": ["localhost:80"]}, "host:port"),
        ({"egress": ["user@api.example.org:80"]}, "host:port"),
        ({"egress": ["api.example.org:0"]}, "valid port"),
        ({"egress": ["api.example.org:99999"]}, "valid port"),
        ({"egress": ["API.example.org:443"]}, "lower-case"),
        ({"egress": [f"h{n}.example.org:443" for n in range(17)]}, "at most 16"),
    ],
)
def test_every_mistake_is_named(change, words):
    fields = {key: value for key, value in (GOOD | change).items() if value is not None}
    with pytest.raises(BadManifest, match=words.replace("[", r"\[")):
        parse(fields)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"\xff", b"[" * 9_000, b'{"runtime": 1, "runtime": 2}', b" " * 20_000],
)
def test_an_unreadable_manifest_is_refused(data):
    with pytest.raises(BadManifest):
        read("agent.json", data)
