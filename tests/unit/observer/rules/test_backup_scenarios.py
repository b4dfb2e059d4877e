"""Scenarios 12, 19, 24, 33, 34 and 36 to 39: where backups and pinned tasks are, step by step.

RavenDB's observer decides about the owner of a backup and stores it. Here each node follows the ownership function, the
holder claims the task, and the last claim is what makes the task stay.
"""

import json
from typing import Any

import pytest
from immutables import Map
from msgspec.structs import replace

from observer.rules.decide import decide
from observer.rules.facts import Facts, NodeFacts
from raftnode.record.commands import (
    DeleteDatabase,
    DeleteTask,
    ProgressMade,
    PutTask,
    ReleaseTask,
    RemoveNode,
    SetTaskPin,
)
from raftnode.record.definition import TaskDefinition
from raftnode.record.model import Cause, Progress, claim_key
from tasks.kinds import registry
from tests.harness.samples import TASKS
from tests.unit.observer.build import NOW_MS, commit, facts, group, sentences, silent, well
from tests.unit.record.build import RecordCluster

BACKUP = "Backup"
KEY = claim_key("Northwind", BACKUP, "nightly")
GRACE_MS = 30 * 60_000


def seen(*nodes: NodeFacts, later_ms: int = 0) -> Facts:
    known = {n.tag: n for n in (*(well(tag) for tag in "ABCDE"), *nodes)}
    return facts(*known.values(), now_ms=NOW_MS + later_ms)


def put(cluster: RecordCluster, *, id: int = 0, **more: Any) -> int:
    """The nightly backup, as the kind defines it; its id."""
    given = TASKS[BACKUP] | {"Name": "nightly"} | more
    definition = registry.parsed(BACKUP, given, cluster.database())
    fields = {field: getattr(definition, field) for field in TaskDefinition.__struct_fields__}
    task_id: int = cluster.do(PutTask(database="Northwind", id=id, **fields))
    return task_id


def three(**more: Any) -> tuple[RecordCluster, str, int]:
    """A, B and C with a nightly backup, its holder, and its epoch."""
    cluster = group("A", "B", "C")
    put(cluster, **more)
    return cluster, (holder := placed(cluster)), claim(cluster, holder)


def placed(cluster: RecordCluster) -> str:
    """The node to which the backup belongs."""
    return cluster.placed("nightly").node or ""


def claim(cluster: RecordCluster, tag: str) -> int:
    """The node claims the backup; the epoch."""
    epoch: int = cluster.do(replace(cluster.claim(tag, "nightly"), kind=BACKUP))
    return epoch


def test_scenario_12_no_one_is_responsible_in_a_group_that_is_being_deleted() -> None:
    cluster, _, _ = three()
    cluster.do(DeleteDatabase(name="Northwind"))
    assert cluster.database().topology.all_nodes == ()
    assert (cluster.placed("nightly").node, cluster.placed("nightly").rule) == (None, "NoMember")


def test_scenario_19_an_edited_backup_keeps_its_id_and_its_node() -> None:
    cluster, holder, _ = three()
    other = next(tag for tag in "BC" if tag != holder)
    cluster.do(ReleaseTask(key=KEY, epoch=cluster.record.claims[KEY].epoch))
    cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now("nightly").id, mentor=other))
    claim(cluster, other)
    before = cluster.task_now("nightly")
    assert put(cluster, id=before.id, FullBackupFrequency="0 4 * * 1") == before.id
    after = cluster.task_now("nightly")
    assert json.loads(after.configuration)["FullBackupFrequency"] == "0 4 * * 1"
    assert (after.key, placed(cluster), cluster.placed("nightly").rule) == (before.key, other, "StickyHolder")


@pytest.mark.parametrize("kind", TASKS)
def test_scenario_24_a_task_that_is_pinned_to_a_node_that_is_down_waits_for_it_whatever_its_kind(kind: str) -> None:
    """RavenDB's is a replication hub, which this version has not; a pinned task of every kind does the same."""
    cluster = group("A", "B", "C")
    cluster.task("pinned", kind=kind, mentor="B", pinned=True)
    cluster.do(replace(cluster.claim("B", "pinned"), kind=kind))
    commit(cluster, seen(silent("B")))
    for later_ms in (0, 30_000, 10**9):
        commit(cluster, seen(silent("B"), later_ms=later_ms))
        assert cluster.placed("pinned").node == "B"
    commit(cluster, seen(later_ms=2 * 10**9))
    assert set(cluster.database().topology.members) == {*"ABC"}
    assert cluster.placed("pinned").node == "B"


