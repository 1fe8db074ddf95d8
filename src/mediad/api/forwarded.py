"""Who asks when a proxy asks for somebody: X-Forwarded-For and X-Forwarded-Proto, believed only of
the proxies that the settings name.

Each proxy adds the address that it was asked from at the end. So the client is the last one that is
no trusted proxy's; what stands before it the client may have made up.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Forwarded"]

_SCHEMES = {
    "http": {"http": "http", "https": "https"},
    "websocket": {"http": "ws", "https": "wss"},
}


class Forwarded:
    """Puts the client's address and scheme in the place of a trusted proxy's. A client whose
    address cannot be read has none: keys that are bound to networks are refused to it.
    """

    def __init__(self, app: ASGIApp, trusted: tuple[IPv4Network | IPv6Network, ...]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = _address(scope["client"][0]) if scope.get("client") else None
        if self._is_trusted(peer):
            headers = Headers(scope=scope)
            client = self._client(peer, headers.getlist("x-forwarded-for"))
            schemes = _SCHEMES[scope["type"]]
            scope = {
                **scope,
                "client": None if client is None else (str(client), 0),
                "scheme": schemes.get(headers.get("x-forwarded-proto", ""), scope["scheme"]),
            }
        await self._app(scope, receive, send)

    def _is_trusted(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)

    def _client(
        self, address: IPv4Address | IPv6Address | None, forwarded_for: list[str]
    ) -> IPv4Address | IPv6Address | None:
        """Go back from the peer as far as proxies are trusted. A header may come more than once."""
        hops = [hop for value in forwarded_for for hop in value.split(",")]
        while hops and self._is_trusted(address):
            address = _address(hops.pop().strip())
        return address


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address: IPv4 when IPv6 only wraps it."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
