"""Lag: a Member too far behind another one, in both samples, moves to Rehab."""

from typing import Any

import pytest
from msgspec.structs import replace

from observer.rules.decide import decide
from observer.rules.facts import DatabaseReport, Facts, NodeFacts
from raftnode.record.model import TopologyStamp
from tests.unit.observer.build import FOLDED, LIMITS, NOW_MS, R_MS, commit, facts, group, report, sentences, well

ONE = replace(LIMITS, distance_max=1)


def ahead(tag: str, own: int, **sent: int) -> DatabaseReport:
    """The node's copy with so many changes made there."""
    return report(last_etag=own, vector={tag: own} if own else {}, sent=sent)


def node(tag: str, own: int, before: int | None = None, **sent: int) -> NodeFacts:
    now, ago = ahead(tag, own, **sent), ahead(tag, own if before is None else before, **sent)
    return well(tag, current={FOLDED: now}, previous={FOLDED: ago})


def apart(*nodes: NodeFacts, **fields: Any) -> Facts:
    return facts(*nodes, limits=ONE, **fields)


B, C = node("B", 0, A=0, C=0), node("C", 0, A=0, B=0)


def test_members_that_lack_too_much_in_both_samples_move_to_rehab() -> None:
    cluster = group()
    decisions = commit(cluster, apart(node("A", 2, B=0, C=0), B, C))
    topology = cluster.database().topology
    assert (topology.members, topology.rehabs) == (("A",), ("B", "C"))
    assert dict(topology.promotables_status) == dict.fromkeys("BC", "ChangeVectorNotMerged")
    assert sentences(decisions) == (
        "B, C were moved to Rehab: B is 2 changes behind A (limit 1); C is 2 changes behind A (limit 1)."
    )


@pytest.mark.parametrize(
    "a",
    [
        node("A", 1, B=0, C=0),
        node("A", 2, before=1, B=0, C=0),
        node("A", 1, before=2, B=0, C=0),
        node("A", 2, B=1, C=1),
        node("A", 2),
        well("A", current={FOLDED: report(last_etag=2, sent={"B": 0, "C": 0})}),
    ],
    ids=["not too far", "only now", "only before", "sent", "no sender yet", "they have it from elsewhere"],
)
def test_otherwise_they_stay(a: NodeFacts) -> None:
    assert not decide(group().record, apart(a, B, C)).topologies


@pytest.mark.parametrize(
    ("has", "got", "lacks"),
    [
        ({"x": 2}, {}, 2),
        ({"x": 2}, {"x": 1}, 1),
        ({"x": 2, "y": 1}, {"y": 5}, 2),
        ({"x": 1, "y": 1}, {"y": 1}, 1),
        ({"x": 2, "y": 3}, {"x": 1, "y": 1}, 3),
    ],
)
def test_a_member_lacks_what_the_other_counts_and_it_does_not(
    has: dict[str, int], got: dict[str, int], lacks: int
) -> None:
    """More of one database id does not make up for less of another."""
    mine, theirs = report(last_etag=99, vector=has, sent={"B": 0}, documents=1), report(vector=got, sent={})
    a, b = (well(tag, current={FOLDED: r}, previous={FOLDED: r}) for tag, r in (("A", mine), ("B", theirs)))
    decisions = decide(group("A", "B").record, facts(a, b, limits=replace(LIMITS, distance_max=0)))
    why = f"B was moved to Rehab: B is {lacks} changes behind A (limit 0)."
    assert [sentence.message for sentence in decisions.sentences] == [why]


def test_whom_nobody_sends_to_yet_is_behind_nobody() -> None:
    none = replace(LIMITS, distance_max=0)
    assert not decide(group().record, facts(node("A", 2), B, C, limits=none)).topologies


def test_of_members_that_all_lack_something_the_foremost_stays() -> None:
    cluster = group()
    commit(cluster, apart(node("A", 5, B=0, C=0), node("B", 3, A=0, C=0), C))
    topology = cluster.database().topology
    assert len(topology.members) == 1
    assert topology.members[0] in ("A", "B")


def test_nothing_is_judged_before_the_leader_and_the_topology_have_stood_for_a_while() -> None:
    a = node("A", 2, B=0, C=0)
    assert not decide(group().record, apart(a, B, C, void_allowed=False)).topologies
    for young_ms in (0, R_MS - 1):
        young = group(stamp=TopologyStamp(leader_wall_ms=NOW_MS - young_ms))
        assert not decide(young.record, apart(a, B, C)).topologies
    old = group(stamp=TopologyStamp(leader_wall_ms=NOW_MS - R_MS))
    assert decide(old.record, apart(a, B, C)).topologies


@pytest.mark.parametrize(
    "fields", [{"fresh": False}, {"previous": {}}, {"current": {FOLDED: report(status="Unloaded")}}]
)
def test_nothing_is_judged_by_reports_that_are_old_or_missing(fields: dict[str, Any]) -> None:
    a = node("A", 2, B=0)
    unknown = replace(node("B", 0), **fields)
    assert not decide(group("A", "B").record, apart(a, unknown)).topologies
