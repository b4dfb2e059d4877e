"""A node's view of everything, and whether it is fit to serve."""

from collections.abc import Mapping

from raftnode.documents.database_copies import DatabaseCopy
from raftnode.record.model import ClusterNode, LockMode, Timings, Topology
from raftnode.web.views.base import View
from raftnode.web.views.cluster import Quorum
from raftnode.web.views.tasks import TaskStatus


class NodeStatus(View, frozen=True, kw_only=True):
    """The node that is asked. `lease_left_ms` is 0 without a lease and null for one that has no end."""

    tag: str
    node_id: str
    boot: int
    url: str
    cluster_address: str
    kind: str | None
    role: str
    leader: str | None
    term: int
    has_lease: bool
    lease_left_ms: int | None
    session: int | None
    applied_index: int
    commit_index: int
    draining: bool
    version: str
    not_ready: list[str]


class NodeView(ClusterNode, frozen=True, kw_only=True):
    """A node of the cluster, and whether the leader hears it; null: not known."""

    silent: bool | None = None


class ClusterStatus(View, frozen=True, kw_only=True):
    """The cluster as the record has it, and as its leader hears it."""

    cluster_id: str
    timings: Timings | None
    observer_suspended: bool
    highly_available_tasks: bool
    dynamic_nodes_distribution: bool
    nodes: Mapping[str, NodeView]
    silent_unknown: str | None
    quorum: Quorum


class DatabaseHead(View, frozen=True, kw_only=True):
    """A database, its group, and the node's copy of it; null without one."""

    name: str
    etag: int
    disabled: bool
    lock_mode: LockMode
    deletion_in_progress: Mapping[str, str]
    topology: Topology
    mentors: Mapping[str, str | None]
    state_here: str | None
    copy: DatabaseCopy | None


class DatabaseStatus(DatabaseHead, frozen=True, kw_only=True):
    """A database with its tasks."""

    tasks: list[TaskStatus]


class StatusView(View, frozen=True, kw_only=True):
    """Everything; databases by name."""

    node: NodeStatus
    cluster: ClusterStatus
    databases: Mapping[str, DatabaseStatus]


class Live(View, frozen=True, kw_only=True):
    """The process answers."""

    live: bool = True
    node_tag: str


class Ready(View, frozen=True, kw_only=True):
    """Whether the node may serve and run tasks, and every reason why not."""

    ready: bool
    node_tag: str
    role: str
    reasons: list[str]


class BuildVersion(View, frozen=True, kw_only=True):
    """The version of the protocol for clients, and ours."""

    product_version: str
    build_version: int = 72
    commit_hash: str = ""
    full_version: str
    raftnode_version: str
