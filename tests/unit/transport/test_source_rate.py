"""How often a source may connect."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from mediad.transport import source_rate
from mediad.transport.source_rate import BURST_S, SourceRate, source_of

ASTERISK, OTHER = ip_address("10.0.0.1"), ip_address("10.0.0.2")


def taken(rate: SourceRate, source: IPv4Address | IPv6Address, times: int, now: float) -> int:
    return sum(rate.take(source, now) for _ in range(times))


def test_quiet_source_may_bring_a_burst_and_then_its_rate() -> None:
    rate = SourceRate(10)
    assert taken(rate, ASTERISK, 50, now=100.0) == 10 * BURST_S
    assert taken(rate, ASTERISK, 50, now=100.5) == 5
    assert taken(rate, ASTERISK, 50, now=100.5) == 0
    assert taken(rate, ASTERISK, 50, now=200.0) == 10 * BURST_S


def test_steady_source_at_its_rate_is_never_refused() -> None:
    rate = SourceRate(50)
    assert all(rate.take(ASTERISK, now=number / 50) for number in range(1000))


def test_source_that_is_refused_costs_others_nothing() -> None:
    rate = SourceRate(10)
    taken(rate, ASTERISK, 1000, now=1.0)
    assert rate.take(OTHER, now=1.0)


def test_rate_below_one_a_second_lets_one_through() -> None:
    rate = SourceRate(0.1)
    assert taken(rate, ASTERISK, 5, now=1.0) == 1
    assert not rate.take(ASTERISK, now=10.0)
    assert rate.take(ASTERISK, now=11.1)


def test_ipv6_network_is_one_source_and_no_ipv4_address() -> None:
    rate = SourceRate(1)
    assert taken(rate, ip_address("2001:db8:0:1::1"), 2, now=1.0) == 2
    assert not rate.take(ip_address("2001:db8:0:1:ffff::9"), now=1.0)
    assert rate.take(ip_address("2001:db8:0:2::1"), now=1.0)
    assert rate.take(ip_address("::10.0.0.1"), now=1.0)
    assert taken(rate, ASTERISK, 3, now=1.0) == 2


def test_sources_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_rate, "MAX_SOURCES", 3)
    rate = SourceRate(1)
    for number in range(100):
        taken(rate, IPv4Address(number), 5, now=1.0)
        assert not rate.take(IPv4Address(0), now=1.0)  # seen all the time, so not forgotten
    assert len(rate) == 3
    assert rate.take(IPv4Address(50), now=1.0)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_ipv4_in_ipv6_is_ipv4(address: str, source: str) -> None:
    assert source_of(address) == ip_address(source)
