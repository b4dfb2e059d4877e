"""Without highly available tasks a task waits for its holder, and that is said once; without dynamic distribution no
copy is replaced."""

import pytest
from msgspec.structs import replace

from observer.rules.decide import Sentence, decide
from observer.rules.facts import Facts, NodeFacts
from raftnode.record.commands import (
    RemoveNode,
    SetDatabaseState,
    SetDynamicDistribution,
    SetLicence,
    SetNodeFlags,
    SetTaskPin,
    SetTaskState,
    SuspendObserver,
)
from raftnode.record.model import Cause, KindTraits
from tests.unit.observer.build import LIMITS, NOW_MS, commit, facts, group, sentences, silent, well
from tests.unit.record.build import KIND, RecordCluster

UNLICENSED = SetLicence(highly_available_tasks=False)


def held(*names: str) -> RecordCluster:
    """B holds these tasks, in a cluster without highly available tasks; nothing prefers B any more."""
    cluster = group("A", "B", "C")
    cluster.do(UNLICENSED)
    for name in names or ("t",):
        cluster.task(name, mentor="B")
        cluster.do(cluster.claim("B", name))
        cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now(name).id, mentor=None))
    return cluster


def seen(*nodes: NodeFacts, later_ms: int = 0) -> Facts:
    known = {n.tag: n for n in (*(well(tag) for tag in "BCDE"), *nodes)}
    return facts(*known.values(), now_ms=NOW_MS + later_ms)


def said(cluster: RecordCluster, *nodes: NodeFacts) -> list[Sentence]:
    return [s for s in decide(cluster.record, seen(*nodes)).sentences if "licence" in s.message]


def test_scenario_15_a_task_waits_for_its_node_and_that_is_said_once_a_task() -> None:
    """RavenDB's alert is kept by each node; here it is a decision of the observer, which all nodes have."""
    cluster = held("t", "u")
    assert said(cluster) == []
    commit(cluster, seen(silent("B")))
    assert (cluster.placed("t").node, cluster.placed("t").rule) == ("B", "LicenceKeepsLast")
    epochs = [cluster.claimed(name).epoch for name in "tu"]
    ids = [cluster.task_now(name).id for name in "tu"]
    assert said(cluster, silent("B")) == [
        Sentence(
            "Northwind",
            f"{KIND} '{name}' (epoch {epoch}) waits for B, which is a Rehab, as the licence has no highly available "
            "tasks. Another mentor node would run it.",
            f"licence {id} {epoch}",
        )
        for name, epoch, id in zip("tu", epochs, ids, strict=True)
    ]


def test_it_goes_on_when_its_node_returns() -> None:
    cluster = held()
    commit(cluster, seen(silent("B")))
    cluster.do(cluster.claim("B", "t"))
    assert cluster.claimed("t").tag == "B"
    assert said(cluster) == [], "it runs, though its node is still in Rehab"


def test_scenario_16_it_moves_when_its_node_leaves_the_group() -> None:
    cluster = held()
    commit(cluster, seen(silent("B")))
    cluster.do(RemoveNode(tag="B"))
    assert cluster.placed("t").rule == "Hash"
    assert said(cluster, silent("B")) == []


def test_scenario_17_a_mentor_still_wins_and_so_does_the_licence_once_it_is_there() -> None:
    cluster = held()
    commit(cluster, seen(silent("B")))
    cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now("t").id, mentor="C"))
    assert (cluster.placed("t").node, cluster.placed("t").rule) == ("C", "Mentor")
    assert said(cluster, silent("B")) == []
    cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now("t").id, mentor=None))
    assert len(said(cluster, silent("B"))) == 1
    cluster.do(SetLicence(highly_available_tasks=True))
    changed = cluster.record.index
    assert said(cluster, silent("B")) == []
    taker = cluster.placed("t").node or ""
    assert taker in ("A", "C")
    cluster.do(cluster.claim(taker, "t"))
    assert cluster.claimed("t").cause == Cause(index=changed, what="Licence")


@pytest.mark.parametrize("what", ["task", "database", "observer", "no Member", "a holder that runs it in Rehab"])
def test_nothing_is_said_of_what_does_not_wait_for_the_licence(what: str) -> None:
    cluster = held()
    lost: tuple[NodeFacts, ...] = (silent("B"),)
    if what == "a holder that runs it in Rehab":
        cluster.do(SetNodeFlags(tag="B", flags=("HighDirtyMemory",)))
        lost = ()
    commit(cluster, seen(*lost))
    assert cluster.database().topology.rehabs == ("B",)
    match what:
        case "task":
            cluster.do(SetTaskState(database="Northwind", id=cluster.task_now("t").id, disabled=True))
        case "database":
            cluster.do(SetDatabaseState(name="Northwind", disabled=True))
        case "observer":
            cluster.do(SuspendObserver(suspended=True))
        case "no Member":
            for tag in "AC":
                cluster.do(RemoveNode(tag=tag))
    assert said(cluster, *lost) == []


def test_what_has_no_holder_yet_waits_for_nobody() -> None:
    cluster = held()
    cluster.task("new")
    commit(cluster, seen(silent("B")))
    assert cluster.placed("new").rule == "Hash"
    assert [s.message.split("'")[1] for s in said(cluster, silent("B"))] == ["t"]


def test_they_are_said_in_the_order_of_databases_and_tasks() -> None:
    cluster = RecordCluster("A", "B", "C")
    cluster.do(UNLICENSED)
    for number in reversed(range(4)):
        cluster.create("A", "B", "C", name=f"Db{number}")
        for name in "ba":
            cluster.task(name, database=f"Db{number}", mentor="B", traits=KindTraits(sticky=True))
            cluster.do(replace(cluster.claim("B", name), database=f"Db{number}"))
    commit(cluster, seen(silent("B")))
    spoken = [(s.database, s.message.split("'")[1]) for s in said(cluster, silent("B"))]
    assert spoken == [(f"Db{number}", name) for number in range(4) for name in "ba"]


def test_without_dynamic_distribution_nothing_is_replaced_and_that_is_said_once() -> None:
    cluster = group("A", "B", "C")
    cluster.do(SetDynamicDistribution(name="Northwind", enable=True))
    cluster.do(SetLicence(dynamic_nodes_distribution=False))
    assert (cluster.record.highly_available_tasks, cluster.record.dynamic_nodes_distribution) == (True, False)
    commit(cluster, seen(silent("B")))
    late = seen(silent("B"), later_ms=LIMITS.replace_ms)
    verdict = decide(cluster.record, late)
    assert verdict.topologies == ()
    [alert] = [s for s in verdict.sentences if s.key]
    assert alert.key == "unlicensed D"
    assert alert.message.startswith(
        "The licence has no dynamic nodes distribution, so this is not done: D was added as a Promotable: the group "
        "has 2 of 3 copies, as B has been lost for "
    )
    commit(cluster, late)
    assert cluster.database().topology.promotables == ()
    cluster.do(SetLicence(dynamic_nodes_distribution=True))
    assert "D was added as a Promotable" in sentences(commit(cluster, late))
    assert cluster.database().topology.promotables == ("D",)


def test_a_licence_that_names_nothing_changes_nothing() -> None:
    cluster = group()
    before = cluster.record
    cluster.do(SetLicence())
    assert (cluster.record.highly_available_tasks, cluster.record.dynamic_nodes_distribution) == (True, True)
    assert cluster.record.licence_index == before.index + 1
