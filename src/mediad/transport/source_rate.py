"""How often each source address may connect: a token bucket for each. Pure; time is an argument."""

from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address, ip_address

__all__ = ["BURST_S", "MAX_SOURCES", "SourceRate", "source_of"]

BURST_S = 2.0
"""A source that was quiet may connect as often at once as in this time, in seconds: an Asterisk
that starts again brings its calls all together."""

MAX_SOURCES = 4096
"""Sources that are remembered. Beyond it the one that came least recently is forgotten, as if it
had been quiet."""

_IPV6_NETWORK_BITS = 64  # what one customer of a network has; single addresses are too many


def source_of(address: str) -> IPv4Address | IPv6Address:
    """Return the address that is meant: IPv4 when IPv6 only wraps it.

    Raises:
        ValueError: If it is no address.
    """
    ip = ip_address(address)
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


class SourceRate:
    """Counts the connections of each source; all of an IPv6 network (/64) are one source."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._burst = max(1.0, per_s * BURST_S)
        # Oldest first: how many connections a source had left, and when.
        self._buckets: OrderedDict[int, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, source: IPv4Address | IPv6Address, now: float) -> bool:
        """Count a connection; False when there were too many. ``now`` is monotonic seconds."""
        key = _key(source)
        left, at = self._buckets.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        is_taken = left >= 1.0
        self._buckets[key] = left - is_taken, now
        if len(self._buckets) > MAX_SOURCES:
            self._buckets.popitem(last=False)
        return is_taken


def _key(source: IPv4Address | IPv6Address) -> int:
    if isinstance(source, IPv4Address):
        return int(source)
    return (1 << 128) | int(source) >> (128 - _IPV6_NETWORK_BITS)
