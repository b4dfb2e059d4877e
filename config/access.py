"""Who may reach a node that has no certificates."""

from config.errors import Problem
from config.schema import Settings
from raftnode.foundation.addresses import IpAddress, ip_of, is_loopback


def admits(settings: Settings, peer: str) -> bool:
    """Whether a peer with this IP address is served at all. With certificates TLS decides, so everybody
    is."""
    allowed = settings.security.unsecured_access_allowed
    if settings.secured or allowed == "public_network":
        return True
    address = ip_of(peer)
    if address is None:
        return False
    return address.is_loopback or (allowed == "private_network" and _is_private(address))


def access_problems(settings: Settings) -> list[Problem]:
    """Listening addresses that would let in strangers without certificates."""
    if settings.secured:
        return []
    allowed = settings.security.unsecured_access_allowed
    hosts = {"http.host": settings.http.host, "cluster.host": settings.cluster.host}
    return [
        Problem(
            key,
            host,
            f"without certificates, security.unsecured_access_allowed = {allowed} forbids listening there",
            "Give security.certificate_file, key_file and ca_file, or listen on 127.0.0.1, or, in a"
            " network you trust, set security.unsecured_access_allowed to private_network or public_network",
            involved=(key, "security.unsecured_access_allowed", "security.certificate_file"),
        )
        for key, host in hosts.items()
        if not _may_listen(allowed, host)
    ]


def _may_listen(allowed: str, host: str) -> bool:
    if allowed == "public_network" or is_loopback(host):
        return True
    address = ip_of(host)
    outside = address is not None and not address.is_unspecified and not _is_private(address)
    return allowed == "private_network" and not outside


def _is_private(address: IpAddress) -> bool:
    return address.is_private or address.is_link_local
