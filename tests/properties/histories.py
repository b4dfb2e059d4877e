"""Histories of commands that mostly hold: each step is drawn from what the record is at that moment."""

import random
from collections.abc import Callable

from msgspec.structs import replace

from raftnode.record.commands import (
    AddDatabaseNode,
    AddNode,
    AdvanceCounter,
    AnnounceNode,
    Checkpoint,
    ClaimTask,
    Command,
    ConfirmDeletion,
    CreateDatabase,
    Decide,
    DeleteDatabase,
    DeleteTask,
    GraceEnd,
    NewTopology,
    ProgressMade,
    PromoteDatabaseNode,
    PutTask,
    ReleaseTask,
    RemoveNode,
    RetryFailed,
    SetCounter,
    SetDatabaseState,
    SetDraining,
    SetNodeFlags,
    SetTaskPin,
    SetTaskState,
    VoidClaim,
)
from raftnode.record.model import ClusterNode, Database, KindTraits, Progress, Record, Topology
from raftnode.record.ownership import responsible_node, task_key
from tests.unit.record.build import KIND, RecordCluster, node

Chance = random.Random
TAGS = ("A", "B", "C", "D")
DATABASES = ("Northwind", "Other")
NAMES = ("t", "u", "T", "v")


def _tags(chance: Chance) -> tuple[str, ...]:
    return tuple(chance.sample(TAGS, chance.randint(0, 3)))


def _database(record: Record, chance: Chance) -> Database | None:
    return record.database(chance.choice(DATABASES))


def _task_id(record: Record, chance: Chance) -> tuple[str, int]:
    database = _database(record, chance)
    if database is None or not database.tasks:
        return "Northwind", chance.randint(1, 9)
    return database.name, chance.choice(sorted(database.tasks))


def _claim_task(record: Record, chance: Chance) -> Command:
    name, id = _task_id(record, chance)
    database = record.database(name)
    task = database.tasks.get(id) if database else None
    placed = responsible_node(record, database, task).node if database and task else None
    tag = placed if placed and chance.random() < 0.7 else chance.choice(TAGS)
    known, sure = record.nodes.get(tag), chance.random() < 0.8
    return ClaimTask(
        database=name,
        kind=KIND,
        name=task.name if task else chance.choice(NAMES),
        tag=tag,
        node_id=record.nodes[tag].node_id if tag in record.nodes else "gone",
        boot=known.boot if known and sure else chance.randint(1, 2),
        nonce=known.nonce if known and sure else chance.randint(0, 2),
        session=chance.randint(0, 2),
    )


def _some_claim(record: Record, chance: Chance) -> tuple[str, int]:
    key = chance.choice(sorted(record.claims)) if record.claims else "northwind/SqlEtl/t"
    epochs = [claim.epoch for claim in record.claims.values()] or [1]
    right = record.claims[key].epoch if key in record.claims else 1
    return key, right if chance.random() < 0.7 else chance.choice(epochs) - chance.randint(0, 1)


def _made(record: Record, chance: Chance) -> ProgressMade:
    name, id = _task_id(record, chance)
    database = record.database(name)
    known = database.progress.get(id) if database else None
    progress = Progress(
        generation=known.generation if known and chance.random() < 0.8 else chance.randint(1, 40),
        processed=chance.randint(0, 20),
    )
    return ProgressMade(database=name, id=id, epoch=_some_claim(record, chance)[1], progress=progress)


def _release(record: Record, chance: Chance) -> Command:
    key, epoch = _some_claim(record, chance)
    return ReleaseTask(key=key, epoch=epoch, progress=_made(record, chance) if chance.random() < 0.5 else None)


def _decide(record: Record, chance: Chance) -> Command:
    database = _database(record, chance)
    topologies: tuple[NewTopology, ...] = ()
    if database is not None:
        group = Topology(members=_tags(chance), rehabs=_tags(chance), promotables=_tags(chance))
        etag, gone = database.etag - chance.randint(0, 1), _tags(chance)
        topologies = (
            NewTopology(database=database.name, etag=etag, topology=group, demoted=group.rehabs, removed=gone),
        )
    key, epoch = _some_claim(record, chance)
    voids = (VoidClaim(key=key, epoch=epoch, reason="silent"),) if chance.random() < 0.5 else ()
    return Decide(
        term=chance.randint(1, 2),
        iteration=1,
        at="now",
        at_ms=chance.randint(0, 10**8),
        topologies=topologies,
        voids=voids,
        graces=(GraceEnd(*_some_claim(record, chance)),),
        decisions=(("Northwind", "a sentence"),),
    )


