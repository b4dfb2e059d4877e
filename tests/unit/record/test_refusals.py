"""Every refusal in full: the exception that clients see, the sentence with its remedy, and nothing else."""

from functools import cache

import pytest
from msgspec.structs import replace

from raftnode.record.commands import (
    AddDatabaseNode,
    AddNode,
    AnnounceNode,
    Changes,
    Command,
    CreateDatabase,
    Decide,
    DeleteConnectionString,
    DeleteDatabase,
    DeleteIndex,
    DeleteTask,
    Entry,
    PromoteDatabaseNode,
    PutConnectionString,
    PutIndex,
    PutTask,
    RemoveNode,
    ReorderMembers,
    RetryFailed,
    SetDatabaseState,
    SetDraining,
    SetDynamicDistribution,
    SetLockMode,
    SetNodeFlags,
    SetNodeKind,
    SetNodeTraits,
    SetTaskPin,
    SetTaskState,
    encode,
)
from raftnode.record.machine import Applied, apply
from raftnode.record.model import LABELS_MAX, NAME_LENGTH_MAX, CommandError, CommandResult, Record
from tests.unit.record.build import KIND, RecordCluster, node

LONG = "x" * (NAME_LENGTH_MAX + 1)


@cache
def world() -> Record:
    """C is no voter and in no group. Tasks by id: `t` (A runs it, in its second session), `off`, `picky`, `moved` (A
    runs it, B has it) and `gone`, which is deleted while A runs it."""
    cluster = RecordCluster("A", "B", node("C", kind="Watcher"))
    cluster.create("A", "B")
    cluster.connection()
    cluster.task("t", mentor="A", connection_string="Warehouse")
    cluster.task("off", mentor="A", disabled=True)
    cluster.task("picky", requires=("ssd",))
    cluster.task("moved", mentor="A")
    cluster.task("gone", mentor="A")
    for name in ("t", "moved", "gone"):
        cluster.do(cluster.claim("A", name, session=2))
    cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now("moved").id, mentor="B"))
    cluster.do(DeleteTask(database="Northwind", id=cluster.task_now("gone").id))
    for name, mode in (("Locked", "PreventDeletesError"), ("Stopped", "Unlock")):
        cluster.create("A", name=name)
        cluster.do(SetLockMode(name=name, mode=mode))  # type: ignore[arg-type]
    cluster.task("s", database="Stopped", mentor="A")
    cluster.do(SetDatabaseState(name="Stopped", disabled=True))
    cluster.create("A", "B", name="Leaving")
    cluster.do(DeleteDatabase(name="Leaving", from_nodes=("B",)))
    return cluster.record


def task_id(name: str) -> int:
    """The id of a task of Northwind."""
    return world().databases["northwind"].task_ids[name]


def put(name: str = "new", **fields: object) -> PutTask:
    return replace(PutTask(database="Northwind", name=name, kind=KIND, key=1), **fields)


def announce(**fields: object) -> AnnounceNode:
    known = world().nodes["A"]
    said = AnnounceNode(
        tag="A", node_id="id-A", boot=1, nonce=7, url=known.url, cluster_address=known.cluster_address, kinds=()
    )
    return replace(said, **fields)


CLAIM = RecordCluster().claim("A", "t", session=2)
BAD, CLAIMED, RACE = "BadRequestException", "ClaimRefusedException", "ConcurrencyException"
LIMIT, IDENTITY = "LimitExceededException", "NodeIdMismatchException"
NO_DATABASE = ("DatabaseDoesNotExistException", "Database 'Nope' does not exist. Create it first.")
NO_NODE = ("NodeDoesNotExistException", "Node 'Z' is not in the cluster. Known nodes: A, B, C.")
NO_TASK = ("TaskDoesNotExistException", "Database 'Northwind' has no task 5000.")

