"""Every key of the cache, and how long it is kept.

All have one form, ``{prefix}:{environment}:{type}:{id}:{component}``; the name of an endpoint, as
component, has a colon in it. A `Key` brings its time to live with it, and a cache takes nothing but
a `Key`: what has no end cannot be stored.
"""

import logging
from dataclasses import dataclass
from urllib.parse import quote

__all__ = ["ENVIRONMENTS", "MAX_TTL_S", "SPEECH", "Key", "Keys"]

logger = logging.getLogger(__name__)

ENVIRONMENTS = frozenset(("dev", "test", "staging", "prod"))

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400

MAX_TTL_S = 7 * _DAY_S
"""The longest that anything is kept, in seconds."""

SPEECH = "tts:audio"
"""The kind of the keys of speech."""


@dataclass(frozen=True, slots=True)
class Key:
    """Where a value is, and how long it stays there. Made by `Keys`."""

    text: str
    kind: str
    """Type and component, as "call:record"; a label for metrics."""
    ttl_s: int
    """Time to live, in seconds, from when the value is set."""

    def __post_init__(self) -> None:
        if not 0 < self.ttl_s <= MAX_TTL_S:
            raise ValueError(f"{self.kind}: a time to live of {self.ttl_s} s")


class Keys:
    """Makes the keys of one installation.

    Args:
        prefix: First part of every key.
        environment: Second part, one of `ENVIRONMENTS`; any other is taken for dev.
    """

    def __init__(self, prefix: str, environment: str) -> None:
        if environment not in ENVIRONMENTS:
            logger.warning("[cache] environment: %r is not known; dev is taken", environment)
            environment = "dev"
        self._start = f"{prefix}:{environment}"

    def call(self, call_id: str) -> Key:
        """A copy of a call's row."""
        return self._key("call", call_id, "record", _MINUTE_S)

    def call_session(self, call_id: str) -> Key:
        """The state of a live call; set again while it lives."""
        return self._key("call", call_id, "session", _HOUR_S)

    def call_summary(self, call_id: str) -> Key:
        """What remains of a call's session."""
        return self._key("call", call_id, "summary", 7 * _DAY_S)

    def conversation_context(self, call_id: str) -> Key:
        """What a live call's conversation is about."""
        return self._key("conversation", call_id, "context", 30 * _MINUTE_S)

    def conversation_history(self, call_id: str) -> Key:
        """What was said on a live call."""
        return self._key("conversation", call_id, "history", 2 * _HOUR_S)

    def agent(self, agent_id: str) -> Key:
        """A copy of an agent's row."""
        return self._key("agent", agent_id, "config", _HOUR_S)

    def number(self, number: str) -> Key:
        """A copy of a number's row, found by the number that was called."""
        return self._key("number", number, "config", _HOUR_S)

    def flow(self, flow_id: str) -> Key:
        """A copy of a flow's row."""
        return self._key("flow", flow_id, "definition", _HOUR_S)

    def speech(self, digest: str) -> Key:
        """A text as it is spoken, found by a hash of it and of how."""
        return self._key("tts", digest, "audio", _DAY_S)

    def rate_limit(self, accesskey_id: str, endpoint: str) -> Key:
        """How often an access key has asked an endpoint, as "calls:create", since it first did."""
        return self._key("ratelimit", accesskey_id, endpoint, 15 * _MINUTE_S)

    def _key(self, type_: str, identifier: str, component: str, ttl_s: int) -> Key:
        # An id may come from outside, as a called number does: a colon in it must not make another
        # key of it. Half a surrogate pair may be in it, too.
        shown = quote(identifier.encode(errors="surrogatepass"), safe="+@")
        return Key(f"{self._start}:{type_}:{shown}:{component}", f"{type_}:{component}", ttl_s)
