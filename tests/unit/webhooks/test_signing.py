"""Signatures: what they are, and what they do not let through."""

import json
from datetime import UTC, datetime
from unittest.mock import patch

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from mediad.webhooks.signing import SignatureError, new_secret, sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
NOW = 1_614_265_330
BODY = b'{"test": 2432232314}'


def headers(*secrets: str, body: bytes = BODY, prefix: str = "X-VoIPBIN") -> dict[str, str]:
    return sign(secrets or (SECRET,), ID, "call_hungup", body, NOW, prefix)


def test_vectors() -> None:
    assert headers() == {
        "X-VoIPBIN-Signature": (
            "sha256=2e37df5d4a028c51a7f3133d64ae1e300d2c2c900f1b1d49d4369ad2530f8964"
        ),
        "X-VoIPBIN-Timestamp": "1614265330",
        "X-VoIPBIN-Event": "call_hungup",
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def independent(secret: str, given: dict[str, str], body: bytes) -> object:
    """Let the standardwebhooks package judge, at NOW."""
    now = datetime.fromtimestamp(NOW, UTC)
    with patch("standardwebhooks.webhooks.datetime", wraps=datetime) as clock:
        clock.now.return_value = now
        return Webhook(secret).verify(body, given)


def test_an_independent_reader_agrees() -> None:
    secret = new_secret()
    body = json.dumps({"text": "Grüße 🙂"}).encode()
    assert independent(secret, headers(secret, body=body), body) == {"text": "Grüße 🙂"}
    with pytest.raises(WebhookVerificationError):
        independent(new_secret(), headers(secret, body=body), body)


@pytest.mark.parametrize("without", ["X-VoIPBIN", "webhook"])
def test_either_scheme_is_enough(without: str) -> None:
    given = {name: value for name, value in headers().items() if not name.startswith(without)}
    assert verify(SECRET, given, BODY, NOW) == {"test": 2432232314}


def test_header_names_come_in_any_case_and_with_another_prefix() -> None:
    given = {name.upper(): value for name, value in headers(prefix="X-Acme").items()}
    assert verify(SECRET, given, BODY, NOW, "x-acme") == {"test": 2432232314}
    del given["WEBHOOK-SIGNATURE"]
    assert verify(SECRET, given, BODY, NOW, "x-acme") == {"test": 2432232314}


@pytest.mark.parametrize("scheme", ["webhook", "X-VoIPBIN"])
def test_both_secrets_are_good_while_one_is_changed(scheme: str) -> None:
    new, old = new_secret(), new_secret()
    given = {name: text for name, text in headers(new, old).items() if name.startswith(scheme)}
    for secret in (new, old):
        assert verify(secret, given, BODY, NOW) == {"test": 2432232314}
    with pytest.raises(SignatureError):
        verify(new_secret(), given, BODY, NOW)


@pytest.mark.parametrize("scheme", ["webhook", "X-VoIPBIN"])
@pytest.mark.parametrize(
    ("change", "now"),
    [
        ({}, NOW + 301),
        ({}, NOW - 301),
        ({"timestamp": str(NOW + 1)}, NOW),
        ({"timestamp": "soon"}, NOW),
        ({"timestamp": "²"}, NOW),
        ({"signature": "v1,"}, NOW),
        ({"signature": "é"}, NOW),
        ({"signature": ""}, NOW),
    ],
)
def test_what_is_changed_or_old_is_refused(scheme: str, change: dict[str, str], now: float) -> None:
    given = {name: text for name, text in headers().items() if name.startswith(scheme)}
    given |= {
        f"{scheme}-{name.capitalize() if scheme != 'webhook' else name}": value
        for name, value in change.items()
    }
    with pytest.raises(SignatureError):
        verify(SECRET, given, BODY, now)


def test_another_body_or_id_is_refused() -> None:
    with pytest.raises(SignatureError):
        verify(SECRET, headers(), BODY + b" ", NOW)
    with pytest.raises(SignatureError):
        verify(SECRET, headers() | {"webhook-id": "other"}, BODY, NOW)
    with pytest.raises(SignatureError):
        verify(SECRET, {}, BODY, NOW)


def test_secrets_are_new_each_time() -> None:
    assert new_secret() != new_secret()
    assert new_secret().startswith("whsec_")
