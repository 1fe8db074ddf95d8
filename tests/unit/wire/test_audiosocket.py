"""AudioSocket: every kind, every limit, every split point."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediad.wire.audiosocket import (
    AUDIO_KIND_OF_RATE,
    DTMF_DIGITS,
    HANGUP,
    HEADER,
    MAX_ERROR_SIZE,
    RATE_OF_AUDIO_KIND,
    Audio,
    CallUuid,
    Digit,
    HangUp,
    Kind,
    Message,
    Parser,
    PeerError,
    Violation,
    audio_message,
    audio_size_limits,
    digit_message,
    uuid_message,
)

CALL = UUID("5f0c1f5e-7d0b-4b1e-9a53-2f1d60a8c0de")
START = uuid_message(CALL)
SLIN = bytes(range(256)) + bytes(64)

CONVERSATION = (
    START
    + audio_message(Kind.SLIN, SLIN)
    + digit_message("5")
    + audio_message(Kind.SLIN16, SLIN * 2)
    + HEADER.pack(Kind.ERROR, 2)
    + b"\x01\x02"
)
MESSAGES: list[Message] = [
    CallUuid(CALL),
    Audio(Kind.SLIN, SLIN),
    Digit("5"),
    Audio(Kind.SLIN16, SLIN * 2),
    PeerError(b"\x01\x02"),
]


def parse(data: bytes) -> list[Message]:
    """Read what follows the call's UUID."""
    messages = Parser().receive_data(START + data)
    assert messages[0] == CallUuid(CALL)
    return messages[1:]


def test_a_conversation_in_one_piece() -> None:
    assert Parser().receive_data(CONVERSATION) == MESSAGES


def test_a_conversation_split_at_any_byte() -> None:
    for split in range(len(CONVERSATION) + 1):
        parser = Parser()
        first = parser.receive_data(CONVERSATION[:split])
        assert first + parser.receive_data(CONVERSATION[split:]) == MESSAGES


def test_a_conversation_byte_by_byte() -> None:
    parser = Parser()
    messages = [m for byte in CONVERSATION for m in parser.receive_data(bytes([byte]))]
    assert messages == MESSAGES


def test_a_message_comes_with_its_last_byte() -> None:
    parser = Parser()
    assert parser.receive_data(START[:-1]) == []
    assert parser.receive_data(START[-1:]) == [CallUuid(CALL)]


@pytest.mark.parametrize("kind", RATE_OF_AUDIO_KIND)
def test_audio_of_5_to_120_ms_is_taken(kind: int) -> None:
    smallest, largest = audio_size_limits(kind)
    for size in (smallest, largest):
        assert parse(audio_message(kind, bytes(size))) == [Audio(kind, bytes(size))]
    for size in (smallest - 1, min(largest + 1, 0xFFFF), 0):
        if size not in range(smallest, largest + 1):
            detail = f"kind 0x{kind:02x} with {size} bytes"
            assert parse(HEADER.pack(kind, size)) == [Violation("bad_length", detail)]


def test_kind_0x10_may_be_as_short_as_5_ms_of_g711() -> None:
    assert audio_size_limits(Kind.SLIN) == (40, 1920)
    assert audio_size_limits(Kind.SLIN16) == (160, 3840)


def test_kinds_and_rates_belong_together() -> None:
    assert AUDIO_KIND_OF_RATE[44_100] == Kind.SLIN44
    assert {AUDIO_KIND_OF_RATE[rate] for rate in RATE_OF_AUDIO_KIND.values()} == set(
        RATE_OF_AUDIO_KIND
    )


@pytest.mark.parametrize("code", range(256))
def test_a_digit_is_one_that_a_phone_has(code: int) -> None:
    messages = parse(HEADER.pack(Kind.DTMF, 1) + bytes([code]))
    if code in DTMF_DIGITS:
        assert messages == [Digit(chr(code).upper())]
    else:
        assert messages == [Violation("bad_digit", f"DTMF digit {bytes([code])!r}")]


def test_a_hang_up_needs_no_length() -> None:
    for data in (HANGUP, HANGUP[:1], b"\x00\xff\xff"):
        messages = parse(data)
        assert messages == [HangUp()]
        assert isinstance(messages[0], HangUp)


def test_a_hang_up_may_come_before_the_uuid() -> None:
    assert Parser().receive_data(HANGUP) == [HangUp()]


@pytest.mark.parametrize("code", [b"", b"\x01", bytes(MAX_ERROR_SIZE)])
def test_a_peers_error_ends_the_call(code: bytes) -> None:
    message = HEADER.pack(Kind.ERROR, len(code)) + code
    assert parse(message + digit_message("1")) == [PeerError(code)]


@pytest.mark.parametrize("kind", sorted(set(range(256)) - set(Kind)))
def test_an_unknown_kind_is_a_violation_at_its_first_byte(kind: int) -> None:
    expected = [Violation("unknown_kind", f"unknown message kind 0x{kind:02x}")]
    assert parse(bytes([kind])) == expected
    assert Parser().receive_data(bytes([kind])) == expected


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.HANGUP, Kind.UUID}))
def test_anything_before_the_uuid_is_a_violation(kind: int) -> None:
    detail = f"message kind 0x{kind:02x} before the call's UUID"
    assert Parser().receive_data(bytes([kind])) == [Violation("no_uuid", detail)]


@pytest.mark.parametrize(
    ("data", "violation"),
    [
        (START, Violation("second_uuid", "a second UUID on one connection")),
        (b"\x03\x00\x00", Violation("bad_length", "kind 0x03 with 0 bytes")),
        (b"\xff\x01\x00", Violation("bad_length", "kind 0xff with 256 bytes")),
    ],
)
def test_what_breaks_the_rules_is_a_violation(data: bytes, violation: Violation) -> None:
    assert parse(data) == [violation]


@pytest.mark.parametrize("size", [0, 15, 17, 0xFFFF])
def test_a_uuid_has_16_bytes(size: int) -> None:
    messages = Parser().receive_data(HEADER.pack(Kind.UUID, size))
    assert messages == [Violation("bad_length", f"kind 0x01 with {size} bytes")]


@pytest.mark.parametrize("ending", [HANGUP, b"\x55", HEADER.pack(Kind.ERROR, 0)])
def test_nothing_is_read_after_the_end(ending: bytes) -> None:
    parser = Parser()
    assert len(parser.receive_data(START + ending + digit_message("1"))) == 2
    assert parser.receive_data(digit_message("1")) == []


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6), st.booleans())
def test_any_bytes_give_the_same_however_they_are_split(
    data: bytes, cuts: list[int], has_uuid: bool
) -> None:
    if has_uuid:
        data = START + data
    edges = [0, *sorted(cuts), len(data)]
    parser = Parser()
    pieces = [
        message
        for start, end in zip(edges, edges[1:], strict=False)
        for message in parser.receive_data(data[start:end])
    ]
    assert pieces == Parser().receive_data(data)
    assert all(not isinstance(m, Violation | HangUp | PeerError) for m in pieces[:-1])


def test_messages_are_written_as_they_are_read() -> None:
    assert audio_message(Kind.SLIN, SLIN) == b"\x10\x01\x40" + SLIN
    assert digit_message("#") == b"\x03\x00\x01#"
    assert START == b"\x01\x00\x10" + CALL.bytes
    assert HANGUP == b"\x00\x00\x00"
