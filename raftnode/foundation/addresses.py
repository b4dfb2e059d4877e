"""Addresses of nodes: "host:port", an IPv6 host in brackets, and "http://host:port" for the HTTP server."""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST = r"[^/\s:.]{1,63}(?:\.[^/\s:.]{1,63})*\.?"
ADDRESS_PATTERN = rf"^({_HOST}:\d+|\[[0-9a-fA-F:]+\]:\d+)?\Z"
"""What looks like an address, or nothing; whether it can be dialled, `is_address` says."""
URL_PATTERN = rf"^(https?://{_HOST}:\d+|https?://\[[0-9a-fA-F:]+\]:\d+)?\Z"
LENGTH_MAX = 256
PORT_MAX = 65_535


def join(host: str, port: int) -> str:
    """The two as one address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(address: str) -> tuple[str, int]:
    """The host, without brackets, and the port. Raises ValueError."""
    return host_of(address), int(address.rpartition(":")[2])


def host_of(address: str) -> str:
    """The host, without brackets, of an address or a node's URL."""
    return address.rpartition("://")[2].rpartition(":")[0].strip("[]")


def is_address(text: str) -> bool:
    """Whether a node could be dialled at this "host:port"."""
    return _may_be_dialled(text, ADDRESS_PATTERN)


def is_url(text: str) -> bool:
    """Whether a node's HTTP server could be dialled at this "http://host:port"."""
    return _may_be_dialled(text, URL_PATTERN)


def _may_be_dialled(text: str, pattern: str) -> bool:
    if not text or len(text) > LENGTH_MAX or not re.fullmatch(pattern, text):
        return False
    host, port = split(text)
    try:
        host.encode("idna")  # what is too long in DNS's own spelling raises when it is dialled
    except UnicodeError:
        return False
    return port <= PORT_MAX


def split_url(url: str) -> SplitResult | None:
    """The parts of an HTTP address that names a host; None for anything else."""
    try:
        given = urlsplit(url)
        fits = given.scheme in ("http", "https") and given.hostname and given.port != 0
    except ValueError:
        return None
    return given if fits else None


def ip_of(host: str) -> IpAddress | None:
    """The IP address that the host is, one of IPv4 also in IPv6's spelling of it; None for a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(host: str) -> bool:
    """Whether the host is this machine alone. A name other than "localhost" is taken for an outside one."""
    address = ip_of(host)
    return address.is_loopback if address else host.lower() == "localhost"
