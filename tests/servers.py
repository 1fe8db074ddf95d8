"""Programs that tests need: from PATH, else from Debian's packages, unpacked below .cache.

Nothing is installed and nothing needs root. As a program, ``python tests/servers.py PACKAGE``
unpacks a package and prints where; it needs nothing but Python itself.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["MissingProgramError", "Program", "find_program", "unpack"]

_CACHE = Path(__file__).parents[1] / ".cache/debian"
_BIN_DIRECTORIES = ("usr/bin", "usr/sbin")

_APT = (
    "apt-get",
    "-qq",
    # Both are about running as root: apt's own user may not write here.
    *("-o", "APT::Sandbox::User=root"),
    # A mirror may be a snapshot; what it says is signed, however old.
    *("-o", "Acquire::Check-Valid-Until=false"),
)


class MissingProgramError(Exception):
    """A program is not on PATH and cannot be unpacked; says which packages have it."""


class Program(NamedTuple):
    """A program that can be run."""

    path: Path
    environment: dict[str, str]
    """All of our environment, with what the program needs to find its libraries."""


def find_program(name: str, package: str) -> Program:
    """Return a program from PATH, else from a Debian package.

    Raises:
        MissingProgramError: If there is neither.
    """
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    if found := shutil.which(name, path=path):
        return Program(Path(found), dict(os.environ))
    try:
        root = unpack(package)
    except MissingProgramError as exc:
        raise MissingProgramError(f"{name} is not on PATH, and {exc}") from exc
    for directory in _BIN_DIRECTORIES:
        if (root / directory / name).exists():
            return Program(root / directory / name, _environment(root))
    raise MissingProgramError(f"{name} is neither on PATH nor in Debian's package {package}")


def unpack(package: str) -> Path:
    """Unpack a Debian package, with the libraries it needs that are not installed; return where.

    Raises:
        MissingProgramError: If this is no Debian, or the package cannot be had.
    """
    root = _CACHE / package
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise MissingProgramError(f"without apt-get here: install what Debian calls {package}")
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the tests may want the same
        if not root.exists():
            try:
                _unpack(package, root)
            except subprocess.CalledProcessError as exc:
                raise MissingProgramError(
                    f"Debian's package {package} cannot be unpacked; "
                    f"install it ({exc.stderr.strip()})"
                ) from exc
    return root


def _unpack(package: str, root: Path) -> None:
    work = root.with_suffix(".tmp")
    shutil.rmtree(work, ignore_errors=True)
    try:
        debs = _download(package, _APT, work)
    except subprocess.CalledProcessError:
        # This machine's package lists are missing or too old. Only root may renew them; these are
        # our own.
        apt = (*_APT, "-o", f"Dir::State::Lists={_CACHE}/lists", "-o", f"Dir::Cache={_CACHE}/apt")
        (_CACHE / "apt/archives/partial").mkdir(parents=True, exist_ok=True)
        (_CACHE / "lists/partial").mkdir(parents=True, exist_ok=True)
        _run([*apt, "update"])
        debs = _download(package, apt, work)
    for deb in debs:
        _run(["dpkg", "-x", str(deb), str(work / "root")])
    (work / "root").rename(root)
    shutil.rmtree(work)


def _download(package: str, apt: Sequence[str], directory: Path) -> list[Path]:
    directory.mkdir(exist_ok=True)
    _run([*apt, "download", package, *_missing_libraries(package, apt)], cwd=directory)
    return sorted(directory.glob("*.deb"))


def _missing_libraries(package: str, apt: Sequence[str]) -> list[str]:
    """Return the packages of this machine's architecture that installing it would bring.

    The others (``all``) are documentation, fonts and scripts: nothing a program is linked with.
    """
    plan = _run([*apt, "-s", "install", "--no-install-recommends", package])
    lines = [line.split() for line in plan.splitlines() if line.startswith("Inst ")]
    return [line[1] for line in lines if line[1] != package and line[-1] != "[all])"]


def _environment(root: Path) -> dict[str, str]:
    machine = f"{platform.machine()}-linux-gnu"
    ours = [root / "usr/lib" / machine, root / "lib" / machine]
    theirs = os.environ.get("LD_LIBRARY_PATH")
    paths = [str(path) for path in ours if path.exists()] + ([theirs] if theirs else [])
    return {**os.environ, **({"LD_LIBRARY_PATH": os.pathsep.join(paths)} if paths else {})}


def _run(command: Sequence[str], cwd: Path | None = None) -> str:
    """Run a command in English and return what it prints."""
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


if __name__ == "__main__":
    try:
        print(unpack(sys.argv[1]))
    except MissingProgramError as error:
        sys.exit(f"servers: {error}")
