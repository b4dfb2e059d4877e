"""Commands about the cluster's nodes."""

from typing import Any

import pytest
from immutables import Map
from msgspec.structs import replace

from raftnode.record.commands import (
    AddNode,
    AnnounceNode,
    Changes,
    Command,
    DeleteDatabase,
    FormCluster,
    RemoveNode,
    SetDraining,
    SetNodeFlags,
    SetNodeKind,
    SetNodeTraits,
    SuspendObserver,
)
from raftnode.record.model import NODES_MAX, Record, TopologyStamp
from tests.unit.record.build import TIMINGS, RecordCluster, node


def test_a_cluster_is_formed_once() -> None:
    cluster = RecordCluster("A", "B")
    again = FormCluster(cluster_id="other", nodes=(node("C"),), timings=TIMINGS)
    assert cluster.do(again) == "c1"
    assert set(cluster.record.nodes) == {"A", "B"}
    assert cluster.record.timings == TIMINGS


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ((), "A cluster needs at least one voter among its first nodes."),
        ((node("A", kind="Watcher"),), "at least one voter"),
        ((node("A"), node("A", url="http://other", cluster_address="other")), "is taken"),
        ((node("a"),), "one to four capital letters"),
        ((node("A", weight=0),), "Weight 0"),
        ((node("A", weight=10**12),), "Weight"),
        ((node("A", labels=(" ",)),), "label"),
    ],
)
def test_a_cluster_that_no_placement_could_use_is_refused(nodes: tuple[object, ...], reason: str) -> None:
    cluster = RecordCluster()
    refused = cluster.refused(FormCluster(cluster_id="c", nodes=nodes, timings=TIMINGS))  # type: ignore[arg-type]
    assert refused.startswith("BadRequestException: ")
    assert reason in refused
    assert cluster.record.cluster_id == ""


@pytest.mark.parametrize("tag", ["", "ABCDE", "a", "A1", "Ä"])
def test_a_tag_that_is_no_tag_is_refused(tag: str) -> None:
    assert "capital letters" in RecordCluster("A").refused(AddNode(node=node(tag, url="http://x", cluster_address="x")))


def test_a_taken_tag_or_address_is_refused() -> None:
    cluster = RecordCluster("A", "B")
    assert "tag 'B' is taken" in cluster.refused(AddNode(node=node("B", url="http://x", cluster_address="x")))
    assert "'B' has the same address" in cluster.refused(AddNode(node=node("C", url="http://b:8080")))
    assert "'B' has the same address" in cluster.refused(AddNode(node=node("C", cluster_address="b:38888")))


