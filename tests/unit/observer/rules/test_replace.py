"""Replacement and surplus: the group keeps its replication factor, no more and no less."""

from typing import Any

import pytest
from immutables import Map
from msgspec.structs import replace

from observer.rules.decide import decide
from observer.rules.facts import Facts, NodeFacts
from raftnode.record.commands import (
    AddDatabaseNode,
    AddNode,
    ConfirmDeletion,
    CreateDatabase,
    RemoveNode,
    SetDraining,
    SetDynamicDistribution,
    SetNodeFlags,
    SetNodeKind,
)
from tests.unit.observer.build import (
    FOLDED,
    LIMITS,
    NOW_MS,
    commit,
    facts,
    group,
    sentences,
    silent,
    topology_after,
    well,
)
from tests.unit.record.build import RecordCluster, node

LONG_MS = LIMITS.replace_ms
EMPTY = (well("D", copies={}), well("E", copies={}))


def all_well(*others: NodeFacts, **fields: Any) -> Facts:
    known = {n.tag: n for n in (*(well(tag) for tag in "ABCDE"), *others)}
    return facts(*known.values(), **fields)


def dynamic(**fields: Any) -> RecordCluster:
    """A, B and C, in a group that may be healed by other nodes."""
    cluster = group(**fields)
    cluster.do(SetDynamicDistribution(name="Northwind", enable=True))
    return cluster


def after_loss(cluster: RecordCluster, *, lost_ms: int = LONG_MS) -> Facts:
    """B is demoted; what is seen when that much time has passed."""
    commit(cluster, all_well(silent("B")))
    return all_well(silent("B"), now_ms=NOW_MS + lost_ms)


def test_a_rehab_that_is_lost_for_long_is_replaced_by_the_node_with_the_fewest_databases() -> None:
    cluster = dynamic()
    cluster.do(CreateDatabase(name="Other", nodes=("D",)))
    early = after_loss(cluster, lost_ms=LONG_MS - 1)
    assert topology_after(cluster, early).promotables == ()
    decisions = commit(cluster, all_well(silent("B"), now_ms=NOW_MS + LONG_MS))
    topology = cluster.database().topology
    assert (topology.promotables, topology.rehabs, topology.replication_factor) == (("E",), ("B",), 3)
    assert topology.promotables_status["E"] == "WaitingForFirstPromotion"
    assert sentences(decisions).startswith(
        "E was added as a Promotable: the group has 2 of 3 copies, as B has been lost for 900000 ms (limit 900000 ms): "
        "B has not been heard for"
    )
    later = all_well(silent("B"), *EMPTY, now_ms=NOW_MS + 2 * LONG_MS)
    assert topology_after(cluster, later).promotables == ("E",), "one is enough"


def test_without_dynamic_distribution_nobody_is_added() -> None:
    cluster = group()
    assert topology_after(cluster, after_loss(cluster)).promotables == ()


def test_a_rehab_that_is_back_is_not_replaced_however_long_it_was_away() -> None:
    cluster = dynamic()
    after_loss(cluster)
    assert topology_after(cluster, all_well(well("B", good_ms=1), now_ms=NOW_MS + LONG_MS)).promotables == ()


def test_the_grace_begins_anew_when_the_node_was_back() -> None:
    cluster = dynamic()
    after_loss(cluster)
    assert cluster.record.observer.lost_since == Map({f"{FOLDED}/B": NOW_MS})
    assert "B" in topology_after(cluster, all_well(now_ms=NOW_MS + 10_000)).members
    assert not cluster.record.observer.lost_since
    again = all_well(silent("B"), now_ms=NOW_MS + LONG_MS)
    assert topology_after(cluster, again).rehabs == ("B",)
    assert cluster.record.observer.lost_since == Map({f"{FOLDED}/B": NOW_MS + LONG_MS})
    assert topology_after(cluster, again).promotables == ()


def test_a_node_that_has_left_the_cluster_is_made_up_for_at_once() -> None:
    cluster = dynamic()
    cluster.do(RemoveNode(tag="B"))
    decisions = commit(cluster, all_well())
    assert cluster.database().topology.promotables == ("D",)
    assert sentences(decisions) == (
        "D was added as a Promotable: the group has 2 of 3 copies, as a node has left the group."
    )


