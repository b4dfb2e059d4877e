"""What the rules know besides the record: how the nodes are, as the leader sees them at one moment."""

from collections.abc import Mapping, Set
from typing import Literal, NamedTuple

import msgspec

from raftnode.record.model import Claim, Record, ResourceFlag

DatabaseStatus = Literal["Loaded", "Loading", "Faulted", "Unloaded"]
NS_PER_MS = 1_000_000


class ClaimHolder(NamedTuple):
    """Who holds a claim: one process of a node."""

    tag: str
    boot: int
    nonce: int


def holder_of(claim: Claim) -> ClaimHolder:
    """The process that the claim belongs to."""
    return ClaimHolder(claim.tag, claim.boot, claim.nonce)


def started_again(record: Record, holder: ClaimHolder) -> bool:
    """Whether the node of that process has announced another one since."""
    node = record.nodes.get(holder.tag)
    return node is not None and (node.boot, node.nonce) != (holder.boot, holder.nonce)


class DatabaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """A node's copy of a database as the rules read it. The node sends its change vector as a string (`CopyReport` in
    `raftnode.liveness.report`); it is parsed once, when the report is new, and not by each rule in each iteration.

    `sent` is the etag up to which it has sent its changes to each other node; `vector` is the change vector as
    etags by database id.
    """

    status: DatabaseStatus
    last_etag: int = 0
    documents: int = 0
    vector: Mapping[str, int] = {}
    sent: Mapping[str, int] = {}
    error: str = ""

    @property
    def well(self) -> bool:
        """Whether it serves, or would at the first request."""
        return self.status in ("Loaded", "Unloaded")


class CopyState(msgspec.Struct, frozen=True):
    """Whether a copy is well, and since which moment it is so without interruption (lower-bound reading); and since
    which sample its node is a Member, None if it was none in the newest."""

    well: bool
    since_ns: int
    member_since_ns: int | None = 0


class ObserverLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The observer's settings. A node must be good for `stabilization_ms` before its first promotion; a preferred node
    that is not good for `rotate_ms` goes to the end of the list; a node that is lost for `replace_ms` is replaced; a
    Member that lags by more than `distance_max` changes moves to Rehab; a sticky task waits `grace_min` for its holder
    in Rehab, unless its kind or its database say otherwise."""

    stabilization_ms: int
    rotate_ms: int
    replace_ms: int
    distance_max: int
    grace_min: int = 30


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One node. All readings are of the leader's lower-bound clock.

    `silent`: it has certainly no lease. `fresh`: it is not silent, and its reports are new enough to promote somebody
    on their strength. `heard_ns`: when it was last heard, or this leadership began. Databases are
    keyed by folded name; `previous` is the sample before `current`, taken at `previous_ns`. `copies` are those of
    databases whose group the node is in. `flags` are the resources that the node finds itself short of.
    """

    tag: str
    silent: bool
    fresh: bool
    heard_ns: int
    error: str = ""
    current: Mapping[str, DatabaseReport] = {}
    previous: Mapping[str, DatabaseReport] = {}
    previous_ns: int = 0
    copies: Mapping[str, CopyState] = {}
    flags: tuple[ResourceFlag, ...] = ()


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that one iteration of the observer knows.

    `now_ns` is the lower-bound clock's reading, `now_ms` the wall clock's, which is comparable with what the record
    remembers. `void_allowed`: this leader has led long enough to void anything. `silence_ms` is R. `nodes` are those of
    the cluster and all that hold a claim. `holders` hold the claims; those of them that are `over` have certainly no
    lease of their own any more: only their claims may be voided.
    """

    leader: str
    term: int
    now_ns: int
    now_ms: int
    void_allowed: bool
    silence_ms: int
    limits: ObserverLimits
    nodes: Mapping[str, NodeFacts]
    holders: Set[ClaimHolder] = frozenset()
    over: Set[ClaimHolder] = frozenset()
