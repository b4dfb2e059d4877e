"""The rules that bind settings to each other."""

from collections import Counter
from pathlib import Path

from config.access import access_problems
from config.errors import Problem
from config.schema import Settings
from config.timings import timing_problems
from raftnode.foundation.addresses import host_of, is_loopback

TLS_FILES = ("certificate_file", "key_file", "ca_file")


def problems(settings: Settings) -> list[Problem]:
    """Everything that is wrong with settings whose values are each in range."""
    return [
        *timing_problems(settings.cluster),
        *_certificates(settings),
        *access_problems(settings),
        *_initial_nodes(settings),
        *_addresses(settings),
        *_backoff(settings),
    ]


def _certificates(settings: Settings) -> list[Problem]:
    given = {name: getattr(settings.security, name) for name in TLS_FILES}
    if not any(given.values()):
        return []
    found = []
    for name, file in given.items():
        if not file:
            rule = "certificate_file, key_file and ca_file are given together or not at all"
            found.append(_problem(f"security.{name}", "(empty)", rule, "Give all three, or none"))
        elif not Path(file).is_file():
            remedy = "Give the path of a PEM file that the node may read"
            found.append(_problem(f"security.{name}", file, "there is no such file", remedy))
    return found


def _initial_nodes(settings: Settings) -> list[Problem]:
    nodes, key = settings.cluster.initial_nodes, "cluster.initial_nodes"
    found = [
        _problem(key, value, f"two nodes have the same {name}", "Give each node its own")
        for name in ("tag", "url", "cluster_address")
        for value, count in Counter(getattr(node, name) for node in nodes).items()
        if count > 1
    ]
    if nodes and not settings.initial_node:
        rule = f"this node's tag ({settings.node.tag}) is not in the list"
        remedy = "Set node.tag to one of the list's, add the node, or leave the list empty and use --join"
        listed = ", ".join(node.tag for node in nodes)
        found.append(_problem(key, listed, rule, remedy, "node.tag"))
    return found


def _addresses(settings: Settings) -> list[Problem]:
    """Others must be able to dial what this node calls itself, and it must call itself one thing only."""
    wanted = "https://" if settings.secured else "http://"
    found = []
    if not settings.url.startswith(wanted):
        have = "with" if settings.secured else "without"
        rule = f"{have} certificates the address begins with {wanted}"
        found.append(_problem("node.url", settings.url, rule, "Fix the address, or the security section"))
    own = settings.initial_node
    for key, given, listed, host, address in (
        ("node.url", settings.node.url, own.url if own else "", settings.http.host, settings.url),
        (
            "cluster.public_address",
            settings.cluster.public_address,
            own.cluster_address if own else "",
            settings.cluster.host,
            settings.cluster_address,
        ),
    ):
        if given and listed and given != listed:
            rule = f"cluster.initial_nodes says {listed} for this node"
            found.append(_problem(key, given, rule, "Give the same address in both, or leave this one out"))
        if not given and not listed and host in ("0.0.0.0", "::"):
            rule = f"a node that listens on every address ({host}) must say at which one others reach it"
            found.append(_problem(key, "(empty)", rule, "Give the address that the other nodes dial"))
        if _others_cannot_dial(settings, address):
            rule = "other nodes cannot reach this node at a loopback address while they live elsewhere"
            found.append(_problem(key, address, rule, "Give the address that the other nodes dial"))
    return found


def _others_cannot_dial(settings: Settings, address: str) -> bool:
    others = [n for n in settings.cluster.initial_nodes if n.tag != settings.node.tag]
    elsewhere = any(not is_loopback(host_of(n.cluster_address)) for n in others)
    return elsewhere and is_loopback(host_of(address))


def _backoff(settings: Settings) -> list[Problem]:
    lowest, highest = settings.tasks.backoff_min_ms, settings.tasks.backoff_max_ms
    if lowest <= highest:
        return []
    rule = f"the longest wait is not shorter than the first: backoff_max_ms >= backoff_min_ms ({lowest})"
    remedy = f"Raise it to {lowest} or more"
    return [_problem("tasks.backoff_max_ms", str(highest), rule, remedy, "tasks.backoff_min_ms")]


def _problem(key: str, value: str, rule: str, remedy: str, *others: str) -> Problem:
    return Problem(key, value, rule, remedy, involved=(key, *others))
