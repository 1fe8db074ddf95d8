"""Logging: nothing blocks, repeats are summed up, the format."""

import logging
import queue
import re
from collections.abc import Iterator

import pytest

from mediad import log

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


def test_line_has_utc_time_level_name_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    with log.logging_to("info"):
        logger.info("call %s: started", "ab")
    line = capsys.readouterr().err
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    mediad.test: call ab: started\n", line
    )


def test_everything_is_written_before_the_block_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with log.logging_to("info"):
        for number in range(1000):
            logger.info("number %d", number)
    assert len(capsys.readouterr().err.splitlines()) == 1000


def test_level_is_ours_and_libraries_only_warn(capsys: pytest.CaptureFixture[str]) -> None:
    with log.logging_to("debug"):
        logger.debug("of ours")
        logging.getLogger("library").info("of theirs")
        logging.getLogger("library").warning("their warning")
    written = capsys.readouterr().err
    assert "of ours" in written
    assert "their warning" in written
    assert "of theirs" not in written


def test_exception_is_written_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with log.logging_to("info"):
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("call %s failed", "ab")
    written = capsys.readouterr().err
    assert "call ab failed\nTraceback" in written
    assert written.endswith("ValueError: broken\n")


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
    capsys: pytest.CaptureFixture[str],
) -> None:
    with log.logging_to("info"):
        for number in range(8):
            logger.warning("refused %d", number)
    lines = [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()]
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


def test_information_is_never_left_out() -> None:
    repeats = log.RepeatFilter()
    assert all(repeats.filter(record("call", at=1.0, level=logging.INFO)) for _ in range(100))


def test_number_of_counted_messages_is_bounded() -> None:
    repeats = log.RepeatFilter()
    for number in range(10_000):
        assert repeats.filter(record(f"fault {number}", at=1.0))
    assert len(repeats._counts) <= 1_000
