"""What the supervisor needs of the rest of the node."""

from typing import Protocol

from raftnode.documents.replication.sender import Replication
from raftnode.documents.store.store import DocumentStore
from raftnode.record.commands import Command
from raftnode.record.model import Record, Result


class Replica(Protocol):
    """The record and how to change it; see `raftnode.cluster.replica.Replica`."""

    @property
    def record(self) -> Record: ...
    async def propose(self, command: Command) -> Result: ...


class Lease(Protocol):
    """This node's lease; see `raftnode.liveness.heartbeat.Heartbeat`."""

    def check(self) -> None: ...
    @property
    def session(self) -> int | None: ...
    def has_lease(self, session: int | None = None) -> bool: ...


class Databases(Protocol):
    """This node's copies of databases; see `raftnode.documents.databases.Databases`."""

    async def store(self, name: str) -> DocumentStore: ...
    def sends(self, folded: str, tag: str, sender: Replication | None) -> None: ...
