"""Databases as the cluster sees them, and changes of them."""

from collections.abc import Mapping

from raftnode.documents.store.removed import RemovedCopy
from raftnode.record.model import Database, LockMode, PromotionStatus, Record, Topology
from raftnode.web.views.base import Committed, View


class NodeId(View, frozen=True, kw_only=True):
    """RavenDB's name of a node."""

    node_tag: str
    node_url: str | None
    responsible_node: str | None = None


class NodesTopology(View, frozen=True, kw_only=True):
    """A database group, with addresses and reasons."""

    members: list[NodeId]
    promotables: list[NodeId]
    rehabs: list[NodeId]
    demotion_reasons: Mapping[str, str]
    promotables_status: Mapping[str, PromotionStatus]


class DatabaseSummary(View, frozen=True, kw_only=True):
    """A database in the list of them."""

    name: str
    disabled: bool
    lock_mode: LockMode
    deletion_in_progress: Mapping[str, str]
    nodes_topology: NodesTopology
    tasks_count: int
    indexes_count: int


class DatabaseList(View, frozen=True, kw_only=True):
    """The databases in the order of their names."""

    databases: list[DatabaseSummary]


class DatabaseNames(View, frozen=True, kw_only=True):
    """Only the names of the databases, in their order."""

    databases: list[str]


class GroupChanged(Committed, frozen=True, kw_only=True):
    """A group after a change of it; null if the database was deleted meanwhile."""

    name: str
    topology: Topology | None
    nodes_added_to: list[str]
    shards_defined: bool = False


class DistributionSet(Committed, frozen=True, kw_only=True):
    """Whether the observer may replace a node of the group that stays away."""

    name: str
    dynamic_nodes_distribution: bool


class Deleted(Committed, frozen=True, kw_only=True):
    """The nodes that have not deleted their copies yet."""

    pending_deletes: list[str]


class StateSet(View, frozen=True, kw_only=True):
    """Whether a database was enabled or disabled, and if not, why."""

    name: str
    disabled: bool
    success: bool
    reason: str | None = None


class StatesSet(View, frozen=True, kw_only=True):
    """The same of each database that was named."""

    status: list[StateSet]


class RemovedCopies(View, frozen=True, kw_only=True):
    """The copies of softly deleted databases on a node, oldest first."""

    node_tag: str
    removed: list[RemovedCopy]


class MemberAddress(View, frozen=True, kw_only=True):
    """A Member, for clients."""

    url: str
    cluster_tag: str
    database: str
    server_role: str = "Member"


class DatabaseTopology(View, frozen=True, kw_only=True):
    """The Members of a group, for clients; the etag grows with every change."""

    nodes: list[MemberAddress]
    etag: int


class ClientConfiguration(View, frozen=True, kw_only=True):
    """There is none."""

    etag: int = 0
    configuration: None = None


def node_id(record: Record, tag: str) -> NodeId:
    """The node of that tag, as RavenDB names it."""
    node = record.nodes.get(tag)
    return NodeId(node_tag=tag, node_url=node.url if node else None)


def summary(record: Record, database: Database) -> DatabaseSummary:
    """A database in the list of them."""
    topology = database.topology
    return DatabaseSummary(
        name=database.name,
        disabled=database.disabled,
        lock_mode=database.lock_mode,
        deletion_in_progress=dict(database.deletion_in_progress),
        nodes_topology=NodesTopology(
            members=[node_id(record, tag) for tag in topology.members],
            promotables=[node_id(record, tag) for tag in topology.promotables],
            rehabs=[node_id(record, tag) for tag in topology.rehabs],
            demotion_reasons=dict(topology.demotion_reasons),
            promotables_status=dict(topology.promotables_status),
        ),
        tasks_count=len(database.tasks),
        indexes_count=len(database.indexes),
    )
