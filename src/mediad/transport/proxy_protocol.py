"""The header of the PROXY protocol, version 2, in which a balancer says whom it connects for. Pure.

After https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.2:

    12 bytes  a signature that no other protocol begins with
     1 byte   version (2) and command: LOCAL (the balancer speaks for itself) or PROXY
     1 byte   address family and transport
     2 bytes  length of what follows, big endian
     n bytes  addresses and ports, then TLVs: type u8, length u16, value
"""

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

__all__ = ["MAX_HEADER_BYTES", "SIGNATURE", "ProxyHeader", "ProxyHeaderError", "parse"]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

MAX_HEADER_BYTES = 4096
"""A longer header is refused. HAProxy's are 28 bytes for IPv4, some hundred with TLVs."""

_HEADER = struct.Struct(">12sBBH")
_TLV = struct.Struct(">BH")
_VERSION = 2
_LOCAL, _PROXY = 0, 1
# Family in the high half, transport in the low one: 1 is a stream, 2 datagrams, and those cannot
# have come over a TCP connection. The sizes are those of both addresses and both ports.
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESSES_BYTES = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}


class ProxyHeaderError(ValueError):
    """The connection does not begin with a header that can be used: close it."""


class ProxyHeader(NamedTuple):
    """A header that was read."""

    address: str | None
    """Whom the balancer connects for; None when it speaks for itself or does not say."""
    size: int
    """Its bytes; what comes after them is the connection's own."""


def parse(data: bytes | bytearray) -> ProxyHeader | None:
    """Read the header that a connection begins with; None while it is not complete.

    Raises:
        ProxyHeaderError: At the first byte that is wrong.
    """
    if not SIGNATURE.startswith(data[: len(SIGNATURE)]):
        raise ProxyHeaderError("no header of the PROXY protocol, version 2")
    if len(data) < _HEADER.size:
        return None
    _, version_command, family, length = _HEADER.unpack_from(data)
    version, command = divmod(version_command, 16)
    if version != _VERSION or command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"PROXY protocol: version {version}, command {command}")
    size = _HEADER.size + length
    if size > MAX_HEADER_BYTES:
        raise ProxyHeaderError(f"PROXY protocol: a header of {size} bytes")
    if len(data) < size:
        return None
    if command == _LOCAL:  # a receiver must not look at the rest
        return ProxyHeader(None, size)
    return ProxyHeader(_source(family, bytes(data[_HEADER.size : size])), size)


def _source(family: int, block: bytes) -> str | None:
    """Return the source address in what follows the fixed part."""
    size = _ADDRESSES_BYTES.get(family)
    if size is None:
        raise ProxyHeaderError(f"PROXY protocol: family and transport 0x{family:02x}")
    if len(block) < size:
        raise ProxyHeaderError(f"PROXY protocol: {len(block)} bytes are too few for addresses")
    _check_tlvs(block[size:])
    if family == _TCP4:
        return str(IPv4Address(block[:4]))
    if family == _TCP6:
        return str(IPv6Address(block[:16]))
    return None


def _check_tlvs(tlvs: bytes) -> None:
    """Check that the TLVs fill their room. We need none of them, so their types do not matter."""
    at = 0
    while at < len(tlvs):
        if len(tlvs) - at < _TLV.size:
            raise ProxyHeaderError("PROXY protocol: half a TLV")
        at += _TLV.size + _TLV.unpack_from(tlvs, at)[1]
    if at != len(tlvs):
        raise ProxyHeaderError("PROXY protocol: a TLV goes beyond the header")
