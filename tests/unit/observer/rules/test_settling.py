"""What has to be so for a database to be settled, one condition at a time, and for it to stay so."""

from typing import Any

import pytest
from msgspec.structs import replace

from observer.rules.facts import CopyState, Facts, NodeFacts
from observer.rules.settled import NOTHING_SETTLED, Settled, all_settled, calm, is_settled, settled_after
from raftnode.record.commands import SetDraining, SetNodeFlags, SuspendObserver
from tests.unit.observer.build import FOLDED, LIMITS, NOW_MS, NOW_NS, R_MS, STABLE_MS, facts, group, report
from tests.unit.record.build import RecordCluster

REPORT = report()
"""That each node gives of its copy, one and the same."""


def node(tag: str, **fields: Any) -> NodeFacts:
    """A node that is well, and whose copy is in both samples."""
    defaults: dict[str, Any] = {
        "silent": False,
        "fresh": True,
        "heard_ns": NOW_NS,
        "current": {FOLDED: REPORT},
        "previous": {FOLDED: REPORT},
        "copies": {FOLDED: CopyState(True, 0)},
    }
    return NodeFacts(tag=tag, **(defaults | fields))


def seen(*changed: NodeFacts, **fields: Any) -> Facts:
    """All nodes, well unless they are given."""
    return facts(*({tag: node(tag) for tag in "ABCDE"} | {each.tag: each for each in changed}).values(), **fields)


def kept(cluster: RecordCluster, now: Facts) -> bool:
    """Whether the database settles."""
    return FOLDED in settled_after(cluster.record, now, (), NOTHING_SETTLED).databases


ROTATE_NS = LIMITS.rotate_ms * 1_000_000


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (seen(), True),
        (seen(void_allowed=False), False),
        (seen(node("F")), False),
        (replace(seen(), nodes={tag: node(tag) for tag in "ABCD"}), False),
        (seen(node("B", heard_ns=NOW_NS - ROTATE_NS + 1)), True),
        (seen(node("B", heard_ns=NOW_NS - ROTATE_NS)), False),
        (seen(node("E", fresh=False)), False),
        (seen(node("E", flags=("HighDirtyMemory",))), False),
    ],
)
def test_a_cluster_is_calm_while_every_node_is_known_heard_and_short_of_nothing(now: Facts, expected: bool) -> None:
    assert calm(group().record, now) is expected
    assert kept(group(), now) is expected


def test_a_cluster_whose_observer_is_suspended_or_with_a_node_that_drains_or_has_a_flag_is_not_calm() -> None:
    for command in (
        SuspendObserver(suspended=True),
        SetDraining(tag="E", draining=True),
        SetNodeFlags(tag="E", flags=("HighDirtyMemory",)),
    ):
        cluster = group()
        cluster.do(command)
        assert calm(cluster.record, seen()) is False, command


LOADING, UNLOADED = report(status="Loading"), report(status="Unloaded")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"current": {FOLDED: UNLOADED}, "previous": {FOLDED: UNLOADED}}, True),
        ({"current": {FOLDED: LOADING}, "previous": {FOLDED: LOADING}}, False),
        ({"previous": {FOLDED: UNLOADED}}, False),
        ({"previous": {}}, False),
        ({"current": {}, "previous": {}}, False),
        ({"copies": {FOLDED: CopyState(False, 0)}}, False),
        ({"copies": {}}, False),
    ],
)
@pytest.mark.parametrize("tag", ["A", "C"])
def test_a_database_settles_once_both_samples_of_each_members_copy_are_one_and_it_is_well(
    changed: dict[str, Any], expected: bool, tag: str
) -> None:
    assert kept(group(), seen(node(tag, **changed))) is expected
    assert kept(group(), seen(node("D", **changed))) is True, "D is no Member"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"members": ("A", "B"), "rehabs": ("C",)}, False),
        ({"members": ("A", "B"), "replication_factor": 2, "rehabs": ("C",)}, False),
        ({"promotables": ("D",)}, False),
        ({"members": ("A", "B")}, False),
        ({"replication_factor": 2}, False),
        ({"members": ("A", "B", "Z")}, False),
        ({"members": (), "rehabs": (), "replication_factor": 3}, True),
    ],
)
def test_a_database_settles_while_it_waits_for_no_node(fields: dict[str, Any], expected: bool) -> None:
    assert kept(group(**fields), seen()) is expected


