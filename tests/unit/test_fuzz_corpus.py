"""The corpus of inputs is taken as its README says: by the parsers, and by both lines alike."""

import os
from typing import cast

import pytest

from mediad.config import load_settings
from mediad.errors import ConfigError
from mediad.line import CallerItem, Line
from mediad.transport import proxy_protocol
from mediad.wire import frames, rtvi
from mediad.wire.audiosocket import HangUp, Parser, PeerError, Violation
from mediad.wire.frames import BadFrame
from mediad.wire.rtvi import AgentError, Transcript
from tests.data.corpus import FORMATS, Sample, samples
from tests.unit.line.lines import compiled_line, new_line, python_line

SECRET = "hunter2"  # in whatever holds one


def each(format: str) -> pytest.MarkDecorator:
    """Run a test for each sample."""
    found = samples(format)
    return pytest.mark.parametrize("sample", found, ids=[sample.path.name for sample in found])


@pytest.mark.parametrize("format", FORMATS)
def test_every_file_has_its_line_in_the_readme(format: str) -> None:
    told = [sample.path for sample in samples(format)]
    assert told
    assert sorted(told) == sorted(told[0].parent.iterdir())


# AudioSocket


def outcome_of_call(item: object) -> str:
    """Return what became of a call, by the last item of it."""
    match item:
        case Violation(reason):
            return reason
        case HangUp():
            return "hangs up"
        case PeerError():
            return "peer's error"
        case _:
            return "goes on"


@each("audiosocket")
def test_caller(sample: Sample) -> None:
    whole: list[object] = [*Parser().receive_data(sample.data)]
    assert outcome_of_call(whole[-1] if whole else None) == sample.outcome
    parser = Parser()
    in_bytes = [item for byte in sample.data for item in parser.receive_data(bytes((byte,)))]
    assert in_bytes == whole


def items_of(core: type[Line], data: bytes, step: int) -> list[CallerItem]:
    """Return what a line makes of a caller's bytes, so many at a time, and of two ticks more."""
    line = core(codec="auto", g711="ulaw", playout_max_s=1.0)
    items: list[CallerItem] = []
    for start in range(0, len(data), step):
        items += line.receive_caller(data[start : start + step], start * 0.001)
    for number in range(2):
        tick = line.tick(len(data) * 0.001 + number * 0.02)
        items += [tick.to_caller, tick.to_agent or b""]
    return [*items, cast(bytes, repr(line.counters()))]


@each("audiosocket")
@pytest.mark.parametrize("step", [1, 160, 1 << 16])
def test_caller_on_both_lines(sample: Sample, step: int) -> None:
    expected = items_of(python_line(), sample.data, step)
    assert items_of(compiled_line(), sample.data, step) == expected


# A balancer's header


def outcome_of_header(data: bytes) -> str:
    """Return whom a connection is for that begins like this."""
    try:
        header = proxy_protocol.parse(data)
    except proxy_protocol.ProxyHeaderError:
        return "refused"
    if header is None:
        return "waits for more"
    assert header.size <= len(data)
    return header.address or "nobody"


@each("proxy")
def test_balancers_header(sample: Sample) -> None:
    assert outcome_of_header(sample.data) == sample.outcome
    in_bytes = [outcome_of_header(sample.data[:size]) for size in range(len(sample.data) + 1)]
    decided = [outcome for outcome in in_bytes if outcome != "waits for more"]
    # Nothing that comes after it is known changes it.
    assert set(decided) == {sample.outcome} - {"waits for more"}


# The agent's frames


@each("frames")
def test_frame(sample: Sample) -> None:
    results = []
    for core in (python_line(), compiled_line()):
        line = new_line(core)
        message = line.receive_agent(sample.data, 1.0)
        heard = [line.tick(1.0 + number * 0.02).to_caller for number in range(20)]
        results.append((message, heard, line.counters(), line.held_ms))
    assert results[0] == results[1]
    message = results[0][0]
    reason = message.reason if isinstance(message, BadFrame) else ""
    assert (reason or type(message or frames.decode(sample.data)).__name__) == sample.outcome


# RTVI


@each("rtvi")
def test_rtvi(sample: Sample) -> None:
    event = rtvi.parse(sample.data.decode())
    assert (type(event).__name__ if event is not None else "passed over") == sample.outcome
    if isinstance(event, Transcript | AgentError):
        event.text.encode()  # every database and every peer takes it


# Settings


@each("settings")
def test_settings(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("MEDIAD_") and name != "MEDIAD_CORE":
            monkeypatch.delenv(name)
    try:
        shown = repr(load_settings(sample.path))
        outcome = "taken"
    except ConfigError as exc:
        shown = str(exc)
        outcome = "refused"
    assert outcome == sample.outcome
    assert SECRET not in shown
    if outcome == "refused":
        assert str(sample.path) in shown
