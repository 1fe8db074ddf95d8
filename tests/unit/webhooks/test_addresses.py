"""Where webhooks may not go."""

from ipaddress import ip_network

import pytest

from mediad.webhooks.addresses import is_allowed

PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",  # carriers' own
    "169.254.169.254",  # clouds' metadata
    "192.0.0.1",
    "198.18.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "fc00::1",
    "fe80::1%eth0",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::7f00:1",
    "2001:db8::1",
    "::127.0.0.1",
]
NEVER = ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:0.0.0.0"]


@pytest.mark.parametrize("host", PRIVATE + NEVER)
def test_what_not_everybody_reaches_is_refused(host: str) -> None:
    assert not is_allowed(host)


@pytest.mark.parametrize("host", PRIVATE)
def test_all_of_it_can_be_allowed(host: str) -> None:
    assert is_allowed(host, True)


@pytest.mark.parametrize("host", NEVER)
def test_some_is_never_allowed(host: str) -> None:
    assert not is_allowed(host, True)


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
)
def test_public_addresses_are_allowed(host: str) -> None:
    assert is_allowed(host)


def test_networks_can_be_allowed() -> None:
    networks = (ip_network("10.0.0.0/8"), ip_network("fc00::/7"))
    assert is_allowed("10.1.2.3", networks)
    assert is_allowed("::ffff:10.1.2.3", networks)
    assert is_allowed("fd00::1", networks)
    assert not is_allowed("127.0.0.1", networks)
    assert is_allowed("8.8.8.8", networks)