def test_a_cluster_has_a_limit_of_nodes() -> None:
    tags = [a + b for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJ"][:NODES_MAX]
    assert f"at most {NODES_MAX}" in RecordCluster(*tags).refused(AddNode(node=node("Z")))


def test_a_node_joins_as_a_watcher_and_becomes_a_member() -> None:
    cluster = RecordCluster("A")
    cluster.do(AddNode(node=node("W", kind="Watcher")))
    cluster.do(SetNodeKind(tag="W", kind="Member"))
    assert cluster.record.nodes["W"].kind == "Member"
    cluster.do(SetNodeKind(tag="A", kind="Watcher"))
    refused = cluster.refused(SetNodeKind(tag="W", kind="Watcher"))
    assert refused == "BadRequestException: Node 'W' is the last voter and stays one."


def test_a_node_that_announces_itself_is_known_by_id_boot_and_kinds() -> None:
    cluster = RecordCluster(node("A", node_id="", boot=0))
    assert cluster.announce("A", boot=3).error is None
    announced = cluster.record.nodes["A"]
    assert (announced.node_id, announced.boot, announced.kinds) == ("id-A", 3, ("SqlEtl",))
    cluster = RecordCluster(node("A", node_id="", boot=3))
    assert cluster.announce("A", boot=3, nonce=5).error is None, "no process is known whose start this could be"


def test_a_cloned_or_lost_disk_is_refused() -> None:
    cluster = RecordCluster("A")
    lost = cluster.announce("A", node_id="other").error
    assert lost is not None
    assert "join under a new tag" in lost.message
    assert cluster.announce("A", boot=5).error is None
    copy = cluster.announce("A", boot=4).error
    assert copy is not None
    assert "Stop the copy" in copy.message


def test_a_second_process_of_one_start_is_refused_and_a_repeat_of_the_first_is_not() -> None:
    cluster = RecordCluster("A")
    assert cluster.announce("A", boot=5, nonce=1).error is None
    second = cluster.announce("A", boot=5, nonce=2).error
    assert second is not None
    assert "is a copy, or two processes use it. Stop this one" in second.message
    assert cluster.record.nodes["A"].nonce == 1
    assert cluster.announce("A", boot=5, nonce=1, url="http://elsewhere:8080").error is None
    former = cluster.announce("A", boot=6, nonce=0).error
    assert former is not None, "a process of a version that names no nonce is not the only one"
    assert cluster.announce("A", boot=6, nonce=2).error is None


def test_a_removed_node_leaves_every_group_and_its_databases_may_go_with_it() -> None:
    cluster = RecordCluster("A", "B", "C")
    cluster.create("A", "B")
    cluster.create("B", name="OnlyB")
    cluster.create("A", name="OnlyA")
    cluster.create("B", "C", name="Leaving")
    cluster.do(DeleteDatabase(name="Leaving", from_nodes=("B",)))
    for number in range(9):
        cluster.create("A", name=f"Other{number}")
    before, stamp = cluster.database("OnlyA"), cluster.database().topology.stamp
    cluster.term += 1
    cluster.do(RemoveNode(tag="B"))
    assert cluster.database().topology.members == ("A",)
    changed = replace(stamp, index=cluster.record.index, term=cluster.term)
    assert cluster.database().topology.stamp == cluster.database("Leaving").topology.stamp == changed
    assert cluster.record.database("OnlyB") is None
    assert not cluster.database("Leaving").deletion_in_progress
    assert cluster.database("OnlyA") is before
    assert "B" not in cluster.record.nodes


def test_the_last_node_and_an_unknown_node_are_not_removed() -> None:
    cluster = RecordCluster("A")
    refused = cluster.refused(RemoveNode(tag="A"))
    assert refused == "BadRequestException: Node 'A' is the last one of the cluster and stays."
    assert "Known nodes: A" in cluster.refused(RemoveNode(tag="B"))
    assert "Known nodes: none" in RecordCluster().refused(RemoveNode(tag="B"))


def test_a_removal_keeps_a_database_that_others_still_delete() -> None:
    cluster = RecordCluster("A", "B")
    cluster.create("A", "B")
    cluster.do(DeleteDatabase(name="Northwind"))
    cluster.do(RemoveNode(tag="B"))
    assert set(cluster.database().deletion_in_progress) == {"A"}


def test_weight_labels_draining_and_suspension_are_kept() -> None:
    cluster = RecordCluster("A")
    cluster.do(SetNodeTraits(tag="A", weight=3, labels=("ssd",)))
    cluster.do(SetDraining(tag="A", draining=True))
    cluster.do(SuspendObserver(suspended=True))
    kept = cluster.record.nodes["A"]
    assert (kept.weight, kept.labels, kept.draining) == (3, ("ssd",), True)
    assert cluster.record.observer.suspended
    assert "1 to 100" in cluster.refused(SetNodeTraits(tag="A", weight=101))
    assert "at most 32" in cluster.refused(SetNodeTraits(tag="A", labels=("x",) * 33))
    cluster.do(SetNodeTraits(tag="A", labels=("x",) * 32))
    assert "comma" in cluster.refused(SetNodeTraits(tag="A", labels=("ssd,eu",)))


def test_traits_that_are_not_named_stay() -> None:
    cluster = RecordCluster("A")
    cluster.do(SetNodeTraits(tag="A", weight=3))
    cluster.do(SetNodeTraits(tag="A", labels=("ssd",)))
    assert (cluster.record.nodes["A"].weight, cluster.record.nodes["A"].labels) == (3, ("ssd",))


def test_a_node_keeps_the_index_of_the_last_change_that_placement_reads() -> None:
    cluster = RecordCluster("A", "B")
    cluster.do(SetDraining(tag="A", draining=True))
    drained = cluster.record.index
    cluster.do(SetDraining(tag="A", draining=True))
    cluster.do(SetNodeKind(tag="A", kind="Watcher"))
    assert cluster.record.nodes["A"].placement_index == drained


# What each command leaves, whole


def test_a_cluster_begins_with_its_id_its_timings_and_its_nodes() -> None:
    cluster = RecordCluster(term=2)
    nodes = (node("A"), node("W", kind="Watcher", weight=100, labels=("ssd",)))
    assert cluster.do(FormCluster(cluster_id="c", nodes=nodes, timings=TIMINGS)) == "c"
    formed = Map({n.tag: replace(n, placement_index=1) for n in nodes})
    assert cluster.record == Record(index=1, cluster_id="c", nodes=formed, timings=TIMINGS)


@pytest.mark.parametrize("tag", ["A", "Z", "ABCD"])
def test_a_tag_is_one_to_four_capital_letters(tag: str) -> None:
    cluster = RecordCluster("B")
    assert cluster.do(AddNode(node=node(tag, weight=1))) == tag
    assert cluster.record.nodes[tag] == replace(node(tag, weight=1), placement_index=cluster.record.index)


def test_the_first_node_that_has_the_address_is_named() -> None:
    taken = node("Z", url=node("C").url, cluster_address=node("B").cluster_address)
    assert (
        cluster_with("C", "B").refused(AddNode(node=taken)).endswith("Node 'B' has the same address. Choose another.")
    )


def cluster_with(*tags: str) -> RecordCluster:
    return RecordCluster("A", *tags)


BEFORE = node("A", boot=5, nonce=7, kinds=("SqlEtl",), placement_index=1)


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ({}, True),
        ({"url": "http://new:8080", "cluster_address": "new:1"}, True),
        ({"boot": 6, "nonce": 8}, True),
        ({"boot": 6}, True),
        ({"boot": 6, "nonce": 0}, False),
        ({"boot": 5, "nonce": 8}, False),
        ({"boot": 5, "nonce": 0}, False),
        ({"boot": 4, "nonce": 7}, False),
        ({"node_id": "other", "boot": 6, "nonce": 8}, False),
        ({"node_id": ""}, False),
    ],
)
def test_an_announcement_is_taken_from_the_same_or_a_later_process_of_the_node(
    said: dict[str, Any], fits: bool
) -> None:
    cluster = RecordCluster(BEFORE, "B")
    result = cluster.announce("A", **({"boot": 5} | said))
    assert (result.error is None) == fits
    assert cluster.record.nodes["A"] == (replace(BEFORE, **said) if fits else BEFORE)