def test_one_node_is_added_at_a_time_until_the_factor_is_reached() -> None:
    cluster = dynamic()
    commit(cluster, all_well(silent("B"), silent("C")))
    late = all_well(silent("B"), silent("C"), *EMPTY, now_ms=NOW_MS + LONG_MS)
    lost = [
        f"{tag} has been lost for 900000 ms (limit 900000 ms): {tag} has not been heard for 800 ms (limit 750 ms)"
        for tag in "BC"
    ]
    assert sentences(commit(cluster, late)) == (
        f"D was added as a Promotable: the group has 1 of 3 copies, as {'; '.join(lost)}."
    )
    assert cluster.database().topology.promotables == ("D",)
    assert topology_after(cluster, late).promotables == ("D", "E")
    assert topology_after(cluster, late).promotables == ("D", "E")


def test_a_promotable_that_is_lost_for_long_gives_way_to_another() -> None:
    cluster = dynamic()
    cluster.do(AddDatabaseNode(name="Northwind", tag="D"))
    assert topology_after(cluster, all_well(silent("D"))).promotables_status["D"] == "NotResponding"
    decisions = commit(cluster, all_well(silent("D"), now_ms=NOW_MS + LONG_MS))
    database = cluster.database()
    assert database.topology.promotables == ("E",)
    assert dict(database.deletion_in_progress) == {"D": "HardDelete"}
    assert sentences(decisions).startswith("E takes the place of the Promotable D: D has been lost for 900000 ms")


def test_a_promotable_that_is_in_no_cluster_gives_way_without_a_grace() -> None:
    cluster = dynamic(promotables=("Z",), replication_factor=4)
    assert topology_after(cluster, all_well()).promotables == ("D",)
    assert not cluster.database().deletion_in_progress, "nobody could confirm it"


@pytest.mark.parametrize(
    "unfit",
    [silent("D"), well("D", heard_ns=0), well("D", flags=("EarlyOutOfMemory",))],
    ids=["silent", "slow", "short"],
)
def test_only_a_node_that_is_well_is_fit(unfit: NodeFacts) -> None:
    cluster = dynamic()
    after_loss(cluster)
    late = all_well(silent("B"), unfit, silent("E"), now_ms=NOW_MS + LONG_MS)
    assert topology_after(cluster, late).promotables == ()


def test_a_node_that_is_drained_short_or_joining_is_not_fit_and_a_watcher_is() -> None:
    cluster = dynamic()
    after_loss(cluster)
    late = all_well(silent("B"), silent("E"), now_ms=NOW_MS + LONG_MS)
    for unfit, fit in (
        (SetDraining(tag="D", draining=True), SetDraining(tag="D", draining=False)),
        (SetNodeFlags(tag="D", flags=("OutOfCpuCredits",)), SetNodeFlags(tag="D")),
        (SetNodeKind(tag="D", kind="Promotable"), SetNodeKind(tag="D", kind="Watcher")),
    ):
        cluster.do(unfit)
        assert not topology_after(cluster, late).promotables
        cluster.do(fit)
    assert topology_after(cluster, late).promotables == ("D",)


def test_a_node_that_still_deletes_its_copy_is_not_fit() -> None:
    cluster = dynamic()
    after_loss(cluster)
    database = replace(cluster.database(), deletion_in_progress=Map({"D": "HardDelete"}))
    cluster.record = replace(cluster.record, databases=cluster.record.databases.set(FOLDED, database))
    late = all_well(silent("B"), silent("E"), now_ms=NOW_MS + LONG_MS)
    assert topology_after(cluster, late).promotables == ()


def test_a_node_without_any_database_is_fit() -> None:
    cluster = dynamic()
    after_loss(cluster)
    for tag in "DE":
        cluster.do(RemoveNode(tag=tag))
    late = all_well(silent("B"), now_ms=NOW_MS + LONG_MS)
    assert not topology_after(cluster, late).promotables
    cluster.do(AddNode(node=node("F")))
    unused = well("F", current={}, previous={}, copies={}, fresh=False)
    assert topology_after(cluster, all_well(silent("B"), unused, now_ms=NOW_MS + LONG_MS)).promotables == ("F",)


