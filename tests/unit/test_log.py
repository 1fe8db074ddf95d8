"""Logging: nothing blocks, repeats are summed up, the formats."""

import json
import logging
import os
import queue
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from mediad import log
from mediad.config.types import Secret

logger = logging.getLogger("mediad.test")


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    """Put the levels back that logging_to() sets."""
    loggers = [logging.getLogger(name) for name in (None, "mediad", "picows")]
    before = [each.level for each in loggers]
    yield
    for each, level in zip(loggers, before, strict=True):
        each.setLevel(level)


def record(
    message: str, *args: object, at: float, level: int = logging.WARNING
) -> logging.LogRecord:
    made = logging.LogRecord("mediad.test", level, __file__, 1, message, args, None)
    made.created = at
    return made


def test_line_has_utc_time_level_name_and_message(capfd: pytest.CaptureFixture[str]) -> None:
    with log.logging_to("info"):
        logger.info("call %s: started", "ab")
    line = capfd.readouterr().err
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    mediad.test: call ab: started\n", line
    )


def test_everything_is_written_before_the_block_ends(capfd: pytest.CaptureFixture[str]) -> None:
    with log.logging_to("info"):
        for number in range(1000):
            logger.info("number %d", number)
    assert len(capfd.readouterr().err.splitlines()) == 1000


def test_level_is_ours_and_libraries_only_warn(capfd: pytest.CaptureFixture[str]) -> None:
    with log.logging_to("debug"):
        logger.debug("of ours")
        logging.getLogger("library").info("of theirs")
        logging.getLogger("library").warning("their warning")
    written = capfd.readouterr().err
    assert "of ours" in written
    assert "their warning" in written
    assert "of theirs" not in written


def test_exception_is_written_with_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with log.logging_to("info"):
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("call %s failed", "ab")
    written = capfd.readouterr().err
    assert "call ab failed\nTraceback" in written
    assert written.endswith("ValueError: broken\n")


def test_what_is_logged_may_change_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with log.logging_to("info"):
        words = ["first"]
        logger.info("%s", words)
        words[0] = "second"
    assert "['first']" in capfd.readouterr().err


# JSON

CALL_ID = "6f2a1b3c-0d4e-4f5a-8b6c-7d8e9f0a1b2c"


def json_of(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capfd.readouterr().err.splitlines()
    fields: dict[str, Any] = json.loads(line)
    return fields


def test_json_is_one_object_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    with log.logging_to("info", "json"):
        logger.warning('two\nlines, "quotes" and ü')
    fields = json_of(capfd)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("time"))
    assert fields == {
        "level": "warning",
        "logger": "mediad.test",
        "message": 'two\nlines, "quotes" and ü',
    }