@pytest.mark.parametrize(("nonce", "boot", "fits"), [(0, 5, True), (0, 6, True), (9, 6, True), (9, 5, False)])
def test_a_process_of_a_version_without_nonces_may_start_again(nonce: int, boot: int, fits: bool) -> None:
    cluster = RecordCluster(replace(BEFORE, nonce=0))
    assert (cluster.announce("A", boot=boot, nonce=nonce).error is None) == fits


def test_a_node_without_an_id_is_whoever_announces_itself_first() -> None:
    cluster = RecordCluster(replace(BEFORE, node_id="", boot=9, nonce=9))
    assert cluster.announce("A", boot=1, nonce=1).error is None
    assert cluster.record.nodes["A"] == replace(BEFORE, boot=1, nonce=1)


CHANGES: list[tuple[Command, dict[str, Any], bool]] = [
    # The command, what it changes of the node, and whether placement reads that.
    (SetDraining(tag="A", draining=True), {"draining": True}, True),
    (SetDraining(tag="A", draining=False), {}, False),
    (SetNodeTraits(tag="A", weight=100), {"weight": 100}, True),
    (SetNodeTraits(tag="A", weight=1), {}, False),
    (SetNodeTraits(tag="A", labels=("ssd",)), {"labels": ("ssd",)}, True),
    (SetNodeTraits(tag="A"), {}, False),
    (SetNodeKind(tag="A", kind="Watcher"), {"kind": "Watcher"}, False),
    (SetNodeKind(tag="A", kind="Member"), {}, False),
    (
        SetNodeFlags(tag="A", flags=("OutOfCpuCredits", "HighDirtyMemory", "EarlyOutOfMemory", "HighDirtyMemory")),
        {"flags": ("EarlyOutOfMemory", "HighDirtyMemory", "OutOfCpuCredits")},
        False,
    ),
    (
        AnnounceNode(tag="A", node_id="id-A", boot=5, nonce=7, url="u", cluster_address="a", kinds=()),
        {"url": "u", "cluster_address": "a", "kinds": ()},
        True,
    ),
]


@pytest.mark.parametrize(("command", "fields", "placed"), CHANGES)
def test_a_command_changes_only_this_of_a_node(command: Command, fields: dict[str, Any], placed: bool) -> None:
    cluster = RecordCluster(BEFORE, "B")
    before = cluster.record
    assert cluster.do(command) is None
    index = cluster.record.index
    changed = replace(before.nodes["A"], placement_index=index if placed else 1, **fields)
    assert cluster.record == replace(before, index=index, nodes=before.nodes.set("A", changed))


def test_the_last_voter_may_be_named_a_voter_again_and_another_watcher_a_watcher() -> None:
    cluster = RecordCluster("A", node("W", kind="Watcher"))
    cluster.do(SetNodeKind(tag="A", kind="Member"))
    cluster.do(SetNodeKind(tag="W", kind="Watcher"))
    assert [n.kind for _, n in sorted(cluster.record.nodes.items())] == ["Member", "Watcher"]


def test_the_observer_is_suspended_and_goes_on() -> None:
    cluster = RecordCluster("A")
    for suspended in (True, False):
        before = cluster.record
        assert cluster.apply(SuspendObserver(suspended=suspended)).changes == Changes(cluster=True)
        observer = replace(before.observer, suspended=suspended)
        assert cluster.record == replace(before, index=cluster.record.index, observer=observer)


def test_a_removed_node_goes_from_every_group_it_is_in_or_leaves() -> None:
    cluster = RecordCluster("A", "B", "C", term=3)
    held = cluster.create("A", "B")
    leaving = cluster.create("B", "C", name="Leaving")
    cluster.do(DeleteDatabase(name="Leaving", from_nodes=("B",)))
    leaving = cluster.database("Leaving")
    elsewhere = cluster.create("A", name="Elsewhere")
    cluster.create("B", name="Alone")
    applied = cluster.apply(RemoveNode(tag="B"))
    index = cluster.record.index
    stamp = TopologyStamp(index=index, term=3)
    assert applied.changes == Changes(cluster=True, databases=frozenset({"northwind", "leaving", "alone"}))
    assert cluster.record.databases == Map(
        {
            "northwind": replace(held, etag=index, topology=replace(held.topology.without("B"), stamp=stamp)),
            "leaving": replace(
                leaving, etag=index, deletion_in_progress=Map(), topology=replace(leaving.topology, stamp=stamp)
            ),
            "elsewhere": elsewhere,
        }
    )
