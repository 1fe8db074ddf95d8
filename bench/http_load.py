"""Readers of the API, in a process of their own: so many reads a second over keep-alive
connections, each with a key of its own. Prints what became of them as JSON.

``python -m bench.http_load HOST:PORT CORE RATE SECONDS``, and on standard input a `Plan` as JSON.
"""

import asyncio
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count, cycle
from typing import NamedTuple

import uvloop

__all__ = ["Plan"]

_LIMIT = 1 << 20  # of an answer's head
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)\r\n")


class Plan(NamedTuple):
    """What is read."""

    keys: Sequence[str]
    """One for each connection."""
    paths: Mapping[str, Sequence[str]]
    """By kind; kinds are read in turn, and the paths of each kind in turn."""


class _Books:
    """What became of the reads."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.broken = 0
        self.seconds: dict[str, list[float]] = {}


class _Reader:
    """One connection. Its reads are due on an absolute clock; one that is still waiting for an
    answer when the next is due sends that when it has it.
    """

    def __init__(self, address: tuple[str, int], key: str, books: _Books) -> None:
        self._address = address
        self._head = f"Host: {address[0]}\r\nAccessKey: {key}\r\n\r\n"
        self._books = books

    async def run(self, paths: list[tuple[str, str]], first: float, every_s: float) -> None:
        """Read these in turn, until cancelled."""
        streams = await asyncio.open_connection(*self._address, limit=_LIMIT)
        for number, (kind, path) in zip(count(), cycle(paths)):  # noqa: B905  # neither ends
            await asyncio.sleep(max(0.0, first + number * every_s - time.monotonic()))
            try:
                await self._read(*streams, kind, path)
            except (OSError, EOFError):
                self._books.broken += 1
                streams[1].close()
                streams = await asyncio.open_connection(*self._address, limit=_LIMIT)

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str, path: str
    ) -> None:
        began = time.monotonic()
        writer.write(f"GET {path} HTTP/1.1\r\n{self._head}".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if length := _LENGTH.search(head):
            await reader.readexactly(int(length[1]))
        self._books.seconds.setdefault(kind, []).append(time.monotonic() - began)
        self._books.statuses[int(head[9:12])] += 1


def _in_turn(paths: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    rounds = max(map(len, paths.values()))
    return [
        (kind, of_kind[number % len(of_kind)])
        for number in range(rounds)
        for kind, of_kind in paths.items()
    ]


async def _load(address: tuple[str, int], plan: Plan, rate: float, seconds: float) -> _Books:
    books = _Books()
    paths = _in_turn(plan.paths)
    every_s = len(plan.keys) / rate
    start = time.monotonic()
    tasks = []
    for number, key in enumerate(plan.keys):
        reader = _Reader(address, key, books)
        at = number % len(paths)  # each begins elsewhere
        work = reader.run(paths[at:] + paths[:at], start + number / rate, every_s)
        tasks.append(asyncio.create_task(work))
    done, waiting = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in waiting:
        task.cancel()
    for task in done:
        await task  # raises why it ended
    return books


def main() -> None:
    """Read, and print."""
    host, _, port = sys.argv[1].partition(":")
    os.sched_setaffinity(0, {int(sys.argv[2])})
    rate, seconds = float(sys.argv[3]), float(sys.argv[4])
    plan = Plan(**json.load(sys.stdin))
    books = uvloop.run(_load((host, int(port)), plan, rate, seconds))
    told = {"statuses": books.statuses, "broken": books.broken, "seconds": books.seconds}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
