"""Commands about the cluster's nodes."""

import pytest

from raftnode.record.commands import (
    AddNode,
    DeleteDatabase,
    FormCluster,
    RemoveNode,
    SetDraining,
    SetNodeKind,
    SetNodeTraits,
    SuspendObserver,
)
from raftnode.record.model import NODES_MAX
from tests.unit.record.build import TIMINGS, Cluster, node


def test_a_cluster_is_formed_once() -> None:
    cluster = Cluster("A", "B")
    again = FormCluster(cluster_id="other", nodes=(node("C"),), timings=TIMINGS)
    assert cluster.do(again) == "c1"
    assert set(cluster.record.nodes) == {"A", "B"}
    assert cluster.record.timings == TIMINGS


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ((), "at least one voter"),
        ((node("A", kind="Watcher"),), "at least one voter"),
        ((node("A"), node("A", url="http://other", cluster_address="other")), "is taken"),
        ((node("a"),), "one to four capital letters"),
        ((node("A", weight=0),), "Weight 0"),
        ((node("A", weight=10**12),), "Weight"),
        ((node("A", labels=(" ",)),), "label"),
    ],
)
def test_a_cluster_that_no_placement_could_use_is_refused(nodes: tuple[object, ...], reason: str) -> None:
    cluster = Cluster()
    assert reason in cluster.refused(FormCluster(cluster_id="c", nodes=nodes, timings=TIMINGS))  # type: ignore[arg-type]
    assert cluster.record.cluster_id == ""


@pytest.mark.parametrize("tag", ["", "ABCDE", "a", "A1", "Ä"])
def test_a_tag_that_is_no_tag_is_refused(tag: str) -> None:
    assert "capital letters" in Cluster("A").refused(AddNode(node=node(tag, url="http://x", cluster_address="x")))


def test_a_taken_tag_or_address_is_refused() -> None:
    cluster = Cluster("A", "B")
    assert "tag 'B' is taken" in cluster.refused(AddNode(node=node("B", url="http://x", cluster_address="x")))
    assert "'B' has the same address" in cluster.refused(AddNode(node=node("C", url="http://b:8080")))
    assert "'B' has the same address" in cluster.refused(AddNode(node=node("C", cluster_address="b:38888")))


def test_a_cluster_has_a_limit_of_nodes() -> None:
    tags = [a + b for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJ"][:NODES_MAX]
    assert f"at most {NODES_MAX}" in Cluster(*tags).refused(AddNode(node=node("Z")))


def test_a_node_joins_as_a_watcher_and_becomes_a_member() -> None:
    cluster = Cluster("A")
    cluster.do(AddNode(node=node("W", kind="Watcher")))
    cluster.do(SetNodeKind(tag="W", kind="Member"))
    assert cluster.record.nodes["W"].kind == "Member"
    cluster.do(SetNodeKind(tag="A", kind="Watcher"))
    assert "last voter" in cluster.refused(SetNodeKind(tag="W", kind="Watcher"))


def test_a_node_that_announces_itself_is_known_by_id_boot_and_kinds() -> None:
    cluster = Cluster(node("A", node_id="", boot=0))
    assert cluster.announce("A", boot=3).error is None
    announced = cluster.record.nodes["A"]
    assert (announced.node_id, announced.boot, announced.kinds) == ("id-A", 3, ("SqlEtl",))


def test_a_cloned_or_lost_disk_is_refused() -> None:
    cluster = Cluster("A")
    lost = cluster.announce("A", node_id="other").error
    assert lost is not None
    assert "join under a new tag" in lost.message
    assert cluster.announce("A", boot=5).error is None
    copy = cluster.announce("A", boot=4).error
    assert copy is not None
    assert "Stop the copy" in copy.message


def test_a_second_process_of_one_start_is_refused_and_a_repeat_of_the_first_is_not() -> None:
    cluster = Cluster("A")
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
    cluster = Cluster("A", "B", "C")
    cluster.create("A", "B")
    cluster.create("B", name="OnlyB")
    cluster.create("A", name="OnlyA")
    cluster.create("B", "C", name="Leaving")
    cluster.do(DeleteDatabase(name="Leaving", from_nodes=("B",)))
    before = cluster.database("OnlyA")
    cluster.do(RemoveNode(tag="B"))
    assert cluster.database().topology.members == ("A",)
    assert cluster.record.database("OnlyB") is None
    assert not cluster.database("Leaving").deletion_in_progress
    assert cluster.database("OnlyA") is before
    assert "B" not in cluster.record.nodes


def test_the_last_node_and_an_unknown_node_are_not_removed() -> None:
    cluster = Cluster("A")
    assert "last one" in cluster.refused(RemoveNode(tag="A"))
    assert "Known nodes: A" in cluster.refused(RemoveNode(tag="B"))
    assert "Known nodes: none" in Cluster().refused(RemoveNode(tag="B"))


def test_a_removal_keeps_a_database_that_others_still_delete() -> None:
    cluster = Cluster("A", "B")
    cluster.create("A", "B")
    cluster.do(DeleteDatabase(name="Northwind"))
    cluster.do(RemoveNode(tag="B"))
    assert set(cluster.database().deletion_in_progress) == {"A"}


def test_weight_labels_draining_and_suspension_are_kept() -> None:
    cluster = Cluster("A")
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
    cluster = Cluster("A")
    cluster.do(SetNodeTraits(tag="A", weight=3))
    cluster.do(SetNodeTraits(tag="A", labels=("ssd",)))
    assert (cluster.record.nodes["A"].weight, cluster.record.nodes["A"].labels) == (3, ("ssd",))


def test_a_node_keeps_the_index_of_the_last_change_that_placement_reads() -> None:
    cluster = Cluster("A", "B")
    cluster.do(SetDraining(tag="A", draining=True))
    drained = cluster.record.index
    cluster.do(SetDraining(tag="A", draining=True))
    cluster.do(SetNodeKind(tag="A", kind="Watcher"))
    assert cluster.record.nodes["A"].placement_index == drained
