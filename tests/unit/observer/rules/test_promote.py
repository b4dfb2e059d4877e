"""Promotion: caught up, good for long enough, and wanted."""

from typing import Any

import pytest
from immutables import Map
from msgspec.structs import replace

from observer.rules.database_view import DatabaseView
from observer.rules.decide import decide
from observer.rules.facts import NS_PER_MS, Facts, NodeFacts
from observer.rules.promote import Readiness, hold_down_ms, readiness_of
from raftnode.record.commands import AddDatabaseNode, ReorderMembers, SetDraining
from raftnode.record.ownership import mentor_of
from tests.unit.observer.build import (
    FOLDED,
    NOW_MS,
    NOW_NS,
    STABLE_MS,
    commit,
    facts,
    group,
    report,
    sentences,
    silent,
    topology_after,
    unwell,
    well,
)
from tests.unit.record.build import RecordCluster

HOUR_MS = 3_600_000
LONG_AGO_MS = 600_000
SAMPLE_MS = NOW_NS // NS_PER_MS - 200


def rehab(*demoted_ago_ms: int) -> RecordCluster:
    """B in Rehab, after demotions that long ago."""
    cluster = group("A", "B", "C", members=("A", "C"), rehabs=("B",))
    times = tuple(NOW_MS - ago for ago in demoted_ago_ms)
    observer = replace(cluster.record.observer, demotions=Map({f"{FOLDED}/B": times}))
    cluster.record = replace(cluster.record, observer=observer)
    return cluster


def around(*nodes: NodeFacts, **fields: Any) -> Facts:
    known = {node.tag: node for node in (well("B"), well("C"), well("D"), well("E"), *nodes)}
    return facts(*known.values(), **fields)


def readiness(cluster: RecordCluster, seen: Facts, tag: str = "B") -> Readiness:
    return readiness_of(DatabaseView(record=cluster.record, database=cluster.database(), facts=seen), tag)


def verdict_on(cluster: RecordCluster, seen: Facts, tag: str = "B") -> tuple[bool, str]:
    answer = readiness(cluster, seen, tag)
    return answer.ready, answer.status


def test_a_rehab_that_is_back_and_has_caught_up_is_a_member_again() -> None:
    cluster = rehab(8000)
    decisions = commit(cluster, around(well("B", good_ms=5_000)))
    topology = cluster.database().topology
    assert (set(topology.members), topology.rehabs) == ({"A", "B", "C"}, ())
    assert not topology.demotion_reasons
    assert not topology.promotables_status
    assert sentences(decisions) == (
        "B was promoted to Member: it has caught up and been healthy for 5000 ms "
        "(required 5000 ms; 1 demotion within the last hour)."
    )
    why = "it has caught up and been healthy for 10000 ms (required 10000 ms; 2 demotions within the last hour)"
    assert readiness(rehab(10_000, 20_000), around(well("B", good_ms=10_000))).why == why


def test_a_promotable_that_has_caught_up_is_a_member_and_its_mentor_is_forgotten() -> None:
    cluster = group("A", "B", "C")
    cluster.do(ReorderMembers(name="Northwind", members=("C", "B", "A"), fixed=True))
    cluster.do(AddDatabaseNode(name="Northwind", tag="D", mentor="C"))
    topology = topology_after(cluster, around())
    assert topology.members == ("C", "B", "A", "D")
    assert topology.priority_order == ("C", "B", "A")
    assert not topology.predefined_mentors


def test_one_node_is_promoted_an_iteration_and_promotables_come_first() -> None:
    cluster = rehab()
    cluster.do(AddDatabaseNode(name="Northwind", tag="D"))
    assert set(topology_after(cluster, around()).members) == {"A", "C", "D"}
    assert set(topology_after(cluster, around()).members) == {"A", "B", "C", "D"}


