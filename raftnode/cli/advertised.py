"""What a node that joins calls itself: an address that is good on this machine only is of no use to others."""

import socket
from urllib.parse import urlsplit

from config import Settings
from raftnode.foundation.addresses import host_of, is_loopback, split_url
from raftnode.foundation.masking import in_text


def unreachable(settings: Settings, join: str) -> str | None:
    """Why the cluster at `join` could not reach this node, with the remedy; None if it may. Looks the host up."""
    given = split_url(join)
    host = given.hostname if given is not None else None
    if host is None:
        return None  # that is no address at all: the node says so
    if is_loopback(host) or _is_here(host):
        return None
    own = _own(settings)
    bad = {key: address for key, (address, named) in own.items() if is_loopback(named or "")}
    if not bad:
        return None
    flags = " ".join(f"--{key} ADDRESS" for key in bad)
    trust = (
        "" if settings.secured else " and, in a network you trust, --security.unsecured-access-allowed private_network"
    )
    return (
        f"This node would call itself {' and '.join(bad.values())}, where the cluster at {in_text(join)}, on another "
        f"machine, cannot reach it. Give this machine's address in that network: {flags}{trust}; README.md "
        "has a whole example."
    )


def unknown(settings: Settings) -> str | None:
    """A warning if this node would call itself by a name that this machine cannot look up; None if it knows all. Others
    may know it all the same, as in a network that names a container only once that runs."""
    bad = [address for address, named in _own(settings).values() if named and not _may_be_looked_up(named)]
    if not bad:
        return None
    return (
        f"This node calls itself {' and '.join(bad)}, a name that this machine cannot look up. If the other nodes "
        "cannot either, they never reach this one: correct node.url and cluster.public_address."
    )


def _own(settings: Settings) -> dict[str, tuple[str, str | None]]:
    """What the node calls itself, and the host in that, by the setting that it comes from."""
    address = settings.cluster_address
    return {
        "http.host": (settings.url, urlsplit(settings.url).hostname),
        "cluster.host": (address, host_of(address)),
    }


def _may_be_looked_up(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        return False


def _is_here(host: str) -> bool:
    """Whether it is an address of this machine. A name that cannot be looked up is not."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_binds(family, address) for family, _, _, _, address in found)


def _binds(family: int, address: tuple[object, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address[0], 0, *address[2:]))
    except OSError:
        return False
    return True
