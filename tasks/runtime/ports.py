"""What the supervisor needs of the rest of the node."""

from typing import Protocol

from raftnode.documents.replication.sender import DocumentSender, SenderStatus
from raftnode.documents.store.store import DocumentStore
from raftnode.record.commands import Command
from raftnode.record.model import CommandResult, Record


class RunRequest(Protocol):
    """What a user asks of a run."""

    def unanswered(self) -> None:
        """The run has ended without having looked at it."""


class ReplicaPort(Protocol):
    """The record and how to change it; see `raftnode.cluster.replica.Replica`."""

    @property
    def record(self) -> Record: ...
    async def propose(self, command: Command) -> CommandResult: ...


class LeasePort(Protocol):
    """This node's lease; see `raftnode.liveness.heartbeat.Heartbeat`."""

    def check(self) -> None: ...
    @property
    def session(self) -> int | None: ...
    def has_lease(self, session: int | None = None) -> bool: ...


class TaskDatabasesPort(Protocol):
    """This node's copies of databases; see `raftnode.documents.databases.Databases`."""

    async def store(self, name: str) -> DocumentStore: ...
    def sends(self, folded: str, tag: str, sender: DocumentSender | None) -> None: ...
    def sent_to(self, folded: str, tag: str) -> SenderStatus | None: ...
