"""Which addresses webhooks may go to: by default only those that anybody can reach. Pure.

Whoever sets a URL must not reach what only this machine can: its own ports, its network, a cloud's
metadata service.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

__all__ = ["is_allowed"]

_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")


def is_allowed(
    host: str, allow_private: bool | Sequence[IPv4Network | IPv6Network] = False
) -> bool:
    """Whether to connect to an address.

    Args:
        host: The address, as a socket gets it.
        allow_private: True for all private ones, or the networks of those that are allowed.
    """
    address = _inner(ip_address(host.partition("%")[0]))
    if address.is_multicast or address.is_unspecified:
        return False
    if address.is_global:
        return True
    if isinstance(allow_private, bool):
        return allow_private
    return any(address in network for network in allow_private)


def _inner(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address to which an IPv6 address leads by way of a translator, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    is_translated = any(address in network for network in (_NAT64, _NAT64_LOCAL, _COMPATIBLE))
    if is_translated and not (address.is_loopback or address.is_unspecified):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
