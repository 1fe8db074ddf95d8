"""Signatures of webhooks: made here, and checked by whoever receives them. Pure.

Two schemes stand beside each other in every request:

- Standard Webhooks (standardwebhooks.com): ``webhook-id``, ``webhook-timestamp`` and
  ``webhook-signature: v1,<base64>``, HMAC-SHA256 over ``id.timestamp.body``. The key is what the
  secret has behind ``whsec_``, out of base64.
- ``X-VoIPBIN-Signature: sha256=<hex>``, ``-Timestamp`` and ``-Event``: HMAC-SHA256 over
  ``timestamp.body``. The key is the secret as it is written, ``whsec_`` and all.

While a secret is being changed there are two signatures, the newer first: with a space between them
in the first scheme, with a comma in the second.
"""

import base64
import binascii
import hmac
import json
import secrets as random_secrets
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["PREFIX", "TOLERANCE_S", "SignatureError", "new_secret", "sign", "verify"]

PREFIX = "X-VoIPBIN"
"""How the headers of the second scheme begin, unless ``webhooks.header_prefix`` says otherwise."""

TOLERANCE_S = 300
"""How old, or how far ahead, a timestamp may be, in seconds: what was recorded is of no use later.
"""

_SECRET = "whsec_"
_SECRET_BYTES = 32


class SignatureError(ValueError):
    """A request is not from who has the secret, or is too old. Answer it with 401."""


def new_secret() -> str:
    """Return a secret nobody knows."""
    return _SECRET + base64.b64encode(random_secrets.token_bytes(_SECRET_BYTES)).decode()


def sign(
    secrets: Sequence[str],
    event_id: str,
    event_type: str,
    body: bytes,
    timestamp: int,
    prefix: str = PREFIX,
) -> dict[str, str]:
    """Return the headers for a request.

    Args:
        secrets: The newest first.
        event_id: The same on every attempt.
        event_type: Such as call_hungup.
        body: What is sent, byte by byte.
        timestamp: Now, in whole seconds since 1970.
        prefix: How the headers of the second scheme begin.
    """
    ours = [_plain(secret, timestamp, body) for secret in secrets]
    standard = [_standard(secret, event_id, timestamp, body) for secret in secrets]
    return {
        f"{prefix}-Signature": ",".join(ours),
        f"{prefix}-Timestamp": str(timestamp),
        f"{prefix}-Event": event_type,
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(standard),
    }


def verify(
    secret: str, headers: Mapping[str, str], body: bytes, now: float, prefix: str = PREFIX
) -> Any:
    """Check a request that was received, and return its body out of JSON.

    The Standard Webhooks headers are checked if they are there, else the others.

    Args:
        secret: As it was shown when the webhook was made.
        headers: All of the request's; their names' case does not matter.
        body: As it was received: not parsed and written again.
        now: `time.time()`.
        prefix: How the headers of the second scheme begin.

    Raises:
        SignatureError: If the request must not be believed.
    """
    given = {name.lower(): value for name, value in headers.items()}
    prefix = prefix.lower()
    if "webhook-signature" in given:
        event_id, timestamp = given.get("webhook-id", ""), _timestamp(given, "webhook", now)
        expected = _standard(secret, event_id, timestamp, body)
        signatures = given["webhook-signature"].split(" ")
    else:
        timestamp = _timestamp(given, prefix, now)
        expected = _plain(secret, timestamp, body)
        signatures = given.get(f"{prefix}-signature", "").split(",")
    # Not ==: it ends at the first wrong character, and the time that takes tells where that is.
    wanted = expected.encode()
    if not any(hmac.compare_digest(wanted, text.strip().encode()) for text in signatures):
        raise SignatureError("the signature is not that of this body")
    return json.loads(body)


def _timestamp(headers: Mapping[str, str], prefix: str, now: float) -> int:
    text = headers.get(f"{prefix}-timestamp", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise SignatureError("there is no timestamp")
    if abs(now - int(text)) > TOLERANCE_S:
        raise SignatureError("the timestamp is too far from now")
    return int(text)


def _standard(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix(_SECRET), validate=True)
    except binascii.Error as exc:
        raise ValueError("the secret is not whsec_ and base64") from exc
    digest = hmac.digest(key, f"{event_id}.{timestamp}.".encode() + body, "sha256")
    return "v1," + base64.b64encode(digest).decode()


def _plain(secret: str, timestamp: int, body: bytes) -> str:
    return "sha256=" + hmac.digest(secret.encode(), f"{timestamp}.".encode() + body, "sha256").hex()
