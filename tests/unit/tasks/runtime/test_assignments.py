"""What is remembered of placement is what placement says, after any change."""

import random

import pytest
from msgspec.structs import replace

from raftnode.foundation.incarnation import NodeIncarnation
from raftnode.record.commands import DeleteTask, PutTask, SetTaskPin, SetTaskState
from raftnode.record.model import Database, KindTraits, Record
from raftnode.record.ownership import task_key
from tasks.runtime import assignments
from tasks.runtime.assignments import Assignments
from tasks.runtime.plan import assignments_of_node
from tests.unit.record.build import KIND, RecordCluster

OWN = NodeIncarnation("A", "id-A", 1, 0)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_remembered_is_what_placement_says(seed: int) -> None:
    chance = random.Random(seed)
    cluster = RecordCluster("A", "B")
    cluster.create("A", "B")
    cluster.connection("Warehouse")
    assigned = Assignments(OWN)
    for _ in range(150):
        _happen(cluster, chance)
        if chance.random() < 0.7:
            assert assigned(cluster.record) == assignments_of_node(cluster.record, OWN)


def _happen(cluster: RecordCluster, chance: random.Random) -> None:
    tasks = list(cluster.database().tasks.values())
    task = chance.choice(tasks) if tasks else None
    name = f"t{chance.randrange(8)}"
    mentor = chance.choice([None, "A", "B"])
    traits = KindTraits(sticky=chance.random() < 0.3)
    put = PutTask(
        database="Northwind", name=name, kind=KIND, key=task_key(KIND, name), mentor=mentor, traits=traits,
        connection_string=chance.choice([None, "Warehouse"]),
    )  # fmt: skip
    match chance.randrange(8) if task else 0:
        case 0 | 1:
            cluster.apply(put)
        case 2:
            assert task is not None
            cluster.apply(replace(put, id=task.id))
        case 3:
            assert task is not None
            cluster.apply(DeleteTask(database="Northwind", id=task.id))
        case 4:
            assert task is not None
            cluster.apply(SetTaskState(database="Northwind", id=task.id, disabled=chance.random() < 0.5))
        case 5:
            assert task is not None
            cluster.apply(SetTaskPin(database="Northwind", id=task.id, mentor=mentor))
        case 6:
            assert task is not None
            cluster.apply(cluster.claim(chance.choice("AB"), task.name))
            for key, claim in cluster.record.claims.items():
                # As if the other node had held it last.
                cluster.record = cluster.record.with_claim(key, replace(claim, tag=chance.choice("AB")))
            if chance.random() < 0.3:
                keeps = not cluster.record.highly_available_tasks
                cluster.record = replace(cluster.record, highly_available_tasks=keeps)
        case _:
            cluster.connection("Warehouse")


def test_a_change_elsewhere_gives_the_very_same_mapping() -> None:
    cluster = RecordCluster("A", "B")
    cluster.create("A", "B")
    cluster.task("mine", mentor="A")
    assigned = Assignments(OWN)
    before = assigned(cluster.record)
    cluster.task("theirs", mentor="B")
    cluster.create("B", name="Other")
    assert assigned(cluster.record) is not None
    cluster.claim("B", "theirs")
    after = assigned(cluster.record)
    cluster.do(cluster.claim("A", "mine"))
    assert assigned(cluster.record) is after
    assert before.keys() == after.keys()


def test_a_change_of_one_database_evaluates_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = RecordCluster("A", "B")
    for name in ("Northwind", "Other", "Third"):
        cluster.create("A", "B", name=name)
    assigned = Assignments(OWN)
    assigned(cluster.record)
    evaluated: list[str] = []
    evaluate = assignments._shared

    def shared(record: Record, database: Database) -> tuple[object, ...]:
        evaluated.append(database.name)
        return evaluate(record, database)

    monkeypatch.setattr(assignments, "_shared", shared)
    cluster.task("mine", mentor="A")
    assert assigned(cluster.record) == assignments_of_node(cluster.record, OWN)
    cluster.do(cluster.claim("A", "mine"))
    assigned(cluster.record)
    assert evaluated == ["Northwind"], "a claim concerns nobody while the history decides nothing"
    cluster.record = replace(cluster.record, highly_available_tasks=False)
    assigned(cluster.record)
    assert sorted(evaluated[1:]) == ["Northwind", "Other", "Third"]


def test_databases_that_are_gone_are_forgotten_also_when_as_many_have_come() -> None:
    cluster = RecordCluster("A", "B")
    cluster.create("A", "B")
    cluster.task("mine", mentor="A")
    assigned = Assignments(OWN)
    assert len(assigned(cluster.record)) == 1
    databases = cluster.record.databases
    (folded,) = databases
    cluster.record = replace(
        cluster.record, databases=databases.delete(folded).set("new", replace(databases[folded], name="New"))
    )
    assert assigned(cluster.record) == assignments_of_node(cluster.record, OWN)
    cluster.record = replace(cluster.record, databases=databases.delete(folded))
    assert assigned(cluster.record) == {}
