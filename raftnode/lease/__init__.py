"""The lease: who may run tasks, until when, and who counts as silent. Pure: stamps and echoes in, decisions
out.

A node's state is a `LeaseState`. Whatever wakes the node first calls `advance`; a beat goes through `on_beat`, a
report through `on_report`, and `beats` says what a leader sends. Whoever only looks takes `as_of`. Nothing here reads a
clock or sends anything.

Two promises rest on these functions, as long as the rates of any two clocks differ by no more than
`raftnode.foundation.clock_margins` allows. A lease granted by
this leader ends at most L after a stamp that it heard, so R of silence outlasts it. A lease granted by an
earlier leader ends at most 2 L after the election that deposed it: some voter of the new majority echoed
nothing later than its vote, so the old authority was at most L old, and a beat within it added at most L.
"""

import msgspec
from msgspec.structs import replace

from raftnode.lease import authority as leadership
from raftnode.lease import holder as holding
from raftnode.lease.authority import Authority, PeerState
from raftnode.lease.holder import LeaseHolder
from raftnode.lease.messages import FOREVER_NS, Beat, Incarnation, Now, RaftView, Report, Role, Stamp, StepDown
from raftnode.record.model import Timings

__all__ = [
    "FOREVER_NS",
    "Authority",
    "Beat",
    "Incarnation",
    "LeaseHolder",
    "LeaseState",
    "Now",
    "PeerState",
    "RaftView",
    "Report",
    "Role",
    "Stamp",
    "StepDown",
    "as_of",
    "beats",
    "checked",
    "has_lease",
    "is_over",
    "is_silent",
    "new_lease",
    "on_beat",
    "on_report",
    "role_of",
    "silent_tags",
]


class LeaseState(msgspec.Struct, frozen=True, kw_only=True):
    """A node's whole state; `authority` only while it leads."""

    tag: str
    holder: LeaseHolder
    authority: Authority | None = None


def new_lease(tag: str, boot: int, nonce: int) -> LeaseState:
    """The state of a process that has just started: no lease, session 0."""
    return LeaseState(tag=tag, holder=LeaseHolder(boot=boot, nonce=nonce))


def has_lease(lease: LeaseState, timings: Timings | None, now: Now) -> bool:
    """Whether the node may run tasks at this moment; changes nothing, so any thread may ask."""
    return holding.lapsed(lease.holder, now, timings).held


def advance(lease: LeaseState, view: RaftView, now: Now) -> tuple[LeaseState, StepDown | None]:
    """The state after a look at the clocks and at Raft: before any message, timer or effect."""
    holder = _ended(lease, view, now)
    if view.role not in ("Leader", "LeaderElect"):
        return replace(lease, holder=holder, authority=None), None
    authority = lease.authority
    if authority is None or authority.term != view.term:
        authority = leadership.began(lease.tag, view, now, holder.stamps_from_ns)
    elif holder.stamps_from_ns > lease.holder.stamps_from_ns:
        authority = leadership.without_echoes(authority)
    authority = leadership.refreshed(authority, view, now)
    lease = replace(lease, holder=holder, authority=authority)
    return _led(lease, authority, view.timings, view, now) if view.timings else (lease, None)


def as_of(lease: LeaseState, view: RaftView, now: Now) -> LeaseState:
    """The state for whoever only looks at this moment: what has ended since `advance` was last asked is gone from it. A
    lease or a session that `advance` would begin or renew is not in it: nobody has been told of those yet, nor has the
    kill timer been set."""
    return replace(lease, holder=_ended(lease, view, now), authority=advance(lease, view, now)[0].authority)


def _ended(lease: LeaseState, view: RaftView, now: Now) -> LeaseHolder:
    """The node's side without what has ended."""
    holder = holding.lapsed(lease.holder, now, view.timings)
    leads_on = view.role == "Leader" and lease.authority is not None and lease.authority.term == view.term
    if holder.until_ns == FOREVER_NS and view.voters != {lease.tag} and not leads_on:
        return replace(holder, held=False, until_ns=0)
    return holder


