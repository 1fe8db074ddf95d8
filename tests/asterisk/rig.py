"""Starts a private Asterisk for the tests: from the chroot that install.sh made, or from PATH.

Everything it writes is in one directory, everything it listens on is a free port of 127.0.0.1.
In the chroot it runs in mount and process namespaces of its own, so neither a mount nor a process
stays behind, not even after a kill -9 of the tests.
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.asterisk.ami import Ami
from tests.asterisk.config import Ports, write_config

_ROOT = Path(__file__).parents[2] / ".cache/asterisk/root"

_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 5.0
_RTP_PORTS = 400
"""Ports for RTP and RTCP; below 32768, where Linux takes other programs' ports from."""

# Seen from inside, the rig's directory is /mnt. $0 is the chroot, $1 the directory.
_ENTER_ROOT = """
mount --bind "$1" "$0/mnt"
mount -t proc proc "$0/proc" 2>/dev/null || mount --rbind /proc "$0/proc"
mount --rbind /dev "$0/dev"
root=$0
shift
exec chroot "$root" "$@"
"""


class MissingAsteriskError(Exception):
    """There is no Asterisk to test with; ``make deps-asterisk`` gets one."""


def _in_chroot() -> bool:
    """Tell which Asterisk to use; install.sh makes the chroot only if PATH has no suitable one."""
    return (_ROOT / "usr/sbin/asterisk").exists()


def _command(directory: Path, argv: Sequence[str]) -> list[str]:
    """Return the command that runs a program of Asterisk's machine, be that ours or the chroot."""
    # The kernel kills the program when this process dies, however it dies.
    with_us = ["setpriv", "--pdeathsig", "KILL"]
    if not _in_chroot():
        if not shutil.which(argv[0]):
            raise MissingAsteriskError(f"no {argv[0]}: run 'make deps-asterisk' first")
        return [*with_us, *argv]
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        apart.append("--map-root-user")  # a user namespace, in which everyone may mount and chroot
    return [*with_us, *apart, "sh", "-ec", _ENTER_ROOT, str(_ROOT), str(directory), *argv]


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Asterisk:
    """A running Asterisk; use it as ``async with Asterisk(tmp_path) as asterisk:``.

    Attributes:
        directory: Where its configuration, logs and recordings are.
        inside: The same directory as Asterisk sees it, for paths in the dialplan.
        sip: Host and port to send calls to; any number rings in the dialplan's context ``phones``.
        ami: The open manager connection.
    """

    ami: Ami

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.inside = "/mnt" if _in_chroot() else str(directory)
        rtp = random.randrange(10_000, 32_000 - _RTP_PORTS, _RTP_PORTS)
        tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
        self.ports = Ports(
            ami=_free_port(tcp),
            http=_free_port(tcp),
            sip=_free_port(udp),
            rtp_first=rtp,
            rtp_last=rtp + _RTP_PORTS - 1,
        )
        self.sip = ("127.0.0.1", self.ports.sip)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.ami.close()
        await self.stop()

    async def start(self) -> None:
        """Start Asterisk and return when it has finished starting.

        Raises:
            MissingAsteriskError: If there is none.
            RuntimeError: If it ends, or is not up in time; with the end of its log.
        """
        write_config(self.directory, self.inside, self.ports)
        argv = ["asterisk", "-f", "-C", f"{self.inside}/etc/asterisk.conf"]
        with (self.directory / "console").open("wb") as console:
            self._process = await asyncio.create_subprocess_exec(
                *_command(self.directory, argv),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,  # a process group of its own, which stop() signals
            )
        deadline = asyncio.get_running_loop().time() + _START_TIMEOUT_S
        while True:
            try:
                self.ami = await Ami.connect("127.0.0.1", self.ports.ami, "test", "test")
                return
            except (OSError, KeyError, TimeoutError):
                ended = self._process.returncode is not None
                if ended or asyncio.get_running_loop().time() > deadline:
                    raise RuntimeError(f"Asterisk does not start:\n{self.log()[-4000:]}") from None
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End Asterisk; whatever state it is in, nothing of it is left afterwards."""
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.returncode is None:
                os.killpg(self._process.pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await self._process.wait()
                    return

    def log(self) -> str:
        """Return what Asterisk has written to its console and its log."""
        files = [self.directory / "console", self.directory / "log/messages"]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    async def load_dialplan(self, text: str) -> None:
        """Replace the dialplan, and forget the events of what the old one did."""
        (self.directory / "etc/extensions.conf").write_text(text)
        await self.ami.command("dialplan reload")
        self.ami.events.clear()

    async def set_global(self, name: str, value: str) -> None:
        """Set a global variable of the dialplan; load_dialplan() keeps it."""
        await self.ami.action("Setvar", Variable=name, Value=value)

    async def channels(self) -> int:
        """Return how many channels there are now."""
        table = await self.ami.command("core show channels count")
        return int(table.split(maxsplit=1)[0])

    async def run(self, *argv: str, timeout_s: float) -> tuple[int, str]:
        """Run a program, such as sipp, on Asterisk's machine; return its status and output."""
        process = await asyncio.create_subprocess_exec(
            *_command(self.directory, argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(timeout_s):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode or 0, output.decode(errors="replace")
