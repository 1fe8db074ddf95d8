"""What goes wrong with the machine: its clock, its disk, its files."""

import asyncio
import resource
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

__all__ = ["WallClock", "clock_back", "clock_forward", "disk_full", "no_descriptors", "wall_clock"]

_SOURCE = Path(__file__).with_name("wall_clock.c")
_FAULT_S = 4.0
_HOUR_S = 3600


class WallClock:
    """The wall clock of programs that preload its library."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "step"
        self.step(0)
        self.library = str(directory / "wall_clock.so")
        """To be preloaded."""
        define = f'-DSTEP_FILE="{self._file}"'
        command = ("gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", define)
        subprocess.run((*command, "-o", self.library, str(_SOURCE)), check=True)

    def step(self, seconds: int) -> None:
        """Put it so many seconds before the real one."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:  # it is mapped
            file.write(struct.pack("q", seconds))


@contextmanager
def wall_clock() -> Iterator[WallClock]:
    """Have such a clock while the block lasts."""
    with tempfile.TemporaryDirectory(prefix="mediad-clock-") as directory:
        yield WallClock(Path(directory))


async def _clock(scene: Scene, step_s: int) -> None:
    with wall_clock() as clock:
        async with FakeAgent(scene.talk) as agent, scene.living(agent.url, preload=clock.library):
            clock.step(step_s)
            await asyncio.sleep(_FAULT_S)


async def clock_forward(scene: Scene, servers: Servers) -> None:
    """Put the wall clock forward."""
    await _clock(scene, _HOUR_S)


async def clock_back(scene: Scene, servers: Servers) -> None:
    """Put the wall clock back."""
    await _clock(scene, -_HOUR_S)


async def disk_full(scene: Scene, servers: Servers) -> None:
    """Let no file of mediad be written, the journal and the database among them."""
    async with FakeAgent(scene.talk) as agent, scene.living(agent.url, has_subject=False):
        pid = scene.mediad.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
        await asyncio.gather(asyncio.sleep(_FAULT_S), scene.newcomer())
        assert '"journal"' in await scene.mediad.get("/healthz")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


async def no_descriptors(scene: Scene, servers: Servers) -> None:
    """Let mediad open no files; calls that come meanwhile get 0x00."""
    async with FakeAgent(scene.talk) as agent, scene.living(agent.url, has_subject=False):
        with no_files(scene.mediad):
            await asyncio.sleep(_FAULT_S)
