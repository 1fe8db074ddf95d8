"""What goes wrong with the machine: its clock, its disk, its files."""

import asyncio
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.agent import FakeAgent
from tests.faults.scene import Scene
from tests.faults.servers import Servers
from tests.integration.test_limits import no_files

__all__ = ["Preloaded", "clock_back", "clock_forward", "disk_full", "no_descriptors", "preloaded"]

_FAULT_S = 4.0
_HOUR_S = 3600


class Preloaded:
    """A library to be loaded before all others, and the number that it reads all the while.

    Args:
        name: Of its source, which says what the number is.
        directory: Where the two are kept.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self._file = directory / "number"
        self.set(0)
        self.path = str(directory / f"{name}.so")
        """Of the library."""
        source = Path(__file__).with_name(f"{name}.c")
        command = ("gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC")
        define = f'-DNUMBER_FILE="{self._file}"'
        subprocess.run((*command, define, "-o", self.path, str(source)), check=True)

    def set(self, number: int) -> None:
        """Let it read this from now on."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:  # it is mapped
            file.write(struct.pack("q", number))


@contextmanager
def preloaded(name: str) -> Iterator[Preloaded]:
    """Have such a library while the block lasts."""
    with tempfile.TemporaryDirectory(prefix="mediad-preloaded-") as directory:
        yield Preloaded(name, Path(directory))


async def _clock(scene: Scene, step_s: int) -> None:
    with preloaded("wall_clock") as clock:
        async with FakeAgent(scene.talk) as agent, scene.living(agent.url, preload=clock.path):
            clock.set(step_s)
            await asyncio.sleep(_FAULT_S)


async def clock_forward(scene: Scene, servers: Servers) -> None:
    """Put the wall clock forward."""
    await _clock(scene, _HOUR_S)


async def clock_back(scene: Scene, servers: Servers) -> None:
    """Put the wall clock back."""
    await _clock(scene, -_HOUR_S)


async def disk_full(scene: Scene, servers: Servers) -> None:
    """Leave no room for mediad's files, the journal and the database among them."""
    with preloaded("full_disk") as disk:
        async with FakeAgent(scene.talk) as agent, scene.living(agent.url, preload=disk.path):
            disk.set(1)
            await asyncio.gather(asyncio.sleep(_FAULT_S), scene.newcomer())
            assert "the disk is full" in await scene.mediad.get("/healthz")
            disk.set(0)


async def no_descriptors(scene: Scene, servers: Servers) -> None:
    """Let mediad open no files; calls that come meanwhile get 0x00."""
    async with FakeAgent(scene.talk) as agent, scene.living(agent.url):
        with no_files(scene.mediad):
            await asyncio.sleep(_FAULT_S)
