"""PROXY protocol, version 2: what balancers send, and what nobody should."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediad.transport.proxy_protocol import (
    MAX_HEADER_BYTES,
    SIGNATURE,
    ProxyHeader,
    ProxyHeaderError,
    parse,
)

LOCAL, PROXY = 0x20, 0x21
TCP4 = bytes([10, 1, 2, 3, 192, 0, 2, 1]) + struct.pack(">HH", 40000, 9092)
TCP6 = (
    ip_address("2001:db8::7").packed
    + ip_address("2001:db8::1").packed
    + struct.pack(">HH", 40000, 9092)
)
NOOP = b"\x04\x00\x03abc"


def header(command: int = PROXY, family: int = 0x11, block: bytes = TCP4) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(block)) + block


@pytest.mark.parametrize(
    ("data", "address"),
    [
        (header(), "10.1.2.3"),
        (header(family=0x21, block=TCP6), "2001:db8::7"),
        (header(block=TCP4 + NOOP + b"\xe7\x00\x00"), "10.1.2.3"),
        (header(family=0x31, block=bytes(216)), None),  # a UNIX socket has no address
        (header(family=0x00, block=b""), None),
        (header(LOCAL, 0x00, b""), None),
        (header(LOCAL, 0x11, TCP4), None),  # an address that must not be believed
        (header(LOCAL, 0x55, b"whatever"), None),
    ],
)
def test_header_in_pieces_of_any_length_tells_the_address(data: bytes, address: str | None) -> None:
    for size in range(len(data)):
        assert parse(data[:size]) is None
    assert parse(data) == ProxyHeader(address, len(data))
    assert parse(bytearray(data) + b"\x01\x00\x10rest") == ProxyHeader(address, len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"\x01",  # AudioSocket
        b"PROXY TCP4 10.1.2.3 192.0.2.1 40000 9092\r\n",  # version 1
        SIGNATURE[:11] + b"X",
        header(command=0x11),  # version 1 in the clothes of version 2
        header(command=0x31),
        header(command=0x22),
        header(family=0x12),  # datagrams do not come over TCP
        header(family=0x41),
        header(block=TCP4[:11]),
        header(family=0x21, block=TCP4),
        header(block=TCP4 + b"\x04\x00"),  # half a TLV
        header(block=TCP4 + b"\x04\x00\x04abc"),  # one that is longer than the header
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        parse(data)


def test_wrong_signature_is_refused_at_its_first_byte() -> None:
    for size in range(len(SIGNATURE)):
        assert parse(SIGNATURE[:size]) is None
        with pytest.raises(ProxyHeaderError):
            parse(SIGNATURE[:size] + b"\xff")


def test_long_header_is_refused_before_it_has_come() -> None:
    room = MAX_HEADER_BYTES - 16
    tlv = b"\xe0" + struct.pack(">H", room - len(TCP4) - 3)
    assert parse(header(block=TCP4 + tlv + bytes(room - len(TCP4) - 3))) is not None
    with pytest.raises(ProxyHeaderError, match="4097"):
        parse(SIGNATURE + struct.pack(">BBH", PROXY, 0x11, room + 1))


@given(st.binary(max_size=300), st.integers(0, 255), st.integers(0, 255))
def test_anything_is_a_header_or_refused(block: bytes, command: int, family: int) -> None:
    data = header(command, family, block)
    try:
        found = parse(data)
    except ProxyHeaderError:
        return
    assert found is not None
    assert found.size == len(data)
    assert found.address is None or ip_address(found.address)
