"""Pins without a mentor: the task is pinned to the node that holds it, or would get it."""

from typing import Any

import pytest
from immutables import Map
from msgspec.structs import replace

from raftnode.record.commands import Decide, PutTask, ReleaseTask, SetDraining, SetTaskPin, SetTaskState, VoidClaim
from raftnode.record.model import EndedRun, KindTraits, Task, claim_key
from raftnode.record.ownership import score, task_key
from tests.unit.record.build import KIND, RecordCluster

KEY = claim_key("Northwind", KIND, "t")


def three(**fields: Any) -> tuple[RecordCluster, Task]:
    cluster = RecordCluster("A", "B", "C")
    cluster.create("A", "B", "C")
    return cluster, cluster.task("t", **fields)


def pin(cluster: RecordCluster) -> str | None:
    """Pins the task to whatever node it has; that node."""
    cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now("t").id, mentor=None, pinned=True))
    task = cluster.task_now("t")
    assert task.pinned
    assert (cluster.placed("t").node, cluster.placed("t").rule) == (task.mentor, "PinnedMentor")
    return task.mentor


def held_by_another(cluster: RecordCluster) -> str:
    """The node that holds the task, which is not the one of the hash; the claim is left behind by a mentor."""
    other = next(tag for tag in "ABC" if tag != cluster.placed("t").node)
    id = cluster.task_now("t").id
    cluster.do(SetTaskPin(database="Northwind", id=id, mentor=other))
    cluster.do(cluster.claim(other, "t"))
    cluster.do(SetTaskPin(database="Northwind", id=id, mentor=None))
    return other


def test_the_holder_is_the_one_though_placement_names_another() -> None:
    cluster, _ = three()
    other = held_by_another(cluster)
    assert cluster.placed("t").node != other
    assert pin(cluster) == other


@pytest.mark.parametrize("how", ["never held", "released", "void", "holder leaves the group"])
def test_without_a_holder_it_is_the_node_that_would_get_it(how: str) -> None:
    cluster, _ = three()
    hashed = cluster.placed("t").node
    if how != "never held":
        holder = held_by_another(cluster)
        epoch = cluster.claimed("t").epoch
    match how:
        case "released":
            cluster.do(ReleaseTask(key=KEY, epoch=epoch))
        case "void":
            void = VoidClaim(key=KEY, epoch=epoch, reason="silent")
            cluster.do(Decide(term=1, iteration=1, at="", at_ms=0, voids=(void,)))
        case "holder leaves the group":
            database = replace(cluster.database(), deletion_in_progress=Map({holder: "HardDelete"}))
            cluster.record = replace(cluster.record, databases=Map({"northwind": database}))
    assert pin(cluster) == hashed


def test_a_sticky_task_is_pinned_to_where_it_last_ran() -> None:
    cluster, _ = three(traits=KindTraits(sticky=True))
    other = held_by_another(cluster)
    cluster.do(ReleaseTask(key=KEY, epoch=cluster.claimed("t").epoch))
    assert pin(cluster) == other


def test_a_task_that_is_disabled_or_held_back_is_pinned_to_where_it_would_run() -> None:
    cluster, task = three()
    hashed = cluster.placed("t").node
    cluster.do(SetTaskState(database="Northwind", id=task.id, disabled=True))
    endings = tuple(EndedRun(epoch=epoch, tag="A", state="EndedItsNode") for epoch in (1, 2))
    held_back = cluster.database().with_task(replace(cluster.task_now("t"), endings=endings))
    cluster.record = replace(cluster.record, databases=Map({"northwind": held_back}))
    cluster.do(SetTaskPin(database="Northwind", id=task.id, mentor=None, pinned=True))
    assert cluster.task_now("t").mentor == hashed


def test_a_pin_to_nobody_is_refused() -> None:
    cluster, task = three()
    for tag in "ABC":
        cluster.do(SetDraining(tag=tag, draining=True))
    said = (
        "BadRequestException: Task 't' cannot be pinned to its node, as it has none (NoMember). Name one in MentorNode."
    )
    assert cluster.refused(SetTaskPin(database="Northwind", id=task.id, mentor=None, pinned=True)) == said
    new = PutTask(database="Northwind", name="u", kind=KIND, key=1, pinned=True)
    assert "Task 'u' cannot be pinned to its node" in cluster.refused(new)


def test_a_new_task_is_pinned_to_the_node_that_gets_it_and_an_edit_pins_it_to_the_one_that_has_it() -> None:
    cluster, _ = three()
    made = cluster.task("new", pinned=True)
    assert made.mentor == max("ABC", key=lambda tag: score(made.key, tag, 1))
    other = held_by_another(cluster)
    task = cluster.task_now("t")
    cluster.do(PutTask(database="Northwind", id=task.id, name="t", kind=KIND, key=task.key, pinned=True))
    assert (cluster.task_now("t").mentor, cluster.task_now("t").pinned) == (other, True)
    cluster.do(PutTask(database="Northwind", id=task.id, name="renamed", kind=KIND, key=task.key, pinned=True))
    assert cluster.task_now("renamed").mentor == other, "it is held under its old name"


def test_without_a_pin_there_is_no_mentor_to_find_and_a_mentor_that_is_named_is_the_one() -> None:
    cluster, task = three()
    held_by_another(cluster)
    cluster.do(SetTaskPin(database="Northwind", id=task.id, mentor=None, pinned=False))
    assert (cluster.task_now("t").mentor, cluster.task_now("t").pinned) == (None, False)
    named = cluster.task("named", key=task_key(KIND, "named"), mentor="C", pinned=True)
    assert named.mentor == "C"