def test_a_database_with_a_reason_a_status_or_a_deletion_that_is_left_does_not_settle() -> None:
    topology = group().database().topology
    for field in ("demotion_reasons", "promotables_status"):
        left = getattr(topology, field).set("D", "NotResponding")
        assert kept(group(**{field: left}), seen()) is False, field
    cluster = group()
    deleted = replace(cluster.database(), deletion_in_progress=cluster.database().deletion_in_progress.set("D", "Soft"))
    cluster.record = replace(cluster.record, databases=cluster.record.databases.set(FOLDED, deleted))
    assert kept(cluster, seen()) is False


@pytest.mark.parametrize(("silence_ms", "stabilization_ms"), [(R_MS, STABLE_MS), (STABLE_MS, R_MS)])
def test_a_topology_is_young_for_as_long_as_a_node_may_take_to_be_silent_or_to_be_good(
    silence_ms: int, stabilization_ms: int
) -> None:
    """Until then time alone may give a rule something to do."""
    limits = replace(LIMITS, stabilization_ms=stabilization_ms)
    for age_ms, expected in ((STABLE_MS - 1, False), (STABLE_MS, True)):
        stamp = replace(group().database().topology.stamp, leader_wall_ms=NOW_MS - age_ms)
        assert kept(group(stamp=stamp), seen(silence_ms=silence_ms, limits=limits)) is expected


def test_a_database_with_a_decision_or_an_alert_is_looked_at_again() -> None:
    record = group().record
    assert settled_after(record, seen(), ["Northwind"], NOTHING_SETTLED) == Settled(
        nodes=record.nodes, claims=record.claims
    )
    assert set(settled_after(record, seen(), ["Other"], NOTHING_SETTLED).databases) == {FOLDED}


EARLIER = report(last_etag=9)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"current": {FOLDED: EARLIER}}, False),
        ({"previous": {FOLDED: EARLIER}}, False),
        ({"copies": {FOLDED: CopyState(False, 0)}}, False),
        ({"copies": {}}, False),
    ],
)
def test_a_database_stays_settled_while_its_members_copies_are_as_they_were(
    changed: dict[str, Any], expected: bool
) -> None:
    record = group().record
    settled = settled_after(record, seen(), (), NOTHING_SETTLED)
    for tag in "AC":
        assert is_settled(settled, seen(node(tag, **changed)), FOLDED, record.databases[FOLDED]) is expected
    assert is_settled(settled, seen(node("D", **changed)), FOLDED, record.databases[FOLDED]) is True


def test_a_database_that_was_not_settled_or_has_changed_is_not() -> None:
    record = group().record
    settled = settled_after(record, seen(), (), NOTHING_SETTLED)
    database = record.databases[FOLDED]
    assert is_settled(NOTHING_SETTLED, seen(), FOLDED, database) is False
    assert is_settled(settled, seen(), "other", database) is False
    assert is_settled(settled, seen(), FOLDED, replace(database)) is False


def test_all_are_settled_only_while_everything_that_was_read_is_the_same() -> None:
    record, now = group().record, seen()
    settled = settled_after(record, now, (), NOTHING_SETTLED)
    assert all_settled(settled, record, now) is True
    assert all_settled(NOTHING_SETTLED, record, now) is False
    assert all_settled(settled, replace(record, databases=record.databases.delete(FOLDED)), now) is False
    for field in ("current", "previous", "copies"):
        for tag in "AE":
            other = replace(now.nodes[tag], **{field: dict(getattr(now.nodes[tag], field))})
            assert all_settled(settled, record, replace(now, nodes={**now.nodes, tag: other})) is False, field
    turned = dict(reversed(list(now.nodes.items())))
    assert all_settled(settled, record, replace(now, nodes=turned)) is True, "whichever node comes first"
    assert settled_after(record, now, ["Northwind"], NOTHING_SETTLED).read is None, "one is not settled"


def test_new_claims_are_looked_at_once() -> None:
    cluster = group()
    cluster.task("t")
    now = seen()
    before = settled_after(cluster.record, now, (), NOTHING_SETTLED)
    holder = cluster.placed("t").node
    assert holder is not None
    cluster.do(cluster.claim(holder, "t"))
    after = settled_after(cluster.record, now, (), before)
    assert after.claims is cluster.record.claims
    assert settled_after(cluster.record, now, (), after) is after