def _put_task(record: Record, chance: Chance) -> Command:
    database, id = _task_id(record, chance)
    return PutTask(
        database=database,
        name=chance.choice(NAMES),
        kind=KIND,
        key=task_key(KIND, str(chance.randint(0, 9))),
        id=id if chance.random() < 0.5 else 0,
        mentor=chance.choice((None, *TAGS)),
        pinned=chance.random() < 0.3,
        traits=KindTraits(sticky=chance.random() < 0.3),
        reset=chance.random() < 0.2,
    )


def _edit_task(record: Record, chance: Chance) -> Command:
    database, id = _task_id(record, chance)
    if chance.random() < 0.2:
        return DeleteTask(database=database, id=id)
    if chance.random() < 0.5:
        return SetTaskState(database=database, id=id, disabled=chance.random() < 0.3)
    if chance.random() < 0.2:
        return RetryFailed(database=database, id=id)
    return SetTaskPin(database=database, id=id, mentor=chance.choice((None, *TAGS)))


def _edit_database(record: Record, chance: Chance) -> Command:
    name, tag = chance.choice(DATABASES), chance.choice(TAGS)
    edits: list[Command] = [
        CreateDatabase(name=name, nodes=_tags(chance), dynamic_nodes_distribution=True),
        CreateDatabase(name=name, replication_factor=chance.randint(1, 3)),
        DeleteDatabase(name=name, from_nodes=_tags(chance)),
        ConfirmDeletion(name=name, tag=tag),
        AddDatabaseNode(name=name, tag=tag),
        PromoteDatabaseNode(name=name, tag=tag),
        SetDatabaseState(name=name, disabled=chance.random() < 0.3),
        AdvanceCounter(database=name, name="users|", count=chance.randint(0, 3), above=chance.randint(0, 9)),
        SetCounter(database=name, name="users|", value=chance.randint(-1, 9), back=chance.random() < 0.5),
    ]
    return chance.choice(edits)


def _announcement(record: Record, tag: str, chance: Chance) -> Command:
    known = record.nodes.get(tag, node(tag))
    return AnnounceNode(
        tag=tag,
        node_id=known.node_id,
        boot=known.boot + chance.randint(-1, 1),
        nonce=chance.randint(0, 2),
        url=known.url,
        cluster_address=known.cluster_address,
        kinds=(KIND,),
    )


def _newcomer(tag: str, chance: Chance) -> ClusterNode:
    """A node, at times with addresses that others may have."""
    at, beside = (tag, tag) if chance.random() < 0.5 else (chance.choice(TAGS), chance.choice(TAGS))
    return replace(
        node(tag, node_id=f"id-{tag}{chance.randint(0, 1)}"),
        url=node(at).url,
        cluster_address=node(beside).cluster_address,
    )


def _edit_cluster(record: Record, chance: Chance) -> Command:
    tag = chance.choice(TAGS)
    edits: list[Command] = [
        AddNode(node=_newcomer(tag, chance)),
        RemoveNode(tag=tag),
        _announcement(record, tag, chance),
        SetDraining(tag=tag, draining=chance.random() < 0.5),
        SetNodeFlags(tag=tag, flags=chance.choice(((), ("OutOfCpuCredits",)))),
    ]
    return chance.choice(edits)


STEPS: tuple[tuple[int, Callable[[Record, Chance], Command]], ...] = (
    (8, _claim_task),
    (4, _release),
    (3, lambda record, chance: Checkpoint(made=(_made(record, chance), _made(record, chance)))),
    (3, _decide),
    (3, _put_task),
    (2, _edit_task),
    (2, _edit_database),
    (1, _edit_cluster),
)


def play(seed: int, length: int) -> tuple[list[tuple[Command, str, int]], list[Record]]:
    """A history of (command, request id, term), and the record before each step and after the last."""
    chance = random.Random(seed)
    cluster = RecordCluster("A", "B", "C")
    cluster.create("A", "B")
    cluster.task("t")
    records, history = [cluster.record], []
    for _ in range(length):
        (make,) = chance.choices([make for _, make in STEPS], [weight for weight, _ in STEPS])
        command = make(cluster.record, chance)
        request_id, term = chance.choice(("", "", "", "r1", "r2")), chance.randint(1, 2)
        cluster.apply(command, request_id=request_id, term=term)
        history.append((command, request_id, term))
        records.append(cluster.record)
    return history, records