@pytest.mark.parametrize(
    ("demoted_ago_ms", "wait_ms"),
    [
        ((), STABLE_MS),
        ((LONG_AGO_MS,), STABLE_MS),
        ((LONG_AGO_MS + 1, LONG_AGO_MS), 2 * STABLE_MS),
        ((LONG_AGO_MS + 2, LONG_AGO_MS + 1, LONG_AGO_MS), 4 * STABLE_MS),
        ((HOUR_MS, LONG_AGO_MS), STABLE_MS),
        ((HOUR_MS - 1, LONG_AGO_MS), 2 * STABLE_MS),
        (tuple(range(LONG_AGO_MS + 16, LONG_AGO_MS, -1)), LONG_AGO_MS),
    ],
)
def test_each_demotion_of_the_last_hour_doubles_the_wait(demoted_ago_ms: tuple[int, ...], wait_ms: int) -> None:
    cluster = rehab(*demoted_ago_ms)
    view = DatabaseView(record=cluster.record, database=cluster.database(), facts=around())
    assert hold_down_ms(view, "B")[0] == wait_ms
    assert verdict_on(cluster, around(well("B", good_ms=wait_ms - 1))) == (False, "Ok")
    assert verdict_on(cluster, around(well("B", good_ms=wait_ms))) == (True, "Ok")


def test_a_node_that_was_well_all_the_time_waits_from_its_demotion_on() -> None:
    assert verdict_on(rehab(0), around()) == (False, "Ok")
    assert verdict_on(rehab(STABLE_MS - 1), around()) == (False, "Ok")
    assert verdict_on(rehab(STABLE_MS), around()) == (True, "Ok")
    assert verdict_on(rehab(LONG_AGO_MS, 2 * STABLE_MS - 1), around()) == (False, "Ok")
    assert verdict_on(rehab(LONG_AGO_MS, 2 * STABLE_MS), around()) == (True, "Ok")


def test_a_wall_clock_that_was_set_back_keeps_nobody_from_being_promoted() -> None:
    assert verdict_on(rehab(-1), around()) == (True, "Ok")


def test_a_node_that_is_not_known_to_be_good_waits() -> None:
    assert verdict_on(rehab(), around(well("B", copies={}))) == (False, "WaitingForResponse")


@pytest.mark.parametrize(
    ("node", "status"),
    [
        (silent("B"), "NotResponding"),
        (unwell("B", for_ms=10), "WaitingForResponse"),
        (unwell("B", for_ms=10_000), "NotResponding"),
        (well("B", fresh=False), "WaitingForResponse"),
        (well("B", current={}), "WaitingForResponse"),
    ],
)
def test_a_node_that_is_not_well_is_not_promoted(node: NodeFacts, status: str) -> None:
    assert verdict_on(rehab(), around(node)) == (False, status)
    assert verdict_on(rehab(), facts(nodes={})) == (False, "WaitingForResponse")


def test_a_drained_node_is_not_promoted() -> None:
    cluster = rehab()
    cluster.do(SetDraining(tag="B", draining=True))
    assert verdict_on(cluster, around()) == (False, "Ok")


def test_nobody_is_promoted_beyond_the_replication_factor() -> None:
    cluster = group("A", "B", "C", rehabs=("D",))
    assert verdict_on(cluster, around(), "D") == (False, "Ok")


def test_a_node_that_goes_is_passed_over_and_the_next_one_promoted() -> None:
    cluster = group("A", "B", "C", members=("A", "C"), rehabs=("B", "D"))
    database = replace(cluster.database(), deletion_in_progress=Map({"B": "HardDelete"}))
    cluster.record = replace(cluster.record, databases=cluster.record.databases.set(FOLDED, database))
    assert set(topology_after(cluster, around()).members) == {"A", "C", "D"}


def test_a_rehab_takes_its_fixed_place_among_the_members_again() -> None:
    cluster = group("A", "B", "C")
    cluster.do(ReorderMembers(name="Northwind", members=("C", "B", "A"), fixed=True))
    assert topology_after(cluster, around(silent("B"))).members == ("C", "A")
    topology = topology_after(cluster, around(now_ms=NOW_MS + STABLE_MS))
    assert (topology.members, topology.priority_order) == (("C", "B", "A"), ("C", "B", "A"))


OF_MENTOR: list[tuple[str, dict[str, Any], str, str]] = [
    ("is not fresh", {"fresh": False}, "WaitingForResponse", "has not reported twice on the database"),
    ("has no copy", {"current": {}}, "WaitingForResponse", "has not reported twice on the database"),
    ("reported once", {"previous": {}}, "WaitingForResponse", "has not reported twice on the database"),
    ("sampled before", {"previous_ns": 0}, "WaitingForResponse", "has not reported twice since B reported its copy"),
    ("is new", {"copies": {}}, "WaitingForResponse", "has not reported twice since it became a Member"),
]


