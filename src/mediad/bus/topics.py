"""Topics of the events WebSocket. Pure.

    customer_id:<id>:call:<call id>     a call's durable events
    customer_id:<id>:call:*             those of all of the customer's calls
    customer_id:<id>:live:<call id>     what happens on a call, as it happens
    customer_id:<id>:live:*             on all of them

A ``*`` stands alone and last: no topic reaches over customers or kinds.
"""

import re
from typing import Literal, NamedTuple, cast

from mediad.bus.events import Event

__all__ = ["MAX_TOPIC", "Kind", "Topic", "parse_topic"]

MAX_TOPIC = 100
"""Longest topic, in characters."""

Kind = Literal["call", "live"]

_TOPIC = re.compile(r"customer_id:([\w-]{1,36}):(call|live):(\*|[\w-]{1,36})", re.ASCII)


class Topic(NamedTuple):
    """Which events somebody wants."""

    customer_id: str
    kind: Kind
    call_id: str | None
    """None for all calls."""

    def __str__(self) -> str:
        return f"customer_id:{self.customer_id}:{self.kind}:{self.call_id or '*'}"

    def matches(self, event: Event) -> bool:
        """Whether the event is one of these."""
        return (
            event.customer_id == self.customer_id
            and event.is_durable == (self.kind == "call")
            and self.call_id in (None, event.call_id)
        )


def parse_topic(text: str) -> Topic:
    """Return what a topic says.

    Raises:
        ValueError: If it is none.
    """
    found = _TOPIC.fullmatch(text) if len(text) <= MAX_TOPIC else None
    if found is None:
        raise ValueError("a topic is customer_id:<id>:call:<call id, or *>, or …:live:…")
    customer_id, kind, call_id = found.groups()
    return Topic(customer_id, cast(Kind, kind), None if call_id == "*" else call_id)