REFUSALS: list[tuple[Command, str, str]] = [
    (SetDraining(tag="Z", draining=True), *NO_NODE),
    (SetNodeKind(tag="Z", kind="Member"), *NO_NODE),
    (SetNodeFlags(tag="Z"), *NO_NODE),
    (SetNodeTraits(tag="Z"), *NO_NODE),
    (RemoveNode(tag="Z"), *NO_NODE),
    (announce(tag="Z"), *NO_NODE),
    (AddDatabaseNode(name="Northwind", tag="Z"), *NO_NODE),
    (CreateDatabase(name="New", nodes=("A", "Z")), *NO_NODE),
    (AddDatabaseNode(name="Nope", tag="C"), *NO_DATABASE),
    (PromoteDatabaseNode(name="Nope", tag="C"), *NO_DATABASE),
    (ReorderMembers(name="Nope", members=()), *NO_DATABASE),
    (DeleteDatabase(name="Nope"), *NO_DATABASE),
    (SetDynamicDistribution(name="Nope", enable=True), *NO_DATABASE),
    (SetDatabaseState(name="Nope", disabled=True), *NO_DATABASE),
    (SetLockMode(name="Nope", mode="Unlock"), *NO_DATABASE),
    (PutIndex(database="Nope", name="i", definition=b"{}"), *NO_DATABASE),
    (DeleteIndex(database="Nope", name="i"), *NO_DATABASE),
    (PutConnectionString(database="Nope", name="c", type="Sql", configuration=b"{}"), *NO_DATABASE),
    (DeleteConnectionString(database="Nope", name="c"), *NO_DATABASE),
    (put(database="Nope"), *NO_DATABASE),
    (SetTaskState(database="Nope", id=1, disabled=True), *NO_DATABASE),
    (SetTaskPin(database="Nope", id=1, mentor=None), *NO_DATABASE),
    (RetryFailed(database="Nope", id=1), *NO_DATABASE),
    (DeleteTask(database="Nope", id=1), *NO_DATABASE),
    (replace(CLAIM, database="Nope"), *NO_DATABASE),
    (put(id=5000), *NO_TASK),
    (SetTaskState(database="Northwind", id=5000, disabled=True), *NO_TASK),
    (SetTaskPin(database="Northwind", id=5000, mentor=None), *NO_TASK),
    (RetryFailed(database="Northwind", id=5000), *NO_TASK),
    (DeleteTask(database="Northwind", id=5000), *NO_TASK),
    (AddNode(node=node("abc")), BAD, "Node tag 'abc' must be one to four capital letters A-Z."),
    (AddNode(node=node("D", weight=101)), BAD, "Weight 101 is out of range; it must be 1 to 100."),
    (
        AddNode(node=node("D", labels=("a",) * (LABELS_MAX + 1))),
        LIMIT,
        "33 labels; at most 32 are allowed. Give fewer.",
    ),
    (AddNode(node=node("D", labels=("a,b",))), BAD, "A label must not hold a comma: 'a,b'. Give two labels instead."),
    (AddNode(node=node("D", labels=("",))), BAD, "A label must not be empty or start or end with blanks."),
    (AddNode(node=node("D", labels=(LONG,))), BAD, "A label is longer than 128 characters."),
    (AddNode(node=node("D", labels=("a\x1fb",))), BAD, "A label must not hold control characters."),
    (AddNode(node=node("A")), BAD, "Node tag 'A' is taken. Choose another tag, or remove that node first."),
    (AddNode(node=node("D", url=node("B").url)), BAD, "Node 'B' has the same address. Choose another."),
    (
        AddNode(node=node("D", cluster_address=node("B").cluster_address)),
        BAD,
        "Node 'B' has the same address. Choose another.",
    ),
    (
        announce(node_id="other"),
        IDENTITY,
        "Node 'A' is known under another id: its data directory was lost or cloned. Remove 'A' from the cluster and "
        "join under a new tag.",
    ),
    (
        announce(boot=0),
        IDENTITY,
        "Node 'A' has started 1 times before, this one only 0: its data directory is a copy. Stop the copy.",
    ),
    (
        announce(nonce=8),
        IDENTITY,
        "Another process runs as node 'A' since start 1 of its data directory, and this one is start 1 of the same: "
        "its data directory is a copy, or two processes use it. Stop this one, and let it join under a new tag with an "
        "empty directory.",
    ),
    (
        announce(boot=2, nonce=0),
        IDENTITY,
        "Another process runs as node 'A' since start 1 of its data directory, and this one is start 2 of the same: "
        "its data directory is a copy, or two processes use it. Stop this one, and let it join under a new tag with an "
        "empty directory.",
    ),
    (
        CreateDatabase(name="northwind", nodes=("A",)),
        RACE,
        "Database 'northwind' exists already. Choose another name, or update the database.",
    ),
    (CreateDatabase(name="New", nodes=("A", "A")), BAD, "The database group names a node twice."),
    (
        CreateDatabase(name="New", replication_factor=0),
        BAD,
        "Replication factor 0 does not fit a cluster of 3 nodes; it must be 1 to 3.",
    ),
    (
        CreateDatabase(name="New", replication_factor=4),
        BAD,
        "Replication factor 4 does not fit a cluster of 3 nodes; it must be 1 to 3.",
    ),
    (CreateDatabase(name=""), BAD, "Database name must not be empty or start or end with blanks."),
    (CreateDatabase(name="a "), BAD, "Database name must not be empty or start or end with blanks."),
    (
        CreateDatabase(name="a/b"),
        BAD,
        "Database name 'a/b' may hold only letters, digits, '_', '-' and '.', and not start with '.'.",
    ),
    (
        CreateDatabase(name=".a"),
        BAD,
        "Database name '.a' may hold only letters, digits, '_', '-' and '.', and not start with '.'.",
    ),
    (CreateDatabase(name=LONG), BAD, "Database name is longer than 128 characters."),
    (DeleteDatabase(name="Locked"), "DatabaseLockedException", "Database 'Locked' is locked against deletion."),
    (DeleteDatabase(name="Northwind", from_nodes=("A", "C")), BAD, "Node 'C' does not hold database 'Northwind'."),
    (AddDatabaseNode(name="Northwind", tag="B"), BAD, "Node 'B' holds database 'Northwind' already."),
    (AddDatabaseNode(name="Leaving", tag="B"), BAD, "Node 'B' still deletes 'Leaving'. Try again later."),
    (
        AddDatabaseNode(name="Northwind", tag="C", mentor="C"),
        BAD,
        "Mentor 'C' is not a Member of 'Northwind'. Members: A, B.",
    ),
    (PromoteDatabaseNode(name="Northwind", tag="C"), BAD, "Node 'C' does not hold database 'Northwind'."),
    (ReorderMembers(name="Northwind", members=("A", "A")), BAD, "MembersOrder must name each Member once: A, B."),
    (
        PutIndex(database="Northwind", name="i ", definition=b"{}"),
        BAD,
        "Index name must not be empty or start or end with blanks.",
    ),
    (
        PutConnectionString(database="Northwind", name="", type="Sql", configuration=b"{}"),
        BAD,
        "Connection string name must not be empty or start or end with blanks.",
    ),
    (
        PutConnectionString(database="Northwind", name="warehouse", type="Raven", configuration=b"{}"),
        BAD,
        "Connection string 'warehouse' is of type Sql. Choose another name.",
    ),
    (
        DeleteConnectionString(database="Northwind", name="warehouse"),
        BAD,
        "Connection string 'warehouse' is used by: t. Change or delete these tasks first.",
    ),
    (put(""), BAD, "Task name must not be empty or start or end with blanks."),
    (put(kind="Update"), BAD, "Task kind 'Update' is not a kind of ongoing task."),
    (put(kind="a/b"), BAD, "Task kind 'a/b' is not a kind of ongoing task."),
    (put(key=-1), BAD, "Task key -1 is out of range; it must be 0 to 18446744073709551615."),
    (put(requires=("a,b",)), BAD, "A label must not hold a comma: 'a,b'. Give two labels instead."),
    (put(connection_string="Nope"), BAD, "Connection string 'Nope' does not exist. Create it first."),
    (put("T"), BAD, "Task name 'T' is used by task 4. Choose another name."),
    (put("T", id=task_id("off")), BAD, "Task name 'T' is used by task 4. Choose another name."),
    (put(id=task_id("t"), kind="RavenEtl"), BAD, "Task 4 is of kind SqlEtl and stays so."),
    (put("t", id=task_id("t"), etag=1), RACE, "Task 4 was edited meanwhile (etag 4, yours 1). Read it again."),
    (
        put("gone", id=task_id("t")),
        RACE,
        "A task named 'gone' was deleted and its run has not ended yet. Try again in a moment.",
    ),
    (replace(CLAIM, name="new"), "TaskDoesNotExistException", "Database 'Northwind' has no SqlEtl 'new'."),
    (replace(CLAIM, kind="RavenEtl"), "TaskDoesNotExistException", "Database 'Northwind' has no RavenEtl 't'."),
    (replace(CLAIM, name="off"), CLAIMED, "Task 'off' is disabled."),
    (replace(CLAIM, database="Stopped", name="s"), CLAIMED, "Task 's' is disabled."),
    (replace(CLAIM, name="picky"), CLAIMED, "Node 'A' is not responsible for 'picky'; no node is (NoMember)."),
    (replace(CLAIM, name="moved"), CLAIMED, "Node 'A' is not responsible for 'moved'; B is (Mentor)."),
    (replace(CLAIM, session=1), CLAIMED, "Session 1.1 has ended."),
    (replace(CLAIM, node_id="other"), CLAIMED, "Node 'A' is not known under the id other."),
    (replace(CLAIM, tag="Z"), CLAIMED, "Node 'Z' is not known under the id id-A."),
    (
        replace(CLAIM, nonce=8),
        CLAIMED,
        "This process is start 1 of node 'A', and another one, of start 1, has announced itself.",
    ),
    (replace(CLAIM, tag="B", node_id="id-B", name="moved"), CLAIMED, "Node 'A' still holds epoch 10."),
    (
        Decide(term=2, iteration=1, at="", at_ms=0),
        "NotLeadingException",
        "Decided in term 2 and logged in term 1: a decision never outlives its term.",
    ),
]


@pytest.mark.parametrize(("command", "kind", "message"), REFUSALS)
def test_a_refusal_names_what_is_wrong_and_the_remedy_and_changes_nothing(
    command: Command, kind: str, message: str
) -> None:
    entry = Entry(world().index + 1, 1)
    assert apply(world(), entry, encode(command)) == Applied(
        record=replace(world(), index=entry.index),
        result=CommandResult(index=entry.index, error=CommandError(type=kind, message=message)),
        changes=Changes(),
    )
