"""A node that is replaced frees its tasks, of whatever kind, pinned and unlicensed ones too: one test a kind."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from observer.rules.facts import Facts, NodeFacts
from raftnode.record.commands import (
    AddDatabaseNode,
    PutConnectionString,
    PutTask,
    SetDynamicDistribution,
    SetLicence,
    SetTaskPin,
)
from raftnode.record.definition import TaskDefinition
from raftnode.record.model import claim_key
from raftnode.record.ownership import UPDATE_KIND, mentor_of
from tasks.kinds import registry
from tests.harness.samples import CONNECTIONS, TASKS
from tests.unit.observer.build import LIMITS, NOW_MS, commit, facts, group, silent, well
from tests.unit.record.build import RecordCluster


def test_there_is_a_sample_of_each_kind() -> None:
    assert {*TASKS, UPDATE_KIND} == {*registry.kinds()}


def seen(*nodes: NodeFacts, later_ms: int = 0) -> Facts:
    known = {n.tag: n for n in (*(well(tag) for tag in "ABCDE"), *nodes)}
    return facts(*known.values(), now_ms=NOW_MS + later_ms)


def three() -> RecordCluster:
    """A, B and C, in a group that may be healed by other nodes."""
    cluster = group("A", "B", "C")
    cluster.do(SetDynamicDistribution(name="Northwind", enable=True))
    for given in CONNECTIONS:
        string = {"database": "Northwind", "name": given["Name"], "type": given["Type"]}
        cluster.do(PutConnectionString(**string, configuration=json.dumps(given).encode()))
    return cluster


def put(cluster: RecordCluster, kind: str, name: str, **more: Any) -> None:
    """A task of that kind, which B holds."""
    given = TASKS[kind] | {"Name": name, "MentorNode": "B"} | more
    definition = registry.parsed(kind, given, cluster.database())
    fields = {field: getattr(definition, field) for field in TaskDefinition.__struct_fields__}
    cluster.do(PutTask(database="Northwind", **fields))
    cluster.do(replace(cluster.claim("B", name), kind=kind))


def replace_b(cluster: RecordCluster) -> None:
    """B is lost until D has taken its place and B is to be deleted."""
    commit(cluster, seen(silent("B")))
    late = seen(silent("B"), later_ms=LIMITS.replace_ms)
    for _ in range(3):
        commit(cluster, late)
    assert (set(cluster.database().topology.members), dict(cluster.database().deletion_in_progress)) == (
        {*"ACD"}, {"B": "HardDelete"}
    )  # fmt: skip
    commit(cluster, late)


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "unlicensed"])
@pytest.mark.parametrize("kind", TASKS)
def test_a_task_of_a_replaced_node_runs_on_another(kind: str, pinned: bool) -> None:
    cluster = three()
    cluster.do(SetLicence(highly_available_tasks=False))
    put(cluster, kind, "task", PinToMentorNode=pinned)
    if not pinned:
        cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now("task").id, mentor=None))
    commit(cluster, seen(silent("B")))
    assert cluster.placed("task").node == "B", "it waits for B while that is in the group"
    replace_b(cluster)
    taker = cluster.placed("task").node
    assert taker in ("A", "C", "D")
    assert cluster.record.claims[claim_key("Northwind", kind, "task")].state == "Void"


def test_an_update_of_a_replaced_mentor_is_anothers() -> None:
    cluster = three()
    cluster.do(AddDatabaseNode(name="Northwind", tag="E", mentor="B"))
    cluster.do(replace(cluster.claim("B", "E"), kind=UPDATE_KIND))
    commit(cluster, seen(silent("B")))
    assert mentor_of(cluster.record, cluster.database(), "E") in ("A", "C")
    assert cluster.record.claims[claim_key("Northwind", UPDATE_KIND, "E")].state == "Void"