def test_scenario_33_a_new_backup_has_a_holder_at_once_and_the_record_says_why() -> None:
    """RavenDB's observer says that there was no responsible node and which one it has set. Here there is one as soon
    as the task is put: its claim names the rule and the entry that it follows from."""
    cluster, holder, _ = three()
    assert holder in ("B", "C"), "not on the preferred node"
    held = cluster.record.claims[KEY]
    assert (held.tag, held.rule) == (holder, "Hash")
    assert held.cause == Cause(index=cluster.task_now("nightly").placement_index, what="Task")
    assert decide(cluster.record, seen()).sentences == ()


def test_scenario_34_a_mentor_holds_the_backup() -> None:
    """Nothing needs to be decided, so nothing is said; the claim has the rule."""
    cluster, holder, _ = three(MentorNode="A")
    assert (holder, cluster.record.claims[KEY].rule) == ("A", "Mentor")
    assert decide(cluster.record, seen()).sentences == ()


def test_scenario_36_a_lost_holder_is_followed_by_another_and_the_mentor_gets_it_back() -> None:
    cluster, _, _ = three(MentorNode="B")
    commit(cluster, seen(silent("B")))
    ended = commit(cluster, seen(silent("B"), later_ms=GRACE_MS))
    assert "Backup 'nightly' leaves B, which has been in Rehab for " in sentences(ended)
    commit(cluster, seen(silent("B"), later_ms=GRACE_MS))
    claim(cluster, taker := placed(cluster))
    assert taker in ("A", "C")
    commit(cluster, seen(later_ms=2 * GRACE_MS))
    assert "B" in cluster.database().topology.members
    assert (placed(cluster), cluster.placed("nightly").rule) == ("B", "Mentor")


def test_scenario_37_a_pinned_backup_stays_with_its_mentor_though_there_is_no_grace() -> None:
    cluster, _, epoch = three(MentorNode="B", PinToMentorNode=True)
    unkind = replace(cluster.database(), settings=Map({"Backup.MoveToNewResponsibleNodeGracePeriodInMin": "0"}))
    cluster.record = replace(cluster.record, databases=cluster.record.databases.set("northwind", unkind))
    for later_ms in (0, 1, GRACE_MS):
        commit(cluster, seen(silent("B"), later_ms=later_ms))
        assert (placed(cluster), cluster.record.claims[KEY].epoch) == ("B", epoch)
    commit(cluster, seen(later_ms=2 * GRACE_MS))
    assert (placed(cluster), cluster.record.claims[KEY].state) == ("B", "Held")


def test_scenario_38_a_holder_that_was_removed_is_followed_by_another_at_once() -> None:
    """RavenDB's log says that the node was removed from the topology. Here the next claim has the removal as its
    cause."""
    cluster, holder, _ = three()
    cluster.do(RemoveNode(tag=holder))
    removed = cluster.record.index
    assert placed(cluster) not in ("", holder)
    commit(cluster, seen(silent(holder)))
    taker = placed(cluster)
    claim(cluster, taker)
    assert cluster.record.claims[KEY].cause == Cause(index=removed, what="Group")


def test_scenario_39_of_a_deleted_backup_nothing_is_left() -> None:
    cluster, _, epoch = three()
    task = cluster.task_now("nightly")
    made = ProgressMade(
        database="Northwind", id=task.id, epoch=epoch, progress=Progress(generation=task.id, processed=1)
    )
    cluster.do(ReleaseTask(key=KEY, epoch=epoch, progress=made))
    assert cluster.database().progress[task.id].processed == 1
    cluster.do(DeleteTask(database="Northwind", id=task.id))
    assert (dict(cluster.database().tasks), dict(cluster.database().progress), dict(cluster.record.claims)) == (
        {},
        {},
        {},
    )
