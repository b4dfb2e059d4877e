"""What consensus takes and gives: peers, settings, proposals, membership changes, and the ways they can fail."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

Role = Literal["Follower", "Candidate", "LeaderElect", "Leader"]

MIB = 1024 * 1024
PEERS_MAX = 100


class NotCommitted(Exception):
    """The command was certainly not applied, and never will be under this proposal. Proposing again is safe."""


class OutcomeUnknown(Exception):
    """The command may or may not be applied. Only a command that carries a request id may be proposed again."""


class ConsensusFailed(Exception):
    """This node can take no further part in Raft until it is started again. The message says why."""


class JournalFailed(ConsensusFailed):
    """The disk refused a write or a sync that Raft rests on (full, failing, or gone)."""


class StorageDamaged(ConsensusFailed):
    """A file in the data directory is damaged or missing. The message names the file and the remedy."""


class ApplyFailed(ConsensusFailed):
    """The state machine raised, so that this node cannot come to what the others come to. Nothing was answered."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(
            f"Entry {index} could not be applied here ({error!r}). Other nodes may have applied it, so this one ends "
            "before it answers, and applies it when it is started again. Give it more memory if that is what it lacks."
        )


@dataclass(frozen=True)
class Peer:
    """A node of the Raft cluster. `address` is "host:port". A peer that is no voter is a watcher: it receives and
    applies the log and never votes. `node_id`: which node has the tag, empty for one that was there at the start or is
    not known yet."""

    tag: str
    address: str
    voter: bool = True
    node_id: str = ""


@dataclass(frozen=True)
class Add:
    """Adds a peer, or gives a known one another address or the other `voter`. A voter is only ever made of a
    watcher that has caught up, so that a vote never waits for an empty node."""

    peer: Peer


@dataclass(frozen=True)
class Remove:
    """Takes a peer out of the cluster. A leader cannot remove itself: transfer the leadership first."""

    tag: str


Change = Add | Remove


class RaftStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is to its Raft cluster, all read at one moment.

    `role` is the raw Raft role. It carries no authority: an isolated leader stays one for a while. LeaderElect: a
    leader that has not applied its no-op, so that its state may be old. `leader`: the tag of the leader that was last
    heard, None from the moment at which this node has to ask around. `applied_term`: the term of the entry at
    `applied_index`. `snapshot_index`: the last entry in this node's snapshot, 0 without one; for tests. `peers`: the
    cluster by the newest membership entry in this node's log, the same object as long as that is the same; `voters` are
    the tags of those who vote. `elected_ns`: the reading of `Clock.elapsed_upper_ns` at which this node became leader,
    None while it is not. `failure`: why this node takes no part any more; such a node follows nobody and leads nobody.
    """

    role: Role = "Follower"
    leader: str | None = None
    term: int = 0
    commit_index: int = 0
    applied_index: int = 0
    applied_term: int = 0
    last_index: int = 0
    snapshot_index: int = 0
    peers: tuple[Peer, ...] = ()
    voters: frozenset[str] = frozenset()
    elected_ns: int | None = None
    failure: ConsensusFailed | None = None

    @property
    def leads(self) -> bool:
        """Whether this node is the leader of its term, confirmed or not."""
        return self.role in ("Leader", "LeaderElect")


@dataclass(frozen=True)
class Proposed:
    """Where a command stands in the log, and what this node's state machine answered when it applied it."""

    index: int
    term: int
    answer: Any


class StateMachine(Protocol):
    """The replicated state. Consensus treats commands and snapshots as opaque bytes.

    What `apply` makes of a command must follow from the state and the command alone, as every node has to come to the
    same. Where it cannot (no memory is left, say) it raises, and this node ends before anybody is answered.
    """

    def apply(self, index: int, term: int, command: bytes) -> Any:
        """Applies one committed entry, in log order, on the event loop. The answer goes to a local proposer."""

    def refuses(self, command: bytes) -> str | None:
        """Why the command would be refused if it were applied now, None if it would not. Asked by the leader before it
        appends a membership change with the command: one must not happen without the other."""

    def dump(self) -> Callable[[], Iterable[bytes]]:
        """Captures the state as it is now, on the loop and at once. The function returned runs in another thread
        and yields the snapshot in chunks of at most 64 MiB; it must not see later changes."""

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replaces the state by a snapshot's chunks, as `dump` yielded them. Runs in another thread, while nothing
        is applied: build the new state aside and swap it in by one assignment."""

    def after_tick(self) -> None:
        """Called on the loop once after every tick in which something was applied or restored."""


@dataclass(frozen=True)
class RaftConfig:
    """Limits and timings. Bytes are bytes, times are milliseconds.

    `heartbeat_ms` is the pace of empty appends; it is held to a quarter of `election_min_ms` at most, so that one
    lost heartbeat deposes nobody. `took_part`: this node has had a log before, so that a directory without one has lost
    it and is refused.
    """

    data_dir: Path
    took_part: bool = False
    election_min_ms: int = 500
    election_max_ms: int = 1000
    heartbeat_ms: int = 200
    proposal_timeout_ms: int = 5000
    command_bytes_max: int = 512 * 1024
    snapshot_bytes_min: int = 16 * MIB
    segment_bytes_max: int = 4 * MIB
    journal_bytes_max: int = 4096 * MIB
    uncommitted_entries_max: int = 10_000
    trailing_entries: int = 1_000

    def __post_init__(self) -> None:
        if not 0 < self.election_min_ms < self.election_max_ms:
            raise ValueError(
                f"election_min_ms ({self.election_min_ms}) must be above 0 and below election_max_ms "
                f"({self.election_max_ms})."
            )
        if self.heartbeat_ms <= 0:
            raise ValueError(f"heartbeat_ms ({self.heartbeat_ms}) must be above 0.")
        if self.command_bytes_max > 512 * 1024:
            raise ValueError(f"command_bytes_max ({self.command_bytes_max}) must be at most 524288.")

    @property
    def append_period_ms(self) -> int:
        """How often a leader sends an append even when there is nothing to append."""
        return max(1, min(self.heartbeat_ms, self.election_min_ms // 4))
