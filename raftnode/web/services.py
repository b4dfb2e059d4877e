"""What the web needs of the rest of the node, and how handlers reach it."""

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from config import Settings
from raftnode.cluster.replica import Replica
from raftnode.consensus.raft import Raft
from raftnode.documents.databases import Databases
from raftnode.foundation.http_client import HttpClient
from raftnode.foundation.incarnation import NodeIncarnation
from raftnode.liveness.heartbeat import Heartbeat
from tasks.runtime.supervisor import Supervisor


@dataclass(frozen=True)
class Services:
    """The node's parts, as far as the web uses them. `wire_id` is the cluster's name between its nodes, `removed_by`
    gives the node that said that this one was removed from the cluster."""

    settings: Settings
    tag: str
    own: NodeIncarnation
    wire_id: str
    removed_by: Callable[[], str | None]
    replica: Replica
    raft: Raft
    heartbeat: Heartbeat
    databases: Databases
    supervisor: Supervisor
    http: HttpClient


SERVICES = web.AppKey("parts", Services)