def _led(
    lease: LeaseState, authority: Authority, timings: Timings, view: RaftView, now: Now
) -> tuple[LeaseState, StepDown | None]:
    until_ns = leadership.until_ns(authority, timings, now)
    if now.elapsed_upper_ns >= until_ns:
        return _given_up(lease, "no majority of voters has answered for the length of a lease")
    if leadership.stalled(authority, timings, now):
        return _given_up(lease, "this node has applied nothing for the length of a lease")
    if view.role == "LeaderElect":
        return lease, None
    return replace(lease, holder=holding.renewed(lease.holder, until_ns, now)), None


def _given_up(lease: LeaseState, reason: str) -> tuple[LeaseState, StepDown]:
    return replace(lease, authority=None), StepDown(None, reason)


def beats(lease: LeaseState, view: RaftView, now: Now) -> dict[str, Beat]:
    """What the leader sends to each node, by tag; nothing when it does not lead. `advance` has been asked."""
    authority = lease.authority
    if authority is None:
        return {}
    own = holding.stamp(lease.holder, now)
    return {tag: leadership.beat_for(authority, tag, view, own) for tag in view.peers}


def on_beat(
    lease: LeaseState, beat: Beat, view: RaftView, now: Now, payload: bytes = b""
) -> tuple[LeaseState, Report, StepDown | None]:
    """The state after a beat, and the answer to it. Only a beat of the node's current term grants and is
    echoed."""
    lease, step_down = advance(lease, view, now)
    current = beat.term == view.term
    if current:
        lease = replace(lease, holder=holding.granted(lease.holder, beat, view, now))
    report = Report(
        term=view.term,
        stamp=holding.stamp(lease.holder, now),
        echo=beat.stamp if current else None,
        has_lease=lease.holder.held,
        applied_index=view.applied_index,
        payload=payload,
    )
    return lease, report, step_down


def on_report(
    lease: LeaseState, tag: str, report: Report, view: RaftView, now: Now
) -> tuple[LeaseState, StepDown | None]:
    """The state after a node's report. A higher term in it ends this leadership."""
    lease, step_down = advance(lease, view, now)
    authority = lease.authority
    if authority is None or tag not in view.peers:
        return lease, step_down
    if report.term > view.term:
        return replace(lease, authority=None), StepDown(
            report.term, f"{tag} is in term {report.term}, this leader in {view.term}"
        )
    if report.term == view.term:
        own = holding.stamp(lease.holder, now)
        lease = replace(lease, authority=leadership.heard(authority, tag, report, view, own, now))
    return lease, step_down


def role_of(lease: LeaseState, view: RaftView) -> Role:
    """What the node is to the cluster; `advance` or `as_of` has been asked. Passive: in none. Candidate: without a
    lease. A leader without authority is none, also while Raft has not heard of that yet."""
    if view.timings is None:
        return "Passive"
    if not lease.holder.held:
        return "Candidate"
    return "Follower" if lease.authority is None else view.role


def is_silent(lease: LeaseState, tag: str, now: Now) -> bool:
    """Whether that node, in the cluster or not, has certainly no lease. A node that does not lead knows nothing of
    silence."""
    return lease.authority is not None and leadership.is_silent(lease.authority, tag, now)


def is_over(lease: LeaseState, tag: str, incarnation: Incarnation, now: Now) -> bool:
    """Whether this leader may void the claims of that process, also of one that it has never heard, or one of its own
    node's that was before it."""
    own = Incarnation(lease.holder.boot, lease.holder.nonce)
    return lease.authority is not None and leadership.is_over(lease.authority, tag, incarnation, own, now)


def silent_tags(lease: LeaseState, view: RaftView, now: Now) -> frozenset[str]:
    """The nodes, of those this leader has met, that certainly have no lease."""
    known = view.peers | set(lease.authority.peers) if lease.authority else view.peers
    return frozenset(tag for tag in known if is_silent(lease, tag, now))
