"""What can be read of an engine at any moment."""

from pathlib import Path

from raftnode.consensus import messages
from raftnode.consensus.engine import patches, screen
from raftnode.consensus.engine.admission import Admission
from raftnode.consensus.engine.core import CANDIDATE, Core
from raftnode.consensus.engine.elections import Elections
from raftnode.consensus.engine.members import Members
from raftnode.consensus.engine.package_log import PackageLog
from raftnode.consensus.engine.snapshots import Snapshots
from raftnode.consensus.engine.surroundings import Surroundings
from raftnode.consensus.messages import AnyMessage
from raftnode.consensus.model import ConsensusFailed, Peer, Role
from raftnode.consensus.storage.hard_state import VOTE
from raftnode.consensus.storage.journal import Journal
from raftnode.consensus.storage.snapshot import SNAPSHOT

NS_PER_S = 1_000_000_000


class Reading:
    """The read-only half of `Engine`, which sets these attributes."""

    tag: str
    failure: ConsensusFailed | None
    _bootstrap: tuple[Peer, ...]
    _members: Members
    _log: PackageLog
    _journal: Journal
    _core: Core
    _elections: Elections
    _snapshots: Snapshots
    _admission: Admission
    _around: Surroundings
    _applied_term: int

    def check_heir(self, tag: str | None) -> None:
        """Raises Refused when no hand-over to that voter, or to any, can come to anything now."""
        self._admission.check_heir(tag, self.voters, self._around.clock.hold_ns() / NS_PER_S)

    @property
    def files(self) -> frozenset[Path]:
        """What must be in the directory for as long as this engine lives."""
        directory = self._around.config.data_dir
        snapshot = {directory / SNAPSHOT} if self._snapshots.index else set()
        return frozenset({directory / VOTE, *self._journal.paths, *snapshot})

    @property
    def role(self) -> Role:
        """The raw Raft role. LeaderElect: a leader whose no-op is not applied, so that its state may be old. An engine
        that has failed leads nobody, wherever in a transition that was."""
        core = self._core
        if self.failure is not None:
            return "Follower"
        if core.is_leader:
            return "LeaderElect" if core.applied_index < core.no_op_index else "Leader"
        return "Candidate" if core.state == CANDIDATE else "Follower"

    @property
    def leader(self) -> str | None:
        """Whom this node believes to be leader; None from the moment it has to ask around."""
        return self._core.leader if self.failure is None else None

    @property
    def term(self) -> int:
        return self._core.term

    @property
    def commit_index(self) -> int:
        return self._core.commit_index

    @property
    def applied_index(self) -> int:
        return self._core.applied_index

    @property
    def applied_term(self) -> int:
        """The term of the entry at `applied_index`."""
        return self._applied_term

    @property
    def last_index(self) -> int:
        return self._journal.last_index

    @property
    def snapshot_index(self) -> int:
        """The last entry in this node's snapshot, 0 without one."""
        return self._snapshots.index

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being written or installed."""
        return self._snapshots.writing or self._snapshots.installing

    @property
    def elected_ns(self) -> int | None:
        """The reading of `Clock.hold_ns` at which this node became leader; None while it is not."""
        return self._elections.elected_ns if self._core.is_leader and self.failure is None else None

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The cluster by the newest membership entry in the log."""
        return self._members.current

    @property
    def voters(self) -> frozenset[str]:
        return self._members.voters

    @property
    def applied_members(self) -> tuple[int, tuple[Peer, ...]]:
        """The index and the peers of the newest membership that is applied."""
        return self._members.at(self._core.applied_index)

    def contacts(self) -> tuple[Peer, ...]:
        """Whom to be connected with: the peers of the newest and of the applied membership; and, as long as a new
        node has not found itself in the log, those it was started with."""
        known = {peer.tag: peer for peer in self.applied_members[1]} | {peer.tag: peer for peer in self.peers}
        if self.tag not in known:
            known = {peer.tag: peer for peer in self._bootstrap} | known
        return tuple(known[tag] for tag in sorted(known) if tag != self.tag)

    def match_index(self, tag: str) -> int:
        """How far a follower's log is known to equal this leader's."""
        return self._core.match_index(tag)

    def votes_granted(self, term: int) -> dict[str, int]:
        """See `Elections.votes_granted`."""
        return self._elections.votes_granted(term)

    def _view(self, message: AnyMessage) -> screen.View:
        """What the filter is to know of this node, for that message."""
        core = self._core
        asked = isinstance(message, messages.PreVote)
        return screen.View(
            tag=self.tag,
            term=core.term,
            is_leader=core.is_leader,
            log=self._journal,
            commit_index=core.commit_index,
            voters=self.voters,
            followers=core.followers,
            leader_recent=asked and self._elections.leader_recent(patches.seconds(), self.voters),
            installing=self._snapshots.installing,
            recovering=bool(self._log.vote.recover_to),
            prevote_nonce=self._elections.nonce,
        )
