"""The filters without wide instructions, `_fir.h`'s fallbacks; and that nothing else needs any."""

import ctypes
import os
import platform
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from mediad import line
from mediad.line import _build
from mediad.media.resample import filter_bank
from tests.missing import skip_or_fail
from tests.unit.line.lines import Samples, compiled_line, hear, noise, say

Filter = Callable[[Samples, int, int, list[int]], Samples]

SOURCE = b"""
#include "_fir.h"

void run(const float *taps, int up, int down, int row, const int16_t *samples, int n, int next,
         int count, int16_t *out)
{
    const fir_bank bank = {taps, up, down, row};
    fir_plain(&bank, samples, n, next, count, (fir_sample *)out);
}
"""
HEADERS = Path(line.__file__).parent
CHUNK = 80  # samples; _fir.h has room for what comes of them at any rate


def tool(name: str) -> str:
    """Return a program's path; without it skip, and fail in CI."""
    return shutil.which(name) or skip_or_fail(f"{name} is missing")


@pytest.fixture(scope="module", params=["vectors", "plain C"])
def fallback(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Filter:
    """The filters without wide instructions: by GCC's vectors, and as any compiler takes them."""
    library = tmp_path_factory.mktemp("fir") / "fir.so"
    as_any = ["-U__GNUC__"] if request.param == "plain C" else []
    command = [tool(os.environ.get("CC", "gcc")), *_build._UNIX_FLAGS, *as_any, "-shared", "-fPIC"]
    command += ["-I", str(HEADERS), "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=SOURCE, check=True)
    run = ctypes.CDLL(str(library)).run

    def resample(samples: Samples, source_hz: int, target_hz: int, sizes: list[int]) -> Samples:
        up, down, taps = filter_bank(source_hz, target_hz)
        row = taps.shape[1]
        behind = np.concatenate((np.zeros(row - 1, np.int16), samples))
        made: list[Samples] = []
        next_ = at = 0
        while at < len(samples):
            size = min(sizes[len(made) % len(sizes)], len(samples) - at)
            out = np.zeros(-(-(size * up - next_) // down), np.int16)
            new = np.ascontiguousarray(behind[at : at + row - 1 + size])
            run(*(taps.ctypes, up, down, row), *(new.ctypes, size, next_, len(out), out.ctypes))
            made.append(out)
            next_ += len(out) * down - size * up
            at += size
        return np.concatenate(made)

    return resample


@pytest.mark.parametrize("source_hz", [8000, 24_000, 44_100, 48_000])
def test_fallback_hears_the_caller_as_the_compiled_core(fallback: Filter, source_hz: int) -> None:
    samples = noise(source_hz, source_hz // 5)
    ours = hear(compiled_line(), samples, source_hz).astype(int)
    assert np.abs(ours - fallback(samples, source_hz, 16_000, [CHUNK])).max() <= 1


@pytest.mark.parametrize("source_hz", [16_000, 22_050, 24_000, 48_000])
@pytest.mark.parametrize("target_hz", [8000, 44_100])
def test_fallback_speaks_as_the_compiled_core(
    fallback: Filter, source_hz: int, target_hz: int
) -> None:
    samples = noise(source_hz, source_hz // 5)
    ours = say(compiled_line(), samples, source_hz, target_hz).astype(int)
    made = fallback(samples, source_hz, target_hz, [CHUNK])
    assert np.abs(ours - made).max() <= 1


@pytest.mark.parametrize(
    ("source_hz", "target_hz"), [(8000, 16_000), (16_000, 8000), (24_000, 8000), (22_050, 8000)]
)
def test_chunks_do_not_change_the_fallback(
    fallback: Filter, source_hz: int, target_hz: int
) -> None:
    samples = noise(1, 2000)
    made = fallback(samples, source_hz, target_hz, [CHUNK])
    assert np.array_equal(fallback(samples, source_hz, target_hz, [1, 79, 7, 33]), made)


# What came after the first x86-64: AVX and all later vectors (their names begin with v), BMI, and
# SSE3 to SSE4.2.
LATER = re.compile(
    r"v.+|andn|bextr|blsi|blsr|blsmsk|bzhi|mulx|pdep|pext|rorx|s[ah][lr]x|lzcnt|popcnt|movbe|crc32."
    r"|h(add|sub)p[sd]|addsubp[sd]|lddqu|mov(d|sh|sl)dup|pshufb|palignr|ph(add|sub).+|pmaddubsw"
    r"|pmulhrsw|psign[bwd]|pabs[bwd]|pmul(ld|dq)|p(min|max)(s[bd]|u[wd])|pmov[sz]x..|round[sp][sd]"
    r"|ptest|p?blend.+|p(extr|insr)[bdq]|extractps|insertps|dpp[sd]|packusdw|pcmp(eq|gt)q|pcmp[ei]str."
)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere there are no others")
@pytest.mark.parametrize(
    ("module", "wide"), [("mediad.line._core", {"fir_wide"}), ("mediad.pump._pump", set())]
)
def test_only_what_is_asked_for_needs_a_later_processor(module: str, wide: set[str]) -> None:
    compiled_line()
    library = import_module(module).__file__
    assert library is not None
    command = [tool("objdump"), "-d", "--no-show-raw-insn", library]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    later: defaultdict[str, set[str]] = defaultdict(set)
    function = ""
    for row in done.stdout.splitlines():
        if row.endswith(">:"):
            function = row.partition("<")[2][:-2].partition(".")[0]  # GCC may cut off .part.0
        elif (word := re.match(r" *[0-9a-f]+:\t(\S+)", row)) and LATER.fullmatch(word[1]):
            later[function].add(word[1])
    assert later.keys() == wide, dict(later)
