"""A task whose runs have ended two nodes is held back by the record, until it is edited or enabled by hand."""

import pytest
from msgspec.structs import replace

from raftnode.record.commands import BlameTask, Decide, DeleteTask, PutTask, ReleaseTask, SetTaskState, VoidClaim
from raftnode.record.model import EndedRun, claim_key
from raftnode.record.ownership import held_back, task_key
from tests.unit.record.build import KIND, RecordCluster

KEY = claim_key("Northwind", KIND, "t")


@pytest.fixture
def cluster() -> RecordCluster:
    cluster = RecordCluster("A", "B")
    cluster.create("A", "B")
    cluster.task("t", mentor="A")
    return cluster


def run(cluster: RecordCluster) -> int:
    """The epoch of a run on A that is over."""
    epoch = int(cluster.do(cluster.claim("A", "t")))
    cluster.do(ReleaseTask(key=KEY, epoch=epoch))
    return epoch


def blame(epoch: int, key: str = KEY) -> BlameTask:
    return BlameTask(key=key, epoch=epoch, tag="A", reason="in body")


def test_the_second_run_that_ends_its_node_is_the_last(cluster: RecordCluster) -> None:
    assert cluster.do(blame(run(cluster)))
    assert not held_back(cluster.task_now("t"))
    assert cluster.placed("t").node == "A"
    epoch = run(cluster)
    assert cluster.do(blame(epoch))
    assert (cluster.placed("t").node, cluster.placed("t").rule) == (None, "HeldBack")
    assert [(e.tag, e.state, e.reason) for e in cluster.task_now("t").endings] == [("A", "EndedItsNode", "in body")] * 2
    assert "HeldBack" in cluster.refused(cluster.claim("A", "t"))


def test_a_run_counts_once_and_one_before_the_last_edit_not_at_all(cluster: RecordCluster) -> None:
    first = run(cluster)
    cluster.do(PutTask(database="Northwind", id=cluster.task_now("t").id, name="t", kind=KIND, key=1))
    assert not cluster.do(blame(first))
    epoch = int(cluster.do(cluster.claim(cluster.placed("t").node or "", "t")))
    assert cluster.do(blame(epoch))
    assert not cluster.do(blame(epoch))
    assert len(cluster.task_now("t").endings) == 1


def test_a_task_that_is_gone_and_an_update_are_not_blamed(cluster: RecordCluster) -> None:
    epoch = run(cluster)
    cluster.do(DeleteTask(database="Northwind", id=cluster.task_now("t").id))
    assert not cluster.do(blame(epoch))
    topology = replace(cluster.database().topology, members=("A",), promotables=("B",))
    database = replace(cluster.database(), topology=topology)
    cluster.record = replace(cluster.record, databases=cluster.record.databases.set("northwind", database))
    assert not cluster.do(blame(epoch, claim_key("Northwind", "Update", "B")))


@pytest.mark.parametrize("by", ["edit", "enable"])
def test_it_is_let_go_by_hand(cluster: RecordCluster, by: str) -> None:
    for _ in range(2):
        cluster.do(blame(run(cluster)))
    id = cluster.task_now("t").id
    cluster.do(SetTaskState(database="Northwind", id=id, disabled=True))
    assert held_back(cluster.task_now("t"))
    if by == "edit":
        cluster.do(PutTask(database="Northwind", id=id, name="t", kind=KIND, key=task_key(KIND, "t"), mentor="A"))
    else:
        cluster.do(SetTaskState(database="Northwind", id=id, disabled=False))
    assert cluster.task_now("t").endings == ()
    assert cluster.placed("t").node == "A"


def test_one_that_has_ended_a_node_and_whose_next_node_falls_silent_is_taken_to_have_ended_both(
    cluster: RecordCluster,
) -> None:
    def silent() -> None:
        epoch = int(cluster.do(cluster.claim("A", "t")))
        voided = VoidClaim(key=KEY, epoch=epoch, reason="A has not been heard")
        cluster.do(Decide(term=1, iteration=1, at="", at_ms=0, voids=(voided,)))

    silent()
    assert cluster.task_now("t").endings == ()
    cluster.do(blame(run(cluster)))
    silent()
    assert held_back(cluster.task_now("t"))
    epoch, reason = cluster.claimed("t").epoch, "its node fell silent: A has not been heard"
    assert cluster.task_now("t").endings[1] == EndedRun(epoch=epoch, tag="A", state="EndedItsNode", reason=reason)
    assert not cluster.do(blame(cluster.task_now("t").endings[1].epoch))


def test_a_silence_after_an_edit_is_held_against_nobody(cluster: RecordCluster) -> None:
    cluster.do(blame(run(cluster)))
    epoch = int(cluster.do(cluster.claim("A", "t")))
    cluster.do(SetTaskState(database="Northwind", id=cluster.task_now("t").id, disabled=True))
    voided = VoidClaim(key=KEY, epoch=epoch, reason="A has not been heard")
    cluster.do(Decide(term=1, iteration=1, at="", at_ms=0, voids=(voided,)))
    assert len(cluster.task_now("t").endings) == 1
