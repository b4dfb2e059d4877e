"""What the web needs of the rest of the node, and how handlers reach it.

The Protocols name exactly what is used of each part; `raftnode.node` passes the real ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from config import Settings
from raftnode.consensus.raft import Raft
from raftnode.consensus.replica import Replica
from raftnode.documents.store import DocumentStore
from raftnode.heartbeat import Heartbeat
from raftnode.http import Http
from raftnode.identity import Identity


class Databases(Protocol):
    """This node's copies; see `raftnode.documents.databases.Databases`."""

    async def store(self, name: str) -> DocumentStore: ...

    def status(self) -> Mapping[str, Any]: ...


class Supervisor(Protocol):
    """What runs here; see `tasks.supervisor.Supervisor`."""

    def status(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Parts:
    """The node's parts, as far as the web uses them."""

    settings: Settings
    tag: str
    identity: Identity
    replica: Replica
    raft: Raft
    heartbeat: Heartbeat
    databases: Databases
    supervisor: Supervisor
    http: Http


PARTS = web.AppKey("parts", Parts)
