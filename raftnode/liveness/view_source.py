"""What the rules of the lease read of Raft and the record, made again only where something has changed."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from raftnode.consensus.model import Peer, RaftStatus
from raftnode.lease import Authority, Incarnation, RaftView
from raftnode.record.model import ClusterNode, Timings


class RaftPort(Protocol):
    """What the heartbeat needs of consensus; see `raftnode.consensus.raft`."""

    @property
    def tag(self) -> str: ...
    @property
    def status(self) -> RaftStatus: ...
    @property
    def on_role_change(self) -> list[Callable[[Any, int], None]]: ...
    def step_down(self, term: int | None) -> None:
        """Give up the leadership at once."""

    def votes_granted(self, term: int) -> Mapping[str, int]:
        """Who elected this node in that term, each with the `Clock.elapsed_upper_ns` at which its request was sent."""


class ViewSource:
    """Gives the `RaftView` of any moment. `timings` and `nodes` give the record's; `nodes` and the members that Raft
    names are the same objects as long as nothing has changed in them."""

    def __init__(
        self, raft: RaftPort, timings: Callable[[], Timings | None], nodes: Callable[[], Mapping[str, ClusterNode]]
    ) -> None:
        self._raft, self._timings, self._nodes = raft, timings, nodes
        self._members: tuple[Peer, ...] | None = None
        self._peers: frozenset[str] = frozenset()
        self._known_nodes: Mapping[str, ClusterNode] | None = None
        self._incarnations: dict[str, Incarnation] = {}

    def view(self, authority: Authority | None) -> RaftView:
        """Raft and the record as they are now. The votes are in it only if they begin a leadership, which `authority`
        is not yet."""
        status, nodes = self._raft.status, self._nodes()
        if status.peers is not self._members:
            self._members = status.peers
            self._peers = frozenset(peer.tag for peer in status.peers) - {self._raft.tag}
        if nodes is not self._known_nodes:
            self._known_nodes = nodes
            self._incarnations = {tag: Incarnation(node.boot, node.nonce) for tag, node in nodes.items()}
        elected = status.leads and (authority is None or authority.term != status.term)
        return RaftView(
            role=status.role,
            term=status.term,
            voters=status.voters,
            peers=self._peers,
            applied_index=status.applied_index,
            commit_index=status.commit_index,
            timings=self._timings(),
            votes=dict(self._raft.votes_granted(status.term)) if elected else {},
            incarnations=self._incarnations,
        )
