"""Small records for tests: every one is made by applying real commands, as on a real node."""

from typing import Any

from immutables import Map

from raftnode.record.commands import (
    AnnounceNode,
    ClaimTask,
    Command,
    CreateDatabase,
    Decide,
    FormCluster,
    PutConnectionString,
    PutTask,
    ReleaseTask,
    RemoveNode,
    encode,
)
from raftnode.record.commands.base import Entry
from raftnode.record.machine import Applied, apply
from raftnode.record.model import Claim, ClusterNode, CommandResult, Database, Record, Task, Timings, claim_key
from raftnode.record.ownership import Placement, responsible_node, task_key

TIMINGS = Timings(heartbeat_ms=40, lease_ms=450, task_stop_timeout_ms=150, time_before_moving_to_rehab_ms=750)
KIND = "SqlEtl"
NONCE = 7
"""Of every process, unless a test says otherwise."""


def node(tag: str, **fields: Any) -> ClusterNode:
    """A node with addresses and an id made from its tag."""
    defaults: dict[str, Any] = {
        "url": f"http://{tag.lower()}:8080",
        "cluster_address": f"{tag.lower()}:38888",
        "node_id": f"id-{tag}",
        "boot": 1,
        "nonce": NONCE,
    }
    return ClusterNode(tag=tag, **(defaults | fields))


CHANGE_CLAIMS = (ClaimTask, ReleaseTask, Decide)
"""With the others claims only go, or are renamed, together with their tasks."""


def check_changes(command: Command, before: Record, applied: Applied) -> None:
    """Raises AssertionError unless an entry names exactly what it has changed: whoever follows the record looks at
    nothing else."""
    after, changes = applied.record, applied.changes
    assert changes.databases == _changed(before.databases, after.databases), command
    assert changes.claims == (_changed(before.claims, after.claims) if isinstance(command, CHANGE_CLAIMS) else set())
    of_cluster = (before.nodes, before.timings, before.cluster_id, before.observer.suspended) != (
        (after.nodes, after.timings, after.cluster_id, after.observer.suspended)
    )
    assert changes.cluster or not of_cluster, command
    assert not changes.cluster or not (changes.databases or changes.claims) or isinstance(command, RemoveNode), command


def _changed(before: Map[str, Any], after: Map[str, Any]) -> set[str]:
    return {key for key in {*before, *after} if before.get(key) is not after.get(key)}


class RecordCluster:
    """A log of one: applies commands one after the other and keeps the newest record."""

    def __init__(self, *nodes: str | ClusterNode, term: int = 1) -> None:
        self.record = Record()
        self.term = term
        made = tuple(n if isinstance(n, ClusterNode) else node(n) for n in nodes)
        if made:
            self.do(FormCluster(cluster_id="c1", nodes=made, timings=TIMINGS))

    def apply(self, command: Command, *, request_id: str = "", term: int | None = None) -> Applied:
        """Applies the command at the next index; the result may be a refusal."""
        entry = Entry(self.record.index + 1, self.term if term is None else term)
        before, applied = self.record, apply(self.record, entry, encode(command, request_id))
        check_changes(command, before, applied)
        self.record = applied.record
        return applied

    def do(self, command: Command, **how: Any) -> Any:
        """Applies a command that must hold, and gives its value."""
        result = self.apply(command, **how).result
        assert result.error is None, result.error
        return result.value

    def refused(self, command: Command, **how: Any) -> str:
        """Applies a command that must be refused; gives the exception's name and its sentence."""
        before = self.record
        result = self.apply(command, **how).result
        assert result.error is not None, result
        assert self.record.databases == before.databases
        assert self.record.nodes == before.nodes
        assert self.record.claims == before.claims
        assert result.value is None
        assert result.error.type.isalnum()
        assert result.error.type.endswith("Exception"), "a kind that clients know, and not its sentence"
        return f"{result.error.type}: {result.error.message}"

    def create(self, *members: str, name: str = "Northwind", **fields: Any) -> Database:
        """A database on these nodes."""
        self.do(CreateDatabase(name=name, nodes=members, **fields))
        return self.database(name)

    def database(self, name: str = "Northwind") -> Database:
        """The database as it is now."""
        database = self.record.database(name)
        assert database is not None
        return database

    def task(self, name: str, *, database: str = "Northwind", **fields: Any) -> Task:
        """A task of that name is added."""
        defaults: dict[str, Any] = {"kind": KIND, "key": task_key(KIND, name)}
        self.do(PutTask(database=database, name=name, **(defaults | fields)))
        return self.task_now(name, database)

    def task_now(self, name: str, database: str = "Northwind") -> Task:
        """The task as it is now."""
        task = self.database(database).task_named(name)
        assert task is not None
        return task

    def connection(self, name: str = "Warehouse", database: str = "Northwind", type: str = "Sql") -> None:
        """A connection string of that name is put."""
        self.do(PutConnectionString(database=database, name=name, type=type, configuration=b"{}"))

    def announce(self, tag: str, **fields: Any) -> CommandResult:
        """The node says who it is."""
        known = self.record.nodes[tag]
        defaults: dict[str, Any] = {
            "node_id": f"id-{tag}",
            "boot": 1,
            "nonce": NONCE,
            "url": known.url,
            "cluster_address": known.cluster_address,
            "kinds": (KIND,),
        }
        return self.apply(AnnounceNode(tag=tag, **(defaults | fields))).result

    def claim(
        self,
        tag: str,
        name: str,
        *,
        session: int = 1,
        boot: int = 1,
        nonce: int = NONCE,
        node_id: str | None = None,
    ) -> ClaimTask:
        """The command with which the node claims the task."""
        return ClaimTask(
            database="Northwind",
            kind=KIND,
            name=name,
            tag=tag,
            node_id=node_id or f"id-{tag}",
            boot=boot,
            nonce=nonce,
            session=session,
        )

    def claimed(self, name: str, kind: str = KIND, database: str = "Northwind") -> Claim:
        """The task's last claim."""
        return self.record.claims[claim_key(database, kind, name)]

    def placed(self, name: str, database: str = "Northwind") -> Placement:
        """Where the task belongs now."""
        return responsible_node(self.record, self.database(database), self.task_now(name, database))
