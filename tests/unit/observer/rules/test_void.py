"""Voids: the claims of silent nodes end, whoever they are."""

import pytest
from msgspec.structs import replace

from observer.rules.decide import Sentence, decide
from observer.rules.facts import ClaimHolder, Facts
from raftnode.record.commands import (
    AddNode,
    ConfirmDeletion,
    DeleteDatabase,
    DeleteTask,
    ReleaseTask,
    RemoveNode,
    SetDatabaseState,
    SetTaskPin,
    SetTaskState,
    SuspendObserver,
)
from raftnode.record.commands.observer import VoidClaim
from raftnode.record.model import KindTraits, claim_key
from tests.unit.observer.build import NOW_MS, commit, facts, group, sentences, silent, unwell, well
from tests.unit.record.build import KIND, NONCE, RecordCluster, node

KEY = claim_key("Northwind", KIND, "t")
C = well("C")


def held() -> tuple[RecordCluster, int]:
    """B holds task t."""
    cluster = group()
    cluster.task("t", mentor="B")
    return cluster, cluster.do(cluster.claim("B", "t"))


def epochs(cluster: RecordCluster, seen: Facts) -> list[int]:
    return [end.epoch for end in decide(cluster.record, seen).voids]


def test_a_silent_members_claims_are_void_with_its_demotion_in_one_decision() -> None:
    cluster, epoch = held()
    decisions = commit(cluster, facts(silent("B"), C))
    assert cluster.database().topology.rehabs == ("B",)
    assert cluster.claimed("t").state == "Void"
    assert f"Claims void: SqlEtl/t (epoch {epoch}); B has not been heard for 800 ms" in sentences(decisions)
    assert "B has not been heard" in cluster.claimed("t").reason
    placed = cluster.placed("t").node
    assert placed in ("A", "C")
    assert cluster.do(cluster.claim(placed, "t")) > epoch


@pytest.mark.parametrize("node", [well("B"), unwell("B", for_ms=9999)])
def test_claims_of_a_node_that_is_heard_stand(node: object) -> None:
    cluster, _ = held()
    assert epochs(cluster, facts(node, C)) == []  # type: ignore[arg-type]


def test_claims_of_rehabs_watchers_and_nodes_of_no_group_are_void() -> None:
    cluster, epoch = held()
    commit(cluster, facts(silent("B"), C))
    cluster.record = replace(
        cluster.record, claims=cluster.record.claims.set(KEY, replace(cluster.claimed("t"), state="Held"))
    )
    assert epochs(cluster, facts(silent("B"), C)) == [epoch], "in Rehab"
    outside = replace(cluster.claimed("t"), tag="E", node_id="id-E", nonce=NONCE)
    cluster.record = replace(cluster.record, claims=cluster.record.claims.set(KEY, outside))
    assert epochs(cluster, facts(silent("E"), C)) == [epoch], "in no group"


def test_claims_of_a_removed_node_are_void_once_it_is_silent_and_not_before() -> None:
    cluster, epoch = held()
    cluster.do(RemoveNode(tag="B"))
    assert epochs(cluster, facts(well("B"), C)) == [], "its last lease may still run"
    assert epochs(cluster, facts(silent("B"), C)) == [epoch]
    assert epochs(cluster, facts(C)) == [], "nothing is known of it"


FORMER = frozenset({ClaimHolder("B", 1, NONCE)})


def test_claims_of_a_nodes_former_process_are_void_once_that_is_over_though_the_node_is_heard() -> None:
    cluster, epoch = held()
    assert cluster.announce("B", boot=2, nonce=8).error is None
    assert epochs(cluster, facts(well("B"), C)) == []
    assert epochs(cluster, facts(well("B"), C, over=frozenset({ClaimHolder("B", 2, 8)}))) == [], "of that process alone"
    decisions = commit(cluster, facts(well("B"), C, over=FORMER))
    assert [end.epoch for end in decisions.voids] == [epoch]
    assert "start 1 of B has had no lease for 750 ms (it is in start 2 now)" in sentences(decisions)
    assert cluster.database().topology.rehabs == ()
    assert cluster.do(cluster.claim("B", "t", boot=2, nonce=8)) > epoch


def test_a_leaders_own_former_claims_are_void_too() -> None:
    cluster, epoch = held()
    assert cluster.announce("B", boot=2, nonce=8).error is None
    assert epochs(cluster, facts(well("B"), C, leader="B", over=FORMER)) == [epoch]


