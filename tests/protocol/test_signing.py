"""Signatures follow Standard Webhooks."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokerarena.protocol.signing import (
    InvalidSecret,
    InvalidSignature,
    Signer,
    new_secret,
    secret_key,
    sign,
    verify,
)

# The example of the Standard Webhooks specification, used by its reference libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # pragma: allowlist secret
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def check(
    secret=SECRET,
    message_id=MESSAGE_ID,
    timestamp=str(TIMESTAMP),
    signatures=SIGNATURE,
    body=BODY,
    now_s=TIMESTAMP + 1,
):
    verify(
        secret,
        message_id=message_id,
        timestamp=timestamp,
        signatures=signatures,
        body=body,
        now_s=now_s,
    )


def test_the_example_of_the_specification_is_reproduced():
    assert sign(SECRET, MESSAGE_ID, TIMESTAMP, BODY) == SIGNATURE
    check()


@given(st.binary(max_size=300), st.integers(1, 2**33))
def test_what_was_signed_verifies_and_a_changed_byte_does_not(body, timestamp):
    secret = new_secret()
    signature = Signer(secret).sign("msg_1", timestamp, body)
    parts = {
        "message_id": "msg_1",
        "timestamp": str(timestamp),
        "signatures": signature,
        "now_s": timestamp,
    }
    verify(secret, body=body, **parts)
    with pytest.raises(InvalidSignature):
        verify(secret, body=body + b"x", **parts)
    with pytest.raises(InvalidSignature):
        verify(new_secret(), body=body, **parts)


def test_any_one_of_several_signatures_and_of_several_secrets_is_enough():
    other = sign(new_secret(), MESSAGE_ID, TIMESTAMP, BODY)
    check(signatures=f"v1a,notours {other} {SIGNATURE}")
    check(secret=[new_secret(), SECRET])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"now_s": TIMESTAMP + 301}, "301 s old"),
        ({"now_s": TIMESTAMP - 301}, "in the future"),
        ({"timestamp": "soon"}, "not a number"),
        ({"timestamp": "1" * 40}, "not a number"),
        ({"timestamp": "١٦١٤٢٦٥٣٣٠"}, "not a number"),
        ({"message_id": ""}, "webhook-id"),
        ({"message_id": "a.b"}, "webhook-id"),
        ({"signatures": ""}, "no signature"),
        ({"signatures": SIGNATURE.replace("v1,", "v2,")}, "no signature"),
        ({"signatures": " ".join([SIGNATURE] * 17)}, "more than 16"),
        ({"signatures": "v1,\udcff"}, "no signature of the message"),
        ({"message_id": "msg_other"}, "no signature of the message"),
    ],
)
def test_a_message_that_cannot_be_trusted_is_refused_with_the_reason(changes, says):
    with pytest.raises(InvalidSignature, match=says):
        check(**changes)


@pytest.mark.parametrize(
    "secret",
    [
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",  # pragma: allowlist secret
        "whsec_not base64!",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
    ],
)
def test_a_secret_without_prefix_base64_or_enough_bytes_is_refused(secret):
    with pytest.raises(InvalidSecret):
        Signer(secret)


def test_new_secrets_differ_and_hold_32_bytes():
    assert len(secret_key(new_secret())) == 32
    assert new_secret() != new_secret()


def test_a_signer_does_not_show_its_key():
    assert "MfKQ" not in repr(Signer(SECRET))