@pytest.mark.parametrize("message", ["call %s: started", "a fault (call %s)"])
def test_json_has_the_call(message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with log.logging_to("info", "json"):
        logger.info(message, CALL_ID)
    assert json_of(capfd)["call_id"] == CALL_ID


def test_json_has_the_exception_in_a_field(capfd: pytest.CaptureFixture[str]) -> None:
    with log.logging_to("info", "json"):
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("call %s failed", CALL_ID)
    fields = json_of(capfd)
    assert fields["message"] == f"call {CALL_ID} failed"
    assert fields["call_id"] == CALL_ID
    assert fields["exception"].startswith("Traceback")
    assert fields["exception"].endswith("ValueError: broken")


def test_what_is_no_unicode_is_written_all_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    with log.logging_to("info", "json"):
        logger.info("file %s", os.fsdecode(b"\xff.wav"))
    assert json_of(capfd)["message"] == "file \udcff.wav"


# Nobody reads

SILENT_READER = """
import logging, sys, time
from mediad.log import dropped_records, logging_to

with logging_to("info"):
    began = time.monotonic()
    for number in range(30_000):
        logging.getLogger("mediad.test").info(f"line {number % 6} %d %s", number, "x" * 100)
    print(time.monotonic() - began, dropped_records(), flush=True)
"""


def test_log_that_nobody_reads_costs_lines_and_no_time(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", SILENT_READER], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with program:
        assert program.stdout is not None
        seconds, dropped = map(float, program.stdout.readline().split())
        ended_at = time.monotonic()
        assert program.wait(10) == 0  # though its thread still waits for a reader
        assert time.monotonic() - ended_at < log._FLUSH_S + 3
    assert dropped >= 15_000
    assert seconds < 10


def test_descriptor_that_does_not_wait_loses_nothing() -> None:
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    for number in range(2000):  # more than a pipe holds
        records.put(record("line %d", number, at=1.0))
    listener = log._Listener(records, writes, log.ConsoleFormatter())
    listener.start()
    text = b""
    while text.count(b"\n") < 2000:
        time.sleep(0.01)
        text += os.read(reads, 65536)
    listener.stop_within(5)
    os.close(reads)
    os.close(writes)
    assert [int(line.split()[-1]) for line in text.splitlines()] == list(range(2000))


def test_closed_descriptor_is_no_error() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    listener = log._Listener(queue.Queue(), writes, log.ConsoleFormatter())
    listener.handle(record("nobody hears", at=1.0))
    os.close(writes)


# The bound of the queue, and repeats


def test_full_queue_drops_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    # A writer that does not read leaves everything in the queue.
    monkeypatch.setattr(logging.handlers.QueueListener, "start", lambda self: None)
    monkeypatch.setattr(logging.handlers.QueueListener, "stop", lambda self: None)
    monkeypatch.setattr(log, "QUEUE_SIZE", 3)
    with log.logging_to("info"):
        for _ in range(5):
            logger.info("line")
        assert log.dropped_records() == 2


def test_repeated_warning_is_summed_up_when_logging_ends(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with log.logging_to("info"):
        for number in range(8):
            logger.warning("refused %d", number)
    lines = [line.partition(": ")[2] for line in capfd.readouterr().err.splitlines()]
    assert lines[:4] == ["refused 0", "refused 1", "refused 2", "refused 3"]
    assert lines[4].startswith("refused 4 (repeats: ")
    assert lines[5:] == ["3 more in a minute: refused %d"]


def test_repeats_are_summed_up_by_the_first_record_after_the_minute() -> None:
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    handler = log._BoundedQueueHandler(records)
    for second in range(10):
        handler.handle(record("refused", at=100.0 + second))
    handler.handle(record("call started", at=159.9, level=logging.INFO))
    handler.handle(record("call started", at=160.0, level=logging.INFO))
    handler.handle(record("refused", at=161.0))
    written = [each.msg for each in records.queue]
    assert written[5:] == [
        "call started",
        "5 more in a minute: refused",
        "call started",
        "refused",
    ]


def test_different_messages_do_not_count_together() -> None:
    repeats = log.RepeatFilter()
    assert all(repeats.filter(record(f"fault {number}", at=1.0)) for number in range(100))
    assert repeats.take_sums(now=100.0) == []


def test_start_and_end_of_a_hundred_calls_a_second_are_written_and_more_are_counted() -> None:
    repeats = log.RepeatFilter()
    for message in ("call %s: started", "call %s: ended"):
        calls = [record(message, number, at=1.0, level=logging.INFO) for number in range(7_000)]
        assert [repeats.filter(call) for call in calls] == [True] * 6_000 + [False] * 1_000
    assert repeats.take_sums(now=100.0) == [
        (logging.INFO, "1000 more in a minute: call %s: started"),
        (logging.INFO, "1000 more in a minute: call %s: ended"),
    ]
    assert repeats.left_out == 2_000


def test_different_messages_without_end_are_few_lines_and_are_counted() -> None:
    repeats = log.RepeatFilter()
    passed = sum(repeats.filter(record(f"fault {number}", at=1.0)) for number in range(10_000))
    assert passed == 200 + 5
    assert repeats.take_sums(now=100.0) == [
        (logging.WARNING, "9795 more in a minute: other messages")
    ]
    assert repeats.filter(record("fault", at=101.0))


# What peers have put into it


def test_message_cannot_begin_a_line_on_the_console(capfd: pytest.CaptureFixture[str]) -> None:
    with log.logging_to("info"):
        logger.warning(
            "it says %s", "x\n2026-01-01T00:00:00.000Z INFO    mediad: all is well\r\x1b[2J"
        )
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith(
        r"it says x\n2026-01-01T00:00:00.000Z INFO    mediad: all is well\r\x1b[2J"
    )


@pytest.mark.parametrize("format", ["console", "json"])
def test_secret_of_a_setting_is_in_no_line(format: str, capfd: pytest.CaptureFixture[str]) -> None:
    TypeAdapter(Secret).validate_python("Bearer 0123456789abcdef")
    with log.logging_to("info", format):
        for _ in range(8):
            logger.warning("it says %s", "0123456789abcdef")
        logger.warning(f"it says {'0123456789abcdef'} %d", 1)
        try:
            raise ValueError("0123456789abcdef")
        except ValueError:
            logger.exception("it says")
    written = capfd.readouterr().err
    assert "ValueError: **********" in written
    assert "0123456789" not in written
