"""Compile the bench's C programs into .cache/bench, with mediad's filters and compiler flags."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.process import CACHE, ROOT, BenchError
from mediad.media import resample
from mediad.media.resample import filter_bank

__all__ = ["FLAGS", "Programs", "build", "build_window", "make_certificate"]

FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math")
"""As in mediad/line/_build.py: portable, no -march. The test compares them."""

_WARNINGS = ("-std=gnu11", "-Wall", "-Wextra", "-Wshadow")
_FIR = ROOT / "src/mediad/line"
_THREADS = ("-pthread",)
_TLS = ("-DBENCH_TLS", "-lssl", "-lcrypto")


class Programs(NamedTuple):
    """What was built."""

    load: Path
    floor: Path
    has_tls: bool
    """Whether the generator's agent can be behind TLS: OpenSSL's headers were there."""


def build() -> Programs:
    """Compile what is older than its sources.

    Raises:
        BenchError: If there is no C compiler, or it fails.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    _write_taps(CACHE / "fir_taps.h")
    floor, load, with_tls = CACHE / "floor", CACHE / "load", CACHE / "load-tls"
    _compile("floor.c", floor, (f"-I{CACHE}", f"-I{_FIR}"))
    try:
        _compile("load.c", with_tls, (*_THREADS, *_TLS))
    except BenchError:
        _compile("load.c", load, _THREADS)
        return Programs(load, floor, False)
    return Programs(with_tls, floor, True)


def build_window(include: Path) -> Path:
    """Return the library that lets callgrind count only in the generator's window.

    Args:
        include: Where valgrind's headers are.

    Raises:
        BenchError: If they are not there.
    """
    library = CACHE / "window.so"
    _compile("window.c", library, ("-shared", "-fPIC", *_THREADS, f"-I{include}"))
    return library


def make_certificate() -> tuple[Path, Path]:
    """Return a certificate for 127.0.0.1 and its key, both PEM.

    Raises:
        BenchError: If there is no openssl to make them with.
    """
    certificate, key = CACHE / "agent.pem", CACHE / "agent.key"
    command = (
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
    )
    try:
        subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise BenchError("wss:// needs a certificate, and openssl cannot make one") from exc
    return certificate, key


def _write_taps(path: Path) -> None:
    lines = [f"/* Written by bench/build.py from {Path(resample.__file__).name}. */"]
    for name, source_hz, target_hz in (("up", 8000, 16000), ("down", 16000, 8000)):
        up, down, taps = filter_bank(source_hz, target_hz)
        for word, value in (("UP", up), ("DOWN", down), ("ROW", taps.shape[1])):
            lines.append(f"#define {name.upper()}_{word} {value}")
        values = ", ".join(f"{float(tap).hex()}f" for tap in taps.ravel())
        lines.append(f"static const float {name}_taps[] = {{{values}}};")
    text = "\n".join(lines) + "\n"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _compile(source: str, program: Path, options: Sequence[str]) -> None:
    here = Path(__file__).parent
    read = [*here.glob("*.[ch]"), Path(__file__), _FIR / "_fir.h", CACHE / "fir_taps.h"]
    newest = max(path.stat().st_mtime for path in read)
    if program.exists() and program.stat().st_mtime > newest:
        return
    compiler = os.environ.get("CC", "gcc")
    if shutil.which(compiler) is None:
        raise BenchError(f"no C compiler {compiler!r} here; install gcc, or name another in CC")
    fresh = program.with_name(f"{program.name}.{os.getpid()}")  # two may build at a time
    command = [compiler, *_WARNINGS, *FLAGS, str(here / source), "-o", str(fresh), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{' '.join(command)}\n{done.stderr}")
    fresh.replace(program)