@pytest.mark.parametrize(
    ("node_id", "why"),
    [
        ("fresh", "B is another node now, fresh, and its previous one has had no lease since"),
        ("", "start 1 of B has had no lease for 750 ms (it is in start 0 now)"),
    ],
    ids=["announced", "not announced yet"],
)
def test_claims_of_a_nodes_former_id_are_void_once_that_is_over(node_id: str, why: str) -> None:
    cluster, epoch = held()
    cluster.do(RemoveNode(tag="B"))
    cluster.do(AddNode(node=node("B", node_id=node_id, boot=0, nonce=0)))
    assert epochs(cluster, facts(well("B"), C)) == []
    decisions = decide(cluster.record, facts(well("B"), C, over=FORMER))
    assert decisions.voids == (VoidClaim(key=KEY, epoch=epoch, reason=why),)


def test_claims_of_a_former_process_of_a_removed_node_are_void() -> None:
    cluster, epoch = held()
    cluster.do(RemoveNode(tag="B"))
    decisions = decide(cluster.record, facts(C, over=FORMER))
    assert [end.epoch for end in decisions.voids] == [epoch]
    assert "start 1 of B has had no lease for 750 ms." in sentences(decisions)


def test_a_suspended_observer_still_frees_a_node_that_was_started_again_and_nobody_else() -> None:
    """It moves nothing: the task waits for that very node."""
    cluster, epoch = held()
    cluster.do(SuspendObserver(suspended=True))
    assert epochs(cluster, facts(silent("B"), C)) == []
    assert cluster.announce("B", boot=2, nonce=8).error is None
    assert epochs(cluster, facts(well("B"), C, over=FORMER)) == [epoch]
    decisions = decide(cluster.record, facts(silent("B"), silent("C"), over=FORMER))
    assert (decisions.topologies, len(decisions.voids)) == ((), 1)


def test_only_held_claims_are_void() -> None:
    cluster, epoch = held()
    cluster.do(ReleaseTask(key=KEY, epoch=epoch))
    assert epochs(cluster, facts(silent("B"), C)) == []


def test_claims_of_disabled_and_deleted_databases_are_void_too() -> None:
    cluster, epoch = held()
    cluster.do(SetDatabaseState(name="Northwind", disabled=True))
    assert epochs(cluster, facts(silent("B"), C)) == [epoch]
    cluster.do(DeleteDatabase(name="Northwind"))
    for tag in "ABC":
        cluster.do(ConfirmDeletion(name="Northwind", tag=tag))
    decisions = decide(cluster.record, facts(silent("B"), C))
    assert [end.epoch for end in decisions.voids] == [epoch]
    assert decisions.sentences[0].database == "northwind"


def test_claims_of_dead_members_are_void_though_nobody_is_demoted() -> None:
    cluster, epoch = held()
    seen = facts(silent("A"), silent("B"), silent("C"), well("D"), leader="D")
    assert epochs(cluster, seen) == [epoch]
    commit(cluster, seen)
    assert cluster.database().topology.members == ("A", "B", "C")
    assert "still" not in cluster.refused(cluster.claim("A", "t"))


@pytest.mark.parametrize(("count", "more"), [(2, ""), (10, ""), (11, " and 1 more"), (13, " and 3 more")])
def test_many_voids_of_one_node_are_one_sentence_in_the_order_of_their_names(count: int, more: str) -> None:
    cluster, epochs = group(), {}
    for name in reversed([f"t{number:02}" for number in range(count)]):
        cluster.task(name, mentor="B")
        epochs[name] = cluster.do(cluster.claim("B", name))
    decisions = decide(cluster.record, facts(silent("B"), C))
    why = "B has not been heard for 800 ms (limit 750 ms)"
    assert decisions.voids == tuple(
        VoidClaim(key=claim_key("Northwind", KIND, name), epoch=epochs[name], reason=why) for name in sorted(epochs)
    )
    named = ", ".join(f"{KIND}/{name} (epoch {epochs[name]})" for name in sorted(epochs)[:10])
    assert decisions.sentences[1:] == (Sentence("Northwind", f"Claims void: {named}{more}; {why}."),)


