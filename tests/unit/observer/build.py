"""Facts for tests of the rules: a cluster that is well, and what a test changes about it."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from observer.rules.decide import IterationDecisions, decide
from observer.rules.facts import NS_PER_MS, ClaimHolder, CopyState, DatabaseReport, Facts, NodeFacts, ObserverLimits
from raftnode.record.commands import Decide
from raftnode.record.model import Topology
from tests.unit.record.build import NONCE, RecordCluster

NOW_MS = 10_000_000
NOW_NS = 1_000_000 * NS_PER_MS
R_MS = 750
STABLE_MS = 5_000
LIMITS = ObserverLimits(stabilization_ms=STABLE_MS, rotate_ms=5_000, replace_ms=900_000, distance_max=1_000)
FOLDED = "northwind"


def report(**fields: Any) -> DatabaseReport:
    """A loaded copy at etag 10 that has sent everything to everybody."""
    defaults: dict[str, Any] = {"status": "Loaded", "last_etag": 10, "sent": dict.fromkeys("ABCDE", 10)}
    return DatabaseReport(**(defaults | fields))


def well(tag: str, *, good_ms: int = 3_600_000, **fields: Any) -> NodeFacts:
    """A node that has been well, and its copy with it, for that long."""
    defaults: dict[str, Any] = {
        "silent": False,
        "fresh": True,
        "heard_ns": NOW_NS - 20 * NS_PER_MS,
        "current": {FOLDED: report()},
        "previous": {FOLDED: report()},
        "previous_ns": NOW_NS,
        "copies": {FOLDED: CopyState(True, NOW_NS - good_ms * NS_PER_MS)},
    }
    return NodeFacts(tag=tag, **(defaults | fields))


def silent(tag: str, *, heard_ms: int = 800, **fields: Any) -> NodeFacts:
    """A node whose lease has certainly ended."""
    heard_ns = NOW_NS - heard_ms * NS_PER_MS
    return well(tag, silent=True, fresh=False, heard_ns=heard_ns, copies={}, **fields)


def unwell(tag: str, *, for_ms: int, **fields: Any) -> NodeFacts:
    """A node that is heard, whose copy has not been well for that long."""
    broken = report(**({"status": "Faulted"} | fields))
    state = CopyState(False, NOW_NS - for_ms * NS_PER_MS)
    return well(tag, current={FOLDED: broken}, previous={FOLDED: broken}, copies={FOLDED: state})


def facts(*nodes: NodeFacts, **fields: Any) -> Facts:
    """A is the leader and well unless said otherwise; the processes of silent nodes are over."""
    known: Mapping[str, NodeFacts] = {"A": well("A")} | {node.tag: node for node in nodes}
    defaults: dict[str, Any] = {
        "leader": "A",
        "term": 1,
        "now_ns": NOW_NS,
        "now_ms": NOW_MS,
        "void_allowed": True,
        "silence_ms": R_MS,
        "limits": LIMITS,
        "nodes": known,
        "over": frozenset(ClaimHolder(node.tag, 1, NONCE) for node in known.values() if node.silent),
    }
    return Facts(**(defaults | fields))


def group(*nodes: str, **fields: Any) -> RecordCluster:
    """A cluster A to E with Northwind in this topology."""
    cluster = RecordCluster("A", "B", "C", "D", "E")
    cluster.create(*(nodes or ("A", "B", "C")))
    if fields:
        topology = replace(cluster.database().topology, **fields)
        databases = cluster.record.databases.set(FOLDED, replace(cluster.database(), topology=topology))
        cluster.record = replace(cluster.record, databases=databases)
    return cluster


def commit(cluster: RecordCluster, seen: Facts) -> IterationDecisions:
    """Decides, and applies what was decided."""
    decisions = decide(cluster.record, seen)
    cluster.do(
        Decide(
            term=cluster.term,
            iteration=1,
            at="now",
            at_ms=seen.now_ms,
            topologies=decisions.topologies,
            voids=decisions.voids,
            graces=decisions.graces,
            decisions=tuple((sentence.database, sentence.message) for sentence in decisions.sentences),
        )
    )
    return decisions


def topology_after(cluster: RecordCluster, seen: Facts) -> Topology:
    """The topology that one iteration leads to."""
    commit(cluster, seen)
    return cluster.database().topology


def sentences(decisions: IterationDecisions) -> str:
    """All that was said."""
    return "\n".join(sentence.message for sentence in decisions.sentences)
