"""What goes over the wire, and what the lease reads of the world: all frozen values."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from raftnode.foundation.clock_margins import MARGIN_MS, with_clock_margin
from raftnode.record.model import Timings

NS_PER_MS = 1_000_000
FOREVER_NS = 1 << 62
"""The end of a lease that nobody can take away: a cluster of one voter."""

RaftRole = Literal["Follower", "Candidate", "LeaderElect", "Leader"]
Role = Literal["Passive", "Candidate", "Follower", "LeaderElect", "Leader"]


class Incarnation(NamedTuple):
    """One process of a node: the boot count of the data directory, and the process's random nonce (0: a version that
    did not say it, or a node that has not announced itself)."""

    boot: int
    nonce: int


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """A reading of a node's own clock, which only the incarnation that took it can use: the boot count of
    the data directory, the process's random nonce, and `Clock.elapsed_upper_ns`."""

    boot: int
    nonce: int
    clock_ns: int

    @property
    def incarnation(self) -> Incarnation:
        """The process that took it."""
        return Incarnation(self.boot, self.nonce)


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """Leader to node. `echo` is the node's newest stamp that the leader has accepted; None grants nothing.
    `timings` are those of the leader's record, None before the cluster is formed."""

    term: int
    stamp: Stamp
    echo: Stamp | None
    timings: Timings | None


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """Node to leader, the answer to a beat. `echo` is the beat's stamp, given only if the node's own Raft
    term was the beat's when it answered. `payload` is for the observer and opaque here."""

    term: int
    stamp: Stamp
    echo: Stamp | None
    has_lease: bool
    applied_index: int
    payload: bytes = b""


class Now(msgspec.Struct, frozen=True):
    """The three readings of `ports.Clock`, taken together."""

    elapsed_upper_ns: int
    elapsed_lower_ns: int
    wall_ms: int


class RaftView(msgspec.Struct, frozen=True, kw_only=True):
    """What Raft and the record say at this moment. `peers` are all other nodes, watchers too; `votes` are the
    voters that elected this node in this term, each with the upper-bound reading at which its request was sent.
    `incarnations` are those that the record has, one of each node: no other is echoed."""

    role: RaftRole
    term: int
    voters: frozenset[str]
    peers: frozenset[str]
    applied_index: int
    commit_index: int
    timings: Timings | None
    votes: dict[str, int] = {}
    incarnations: Mapping[str, Incarnation] = {}


class StepDown(msgspec.Struct, frozen=True):
    """The leader must give up; `term` is the higher one it heard of, None if it knows of none."""

    term: int | None
    reason: str


def lease_ns(timings: Timings) -> int:
    """L."""
    return timings.lease_ms * NS_PER_MS


def silence_ns(timings: Timings) -> int:
    """R: the silence after which a node's claims may be voided."""
    return timings.time_before_moving_to_rehab_ms * NS_PER_MS


def void_wait_ns(timings: Timings) -> int:
    """How long after its election a leader voids nothing: 2 L + stop, as its own clock judges that span of others'.

    A lease that an earlier leader granted ends within 2 L of the election that deposed it, and its bodies
    within `stop` of that.
    """
    span_ms = 2 * timings.lease_ms + timings.task_stop_timeout_ms
    return with_clock_margin(span_ms * NS_PER_MS, MARGIN_MS * NS_PER_MS)
