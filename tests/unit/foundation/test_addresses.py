"""What an address of a node is, and what is none."""

import pytest

from raftnode.foundation import addresses


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [("10.0.0.1", 8080, "10.0.0.1:8080"), ("node-a.example", 1, "node-a.example:1"), ("::1", 38888, "[::1]:38888")],
)
def test_a_host_and_a_port_are_one_address_and_two_again(host: str, port: int, address: str) -> None:
    assert addresses.join(host, port) == address
    assert addresses.split(address) == (host, port)
    assert addresses.host_of(f"https://{address}") == host
    assert addresses.is_address(address)
    assert addresses.is_url(f"http://{address}")


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.1:x", ":", ""])
def test_what_has_no_port_is_not_split(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        addresses.split(text)


@pytest.mark.parametrize(
    "address",
    ["", "10.0.0.1", "10.0.0.1:x", "10.0.0.1:70000", "a b:1", "a/b:1", "::1:1", f"{'x' * 64}.example:1",
     f"{'ü' * 62}.example:1", ".".join(["x" * 60] * 5) + ":1"],
)  # fmt: skip
def test_what_cannot_be_dialled_is_no_address(address: str) -> None:
    assert not addresses.is_address(address)
    assert not addresses.is_url(f"http://{address}")


def test_an_address_is_no_url_and_a_url_no_address() -> None:
    assert not addresses.is_url("10.0.0.1:8080")
    assert not addresses.is_url("ftp://10.0.0.1:8080")
    assert not addresses.is_address("http://10.0.0.1:8080")


@pytest.mark.parametrize("url", ["10.0.0.1:8080", "ftp://a:1", "http://:1", "http://a:0", "http://a:70000", "http://["])
def test_what_names_no_host_and_port_is_no_url(url: str) -> None:
    assert addresses.split_url(url) is None


def test_a_url_is_split() -> None:
    parts = addresses.split_url("https://[::1]:8080/")
    assert parts is not None
    assert (parts.scheme, parts.hostname, parts.port) == ("https", "::1", 8080)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("LocalHost", True),
     ("10.0.0.1", False), ("fe80::1%eth0", False), ("node-a", False), ("", False)],
)  # fmt: skip
def test_loopback_is_this_machine_alone(host: str, loopback: bool) -> None:
    assert addresses.is_loopback(host) is loopback