def test_with_no_member_alive_nobody_is_added() -> None:
    cluster = dynamic()
    dead = [silent(tag) for tag in "ABC"]
    commit(cluster, all_well(*dead))
    decisions = decide(cluster.record, all_well(*dead, now_ms=NOW_MS + LONG_MS))
    assert not any("added" in sentence.message for sentence in decisions.sentences)


def test_with_the_only_member_of_a_small_group_dead_nobody_is_added() -> None:
    seen = all_well(silent("A"), leader="D")
    assert topology_after(dynamic(members=("A",), replication_factor=3), seen).promotables == ()


def test_a_member_that_is_lost_but_stays_keeps_nobody_from_being_replaced() -> None:
    cluster = dynamic()
    after_loss(cluster)
    cluster.do(SetDraining(tag="C", draining=True))
    late = all_well(silent("B"), silent("C"), now_ms=NOW_MS + LONG_MS)
    assert topology_after(cluster, late).promotables == ("D",)


def replaced() -> RecordCluster:
    """B was lost, and D became a Member in its place."""
    cluster = dynamic()
    cluster.task("pinned", mentor="B", pinned=True)
    late = after_loss(cluster)
    commit(cluster, late)
    commit(cluster, late)
    assert set(cluster.database().topology.members) == set("ACD")
    assert cluster.placed("pinned").node == "B"
    return cluster


def test_a_rehab_too_many_stays_listed_until_it_has_handed_over_but_frees_its_tasks() -> None:
    cluster = replaced()
    decisions = commit(cluster, all_well(silent("B"), now_ms=NOW_MS + LONG_MS))
    database = cluster.database()
    assert (database.topology.rehabs, dict(database.deletion_in_progress)) == (("B",), {"B": "HardDelete"})
    assert database.topology.replication_factor == 3
    assert "B will be removed: the database has its 3 Members" in sentences(decisions)
    assert database.topology.demotion_reasons["B"].startswith("it has been replaced")
    assert not cluster.record.observer.lost_since
    assert cluster.placed("pinned").node in ("A", "C", "D")
    back = all_well(now_ms=NOW_MS + 2 * LONG_MS)
    assert not decide(cluster.record, back).topologies, "it is not promoted either"
    cluster.do(ConfirmDeletion(name="Northwind", tag="B"))
    assert set(cluster.database().topology.all_nodes) == set("ACD")


def test_a_copy_that_goes_is_neither_a_last_resort_nor_counted_as_one() -> None:
    cluster = replaced()
    commit(cluster, all_well(silent("B"), now_ms=NOW_MS + LONG_MS))
    dead = [silent(tag) for tag in "ACD"]
    commit(cluster, all_well(*dead, now_ms=NOW_MS + LONG_MS))
    assert "B" not in cluster.database().topology.members
    commit(cluster, all_well(silent("C"), now_ms=NOW_MS + LONG_MS))
    assert topology_after(cluster, all_well(silent("C"), now_ms=NOW_MS + 3 * LONG_MS)).promotables == ("E",)


def test_a_promotable_too_many_goes_at_once() -> None:
    cluster = group(promotables=("D",))
    decisions = commit(cluster, all_well())
    database = cluster.database()
    assert (database.topology.promotables, dict(database.deletion_in_progress)) == ((), {"D": "HardDelete"})
    assert sentences(decisions) == "D will be removed: the database has its 3 Members (A, B, C)."


@pytest.mark.parametrize("member", [silent("C"), well("C", copies={}), well("C", heard_ns=0)])
def test_nobody_is_too_many_while_a_member_is_not_known_to_be_well(member: NodeFacts) -> None:
    assert topology_after(group(promotables=("D",)), all_well(member)).promotables == ("D",)


def test_nobody_is_too_many_while_a_member_is_drained() -> None:
    cluster = group(promotables=("D",))
    cluster.do(SetDraining(tag="C", draining=True))
    assert topology_after(cluster, all_well()).promotables == ("D",)


def test_rehabs_too_many_go_when_they_are_in_no_cluster_and_wait_when_they_are() -> None:
    cluster = group(rehabs=("Z", "D"))
    assert sentences(commit(cluster, all_well())) == ("Z, D will be removed: the database has its 3 Members (A, B, C).")
    assert cluster.database().topology.rehabs == ("D",)
    assert dict(cluster.database().deletion_in_progress) == {"D": "HardDelete"}