def test_every_claim_is_judged_and_every_database_spoken_of_in_one_order() -> None:
    cluster, held = RecordCluster("A", "B", "C"), []
    for number in range(8):
        name = f"Db{7 - number}"
        cluster.create("A", "B", "C", name=name)
        for task in ("ended", "held"):
            cluster.task(task, database=name, mentor="B")
            epoch = cluster.do(replace(cluster.claim("B", task), database=name))
            key = claim_key(name, KIND, task)
            if task == "ended":
                cluster.do(ReleaseTask(key=key, epoch=epoch))
            else:
                held.append(key)
    decisions = decide(cluster.record, facts(silent("B"), C))
    assert [end.key for end in decisions.voids] == sorted(held)
    spoken = [sentence.database for sentence in decisions.sentences if "void" in sentence.message]
    assert spoken == [f"Db{number}" for number in range(8)]


def test_a_node_that_moved_its_task_by_pin_and_then_fell_silent_frees_it() -> None:
    cluster, epoch = held()
    cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now("t").id, mentor="C", pinned=True))
    assert "still holds" in cluster.refused(cluster.claim("C", "t"))
    commit(cluster, facts(silent("B"), C))
    assert cluster.do(cluster.claim("C", "t")) > epoch


def tolerant(**fields: object) -> tuple[RecordCluster, int]:
    """B holds a task that goes on without a lease and stays with its holder."""
    cluster = group()
    cluster.task("t", mentor="B", traits=KindTraits(partition_tolerant=True, sticky=True, **fields))  # type: ignore[arg-type]
    return cluster, cluster.do(cluster.claim("B", "t"))


def test_the_claim_of_a_task_that_needs_no_lease_stands_until_the_task_is_another_nodes() -> None:
    cluster, epoch = tolerant(grace_min=30)
    verdict = commit(cluster, facts(silent("B"), C))
    assert "B" in cluster.database().topology.rehabs
    assert verdict.voids == ()
    assert epochs(cluster, facts(silent("B"), C)) == []
    later = facts(silent("B"), C, now_ms=NOW_MS + 30 * 60_000)
    assert commit(cluster, later).voids == (), "its grace has only just ended"
    [void] = decide(cluster.record, later).voids
    assert void.epoch == epoch
    assert void.reason.endswith("; B may go on with it until it is heard again, as its kind needs no lease")
    commit(cluster, later)
    assert cluster.do(cluster.claim(cluster.placed("t").node or "", "t")) > epoch


def test_a_pinned_one_keeps_its_claim_for_ever() -> None:
    cluster, _ = tolerant(grace_min=0)
    cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now("t").id, mentor="B", pinned=True))
    for later_ms in (0, 1, 10**9):
        assert commit(cluster, facts(silent("B"), C, now_ms=NOW_MS + later_ms)).voids == ()


def test_the_claim_of_a_process_that_is_gone_for_certain_is_void_whatever_its_kind() -> None:
    cluster, epoch = tolerant(grace_min=30)
    assert cluster.announce("B", boot=2, nonce=8).error is None
    [void] = decide(cluster.record, facts(well("B"), C, over=FORMER)).voids
    assert (void.epoch, "may go on" in void.reason) == (epoch, False)


@pytest.mark.parametrize("what", ["task disabled", "database disabled", "task gone"])
def test_what_is_not_to_run_keeps_no_claim(what: str) -> None:
    cluster, epoch = tolerant(grace_min=30)
    match what:
        case "task disabled":
            cluster.do(SetTaskState(database="Northwind", id=cluster.task_now("t").id, disabled=True))
        case "database disabled":
            cluster.do(SetDatabaseState(name="Northwind", disabled=True))
        case "task gone":
            cluster.do(DeleteTask(database="Northwind", id=cluster.task_now("t").id))
    [void] = decide(cluster.record, facts(silent("B"), C)).voids
    assert (void.epoch, "may go on" in void.reason) == (epoch, what != "task gone")


def test_each_of_several_is_asked_of_its_own_database() -> None:
    cluster = RecordCluster("A", "B", "C")
    traits = KindTraits(partition_tolerant=True)
    for name in ("Stays", "Goes"):
        cluster.create("A", "B", "C", name=name)
        for task in ("t", "u"):
            cluster.task(task, database=name, mentor="B", pinned=name == "Stays", traits=traits)
            cluster.do(replace(cluster.claim("B", task), database=name))
    commit(cluster, facts(silent("B"), C))
    assert [end.key.split("/")[0] for end in decide(cluster.record, facts(silent("B"), C)).voids] == ["goes", "goes"]
