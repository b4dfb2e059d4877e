"""The cluster's nodes, and changes of them."""

from collections.abc import Mapping

from raftnode.record.model import ClusterNode, Record, Timings
from raftnode.record.whatif import Forecast, TaskMove
from raftnode.web.views.base import Committed, View


class Quorum(View, frozen=True, kw_only=True):
    """Whether there is a leader. The last two are null while the node knows one; else the voters that answer it, itself
    included, and what that means."""

    leader: str | None
    voters: list[str]
    answering: list[str] | None = None
    sentence: str | None = None


class SilentNodes(View, frozen=True, kw_only=True):
    """The nodes that the leader does not hear, by tag; null, with a sentence that says why, where that is not known."""

    silent: frozenset[str] | None = None
    silent_unknown: str | None = None

    def of(self, tag: str) -> bool | None:
        """Whether that node is silent; None: not known."""
        return None if self.silent is None else tag in self.silent


class NodeInfo(View, frozen=True, kw_only=True):
    """Who a node is."""

    node_tag: str
    topology_id: str
    server_id: str
    url: str
    cluster_address: str
    current_state: str
    has_fixed_port: bool = True
    server_role: str
    build_version: str
    raven_version: str


class ClusterTopology(View, frozen=True, kw_only=True):
    """RavenDB's cluster topology: addresses by tag, of all nodes and by kind."""

    topology_id: str
    all_nodes: Mapping[str, str]
    members: Mapping[str, str]
    promotables: Mapping[str, str]
    watchers: Mapping[str, str]
    last_node_id: str
    etag: int


class PeerConnection(View, frozen=True, kw_only=True):
    """Whether the leader hears a node."""

    name: str
    connected: bool


class ClusterView(View, frozen=True, kw_only=True):
    """The cluster as a node sees it."""

    topology: ClusterTopology
    etag: int
    leader: str | None
    leader_ship_duration: int | None = None
    current_state: str
    node_tag: str
    current_term: int
    node_license_details: Mapping[str, None] = {}
    last_state_change_reason: str = ""
    status: Mapping[str, PeerConnection]


class ClusterChanged(Committed, frozen=True, kw_only=True):
    """The topology after a change of nodes."""

    topology: ClusterTopology


class Joined(Committed, frozen=True, kw_only=True):
    """What a node that joins must know."""

    node_tag: str
    cluster_id: str
    wire_id: str
    timings: Timings | None
    nodes: list[ClusterNode]
    topology: ClusterTopology


class LeaderView(View, frozen=True, kw_only=True):
    """Who leads."""

    leader: str | None
    term: int


class AppliedView(View, frozen=True, kw_only=True):
    """How far a node is."""

    applied_index: int


class NodeChanged(Committed, frozen=True, kw_only=True):
    """A node after a change of it; null if it was removed meanwhile."""

    node_tag: str
    node: ClusterNode | None


class NodeTraits(NodeChanged, frozen=True, kw_only=True):
    """A node after a change that placement reads, and what becomes of the tasks."""

    tasks: int
    moves: tuple[TaskMove, ...]
    waits: tuple[TaskMove, ...]


class WhatIf(Forecast, frozen=True, kw_only=True):
    """What would become of the tasks."""

    quorum: Quorum


def cluster_topology(record: Record, etag: int) -> ClusterTopology:
    """The cluster's nodes by kind."""
    kinds: dict[str, dict[str, str]] = {"Member": {}, "Promotable": {}, "Watcher": {}}
    for tag, node in sorted(record.nodes.items()):
        kinds[node.kind][tag] = node.url
    return ClusterTopology(
        topology_id=record.cluster_id,
        all_nodes={tag: node.url for tag, node in sorted(record.nodes.items())},
        members=kinds["Member"],
        promotables=kinds["Promotable"],
        watchers=kinds["Watcher"],
        last_node_id=max(record.nodes, default=""),
        etag=etag,
    )
