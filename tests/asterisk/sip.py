"""SIP messages as text (RFC 3261), as far as phone.py needs them. No sockets."""

from typing import NamedTuple


class SipMessage(NamedTuple):
    """A request or an answer. Only the first of equally named headers is kept."""

    first_line: str
    headers: dict[str, str]
    body: str

    @property
    def status(self) -> int:
        """An answer's status code."""
        return int(self.first_line.split()[1])

    def serialize(self) -> bytes:
        """Return the message as it goes on the wire."""
        headers = {**self.headers, "Content-Length": str(len(self.body))}
        lines = [self.first_line, *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n" + self.body).encode()


def parse_sip(data: bytes) -> SipMessage:
    """Parse one datagram."""
    head, _, body = data.decode().partition("\r\n\r\n")
    first_line, *lines = head.split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip(), value.strip())
    return SipMessage(first_line, headers, body)