@pytest.mark.parametrize(("name", "fields", "status", "why"), OF_MENTOR, ids=[row[0] for row in OF_MENTOR])
def test_what_is_missing_of_the_mentor_is_said(name: str, fields: dict[str, Any], status: Any, why: str) -> None:
    cluster = rehab()
    mentor, _ = mentor_and_others(cluster)
    seen = around(well("B", good_ms=STABLE_MS), well(mentor, **fields))
    assert readiness(cluster, seen) == Readiness(False, status, f"mentor {mentor} {why}")


def test_what_is_missing_of_the_mentors_copy_is_said() -> None:
    cluster = rehab()
    mentor, _ = mentor_and_others(cluster)
    unloaded = around(well(mentor, current={FOLDED: report(status="Unloaded")}))
    why = f"the database is not loaded on mentor {mentor}"
    assert readiness(cluster, unloaded) == Readiness(False, "WaitingForResponse", why)
    ahead = around(well(mentor, current={FOLDED: report(sent={"B": 9})}))
    why = f"B has not received all that mentor {mentor} has"
    assert readiness(cluster, ahead) == Readiness(False, "ChangeVectorNotMerged", why)
    leaderless = group(members=(), rehabs=("B",))
    why = "no Member can be the mentor of B"
    assert readiness(leaderless, around()) == Readiness(False, "WaitingForResponse", why)


OF_NODE: list[tuple[NodeFacts, str, str]] = [
    (silent("B"), "NotResponding", "B has not been heard for 800 ms (limit 750 ms)"),
    (well("B", fresh=False), "WaitingForResponse", "B has not reported on the database"),
    (well("B", current={}), "WaitingForResponse", "B has not reported on the database"),
    (unwell("B", for_ms=10), "WaitingForResponse", "the database is Faulted on B"),
    (well("B", copies={}), "WaitingForResponse", "B has not reported on the database since it joined the group"),
    (
        well("B", flags=("HighDirtyMemory", "EarlyOutOfMemory")),
        "EarlyOutOfMemory",
        "B is short of a resource: EarlyOutOfMemory, HighDirtyMemory",
    ),
]


@pytest.mark.parametrize(("node", "status", "why"), OF_NODE, ids=[row[2] for row in OF_NODE])
def test_what_is_missing_of_the_node_is_said(node: NodeFacts, status: Any, why: str) -> None:
    assert readiness(rehab(), around(node)) == Readiness(False, status, why)


def test_why_a_node_that_is_well_is_not_promoted_is_said() -> None:
    drained = rehab()
    drained.do(SetDraining(tag="B", draining=True))
    assert readiness(drained, around()) == Readiness(False, "Ok", "B is drained")
    full = group("A", "B", "C", rehabs=("D",))
    assert readiness(full, around(), "D") == Readiness(False, "Ok", "the database has its 3 Members already")
    soon = around(well("B", good_ms=STABLE_MS - 300))
    why = "B has caught up and must stay healthy for 5000 ms"
    assert readiness(rehab(), soon) == Readiness(False, "Ok", why, 300)
    again = f"{why}; 1 demotion within the last hour"
    assert readiness(rehab(LONG_AGO_MS), soon) == Readiness(False, "Ok", again, 300)
    why = "it has caught up and been healthy for 5000 ms (required 5000 ms)"
    assert readiness(rehab(), around(well("B", good_ms=STABLE_MS))) == Readiness(True, "Ok", why)


def mentor_and_others(cluster: RecordCluster) -> tuple[str, str]:
    mentor = mentor_of(cluster.record, cluster.database(), "B")
    assert mentor in ("A", "C")
    return mentor, "C" if mentor == "A" else "A"


