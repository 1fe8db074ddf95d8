"""A process to be killed: it keeps the facts of made-up calls in a journal and writes them to a
database, and says what it does.

It forks for every line it reads, so that a round need not wait for imports; the child's number is
the answer. Each child says on standard output what it offered and what it was told, with the time.
"""

import asyncio
import os
import random
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from mediad import config
from mediad.bus.events import Event
from mediad.metrics import Metrics
from mediad.store.database import Database
from mediad.store.journal import Journal
from mediad.store.writer import Writer
from tests.facts import CallFacts

_CALLS = 20


def main() -> None:
    """Fork for each line."""
    path, settings = Path(sys.argv[1]), config.Database.model_validate_json(sys.argv[2])
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _be_killed(path, settings, random.Random(line))
        _say("child", str(child))
        os.waitpid(child, 0)
        _say("dead", str(child))


def _be_killed(path: Path, settings: config.Database, rng: random.Random) -> None:
    metrics = Metrics()
    journal = Journal(path, 1 << 30, False, metrics)
    journal.open()
    writing = threading.Thread(
        target=asyncio.run, args=(_write(journal, settings, metrics),), daemon=True
    )
    writing.start()
    calls: list[tuple[CallFacts, list[Event]]] = []
    while True:
        if len(calls) < _CALLS:
            call = CallFacts()
            calls.append((call, call.whole(rng.randint(0, 20))))
        call, facts = rng.choice(calls)
        fact = facts.pop(0)
        if journal.offer(fact):
            _say("offered", fact.event_id, fact.type, fact.call_id)
        if not facts:
            calls.remove((call, facts))
        time.sleep(rng.choice((0, 0, 0.0005, 0.005)))


async def _write(journal: Journal, settings: config.Database, metrics: Metrics) -> None:
    async def invalidate(_: Iterable[str]) -> None:
        pass

    def announce(event: Event) -> None:
        _say("announced", event.event_id, event.type, event.call_id)

    database = Database(settings, metrics)
    await Writer(journal, database, invalidate, announce, metrics).run()


def _say(*words: str) -> None:
    # One write, so that lines of two threads do not mix, and none is cut by the kill.
    os.write(1, " ".join((*words, f"{time.monotonic():.6f}")).encode() + b"\n")


if __name__ == "__main__":
    main()
