"""What can be read of a node's Raft at any moment, also before it is started."""

from raftnode.consensus.engine import RaftEngine
from raftnode.consensus.model import ConsensusFailed, Peer, Role


class State:
    """The read-only half of `Raft`."""

    def __init__(self, first_peers: tuple[Peer, ...]) -> None:
        self._first_peers = first_peers
        self._engine: RaftEngine | None = None

    @property
    def role(self) -> Role:
        """The raw Raft role of this moment. It carries no authority: an isolated leader stays one for a while."""
        return self._engine.role if self._engine else "Follower"

    @property
    def leader(self) -> str | None:
        """The tag of the leader this node last heard, None once it has to ask around."""
        return self._engine.leader if self._engine else None

    @property
    def term(self) -> int:
        return self._engine.term if self._engine else 0

    @property
    def applied_index(self) -> int:
        return self._engine.applied_index if self._engine else 0

    @property
    def applied_term(self) -> int:
        """The term of the entry at `applied_index`."""
        return self._engine.applied_term if self._engine else 0

    @property
    def commit_index(self) -> int:
        return self._engine.commit_index if self._engine else 0

    @property
    def last_index(self) -> int:
        return self._engine.last_index if self._engine else 0

    @property
    def snapshot_index(self) -> int:
        """The last entry in this node's snapshot, 0 without one."""
        return self._engine.snapshot_index if self._engine else 0

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The cluster by the newest membership entry in this node's log."""
        return self._engine.peers if self._engine else self._first_peers

    @property
    def voters(self) -> frozenset[str]:
        return self._engine.voters if self._engine else frozenset(p.tag for p in self._first_peers if p.voter)

    @property
    def elected_ns(self) -> int | None:
        """The reading of `Clock.hold_ns` at which this node became leader; None while it is not."""
        return self._engine.elected_ns if self._engine else None

    @property
    def failure(self) -> ConsensusFailed | None:
        """Why this node takes no part any more."""
        return self._engine.failure if self._engine else None

    def votes_granted(self, term: int) -> dict[str, int]:
        """Who voted for this node in `term`, itself included, with the reading of `Clock.hold_ns` when the vote was
        asked for: no voter granted before that moment. Empty for a term in which this node did not stand."""
        return self._engine.votes_granted(term) if self._engine else {}