@pytest.mark.parametrize(
    ("sent", "before", "ready"),
    [({"B": 10}, 10, True), ({"B": 10}, 11, False), ({"B": 12}, 11, True), ({}, 0, False), ({"B": 0}, 0, True)],
)
def test_what_the_mentor_had_one_sample_ago_must_have_arrived(sent: dict[str, int], before: int, ready: bool) -> None:
    cluster = rehab()
    mentor, _ = mentor_and_others(cluster)
    now, ago = report(sent=sent, last_etag=99), report(last_etag=before)
    seen = around(well(mentor, current={FOLDED: now}, previous={FOLDED: ago}))
    assert verdict_on(cluster, seen) == ((True, "Ok") if ready else (False, "ChangeVectorNotMerged"))


def test_how_far_an_earlier_copy_had_been_filled_promotes_nobody() -> None:
    cluster = rehab()
    mentor, _ = mentor_and_others(cluster)
    before_it_was_here = well(mentor, previous_ns=NOW_NS - 6000 * NS_PER_MS)
    assert verdict_on(cluster, around(well("B", good_ms=5000), before_it_was_here)) == (False, "WaitingForResponse")
    assert verdict_on(cluster, around(well("B", good_ms=6000), before_it_was_here)) == (True, "Ok")


@pytest.mark.parametrize("member_since_ms", [None, SAMPLE_MS + 1])
def test_what_a_mentor_had_before_it_was_a_member_promotes_nobody(member_since_ms: int | None) -> None:
    cluster = rehab()
    mentor, _ = mentor_and_others(cluster)
    since_ns = None if member_since_ms is None else member_since_ms * NS_PER_MS
    both = well(mentor, previous_ns=SAMPLE_MS * NS_PER_MS)
    state = both.copies[FOLDED]
    new = replace(both, copies={FOLDED: replace(state, member_since_ns=since_ns)})
    assert verdict_on(cluster, around(well("B", good_ms=STABLE_MS), new)) == (False, "WaitingForResponse")
    old = replace(both, copies={FOLDED: replace(state, member_since_ns=SAMPLE_MS * NS_PER_MS)})
    assert verdict_on(cluster, around(well("B", good_ms=STABLE_MS), old)) == (True, "Ok")
    assert verdict_on(cluster, around(well("B", good_ms=STABLE_MS), replace(both, copies={}))) == (
        False,
        "WaitingForResponse",
    )


def test_another_member_that_lags_does_not_matter() -> None:
    cluster = rehab()
    _, other = mentor_and_others(cluster)
    assert verdict_on(cluster, around(well(other, current={FOLDED: report(sent={})}))) == (True, "Ok")


@pytest.mark.parametrize(
    "fields",
    [
        {"fresh": False},
        {"current": {}},
        {"previous": {}},
        {"current": {FOLDED: report(status="Unloaded")}},
        {"previous": {FOLDED: report(status="Loading")}},
    ],
)
def test_a_mentor_that_cannot_vouch_for_it_promotes_nobody(fields: dict[str, Any]) -> None:
    cluster = rehab()
    mentor, _ = mentor_and_others(cluster)
    assert verdict_on(cluster, around(well(mentor, **fields))) == (False, "WaitingForResponse")


def test_without_a_mentor_nobody_is_promoted() -> None:
    cluster = group(members=(), rehabs=("B",))
    assert verdict_on(cluster, around()) == (False, "WaitingForResponse")
    unheard = rehab()
    mentor, _ = mentor_and_others(unheard)
    seen = around()
    without = replace(seen, nodes={tag: node for tag, node in seen.nodes.items() if tag != mentor})
    assert verdict_on(unheard, without) == (False, "WaitingForResponse")


def test_a_node_that_comes_and_goes_waits_longer_each_time() -> None:
    cluster = group("A", "B", "C")
    waits, now_ms = [], NOW_MS
    for _ in range(4):
        commit(cluster, around(silent("B"), now_ms=now_ms))
        assert cluster.database().topology.rehabs == ("B",)
        view = DatabaseView(record=cluster.record, database=cluster.database(), facts=around(now_ms=now_ms))
        waits.append(hold_down_ms(view, "B")[0])
        now_ms += waits[-1]
        assert not decide(cluster.record, around(well("B", good_ms=waits[-1] - 1), now_ms=now_ms)).topologies
        commit(cluster, around(well("B", good_ms=waits[-1]), now_ms=now_ms))
        assert "B" in cluster.database().topology.members
    assert waits == [STABLE_MS, 2 * STABLE_MS, 4 * STABLE_MS, 8 * STABLE_MS]
