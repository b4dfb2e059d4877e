"""The leader's side: how long it may act as one, whom it echoes, and who counts as silent.

Authority is the newest of the leader's own stamps that a majority of voters echoed in its term, plus L.
Silence and echo read one variable, `PeerState.stamp`: a report that is not accepted neither renews the node's
lease nor breaks its silence. Only reports of the incarnation that the record has are accepted, so that of two
processes of one node never both have a lease from this leader for long, and each is silent for itself.
"""

import msgspec
from immutables import Map
from msgspec.structs import replace

from raftnode.lease.messages import (
    FOREVER_NS,
    Beat,
    Incarnation,
    Now,
    RaftView,
    Report,
    Stamp,
    lease_ns,
    silence_ns,
    void_wait_ns,
)
from raftnode.record.model import Timings

UNKNOWN = Incarnation(0, 0)
"""Of a node that the record does not have, or that has never announced itself."""


class PeerState(msgspec.Struct, frozen=True, kw_only=True):
    """What the leader knows of another node.

    `stamp`: the newest it accepted, which it echoes. `silent_from_ns`, `behind_since_ns` and `no_lease_since_ns` are
    lower-bound readings; `echo_ns` is the newest upper-bound reading of the leader's that it echoed. `applied_index` as
    last reported, None before. `leases_until_ns`: of each incarnation whose stamp was accepted, the lower-bound reading
    from which its claims may be voided; those that have passed may be forgotten.
    """

    silent_from_ns: int
    stamp: Stamp | None = None
    echo_ns: int | None = None
    applied_index: int | None = None
    behind_since_ns: int | None = None
    no_lease_since_ns: int | None = None
    leases_until_ns: Map[Incarnation, int] = Map()


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """One leadership. `elected_ns` is a lower-bound reading; `void_wait_ns` and the peers' silence never shrink,
    so that new, shorter timings do not cut short what older ones have granted. `members` are the nodes of the
    last view; `peers` also holds those that have left, for their silence. `stalled_since_ns` is the upper-bound reading
    at which its own apply stopped, `applied_index` where."""

    tag: str
    term: int
    elected_ns: int
    voters: frozenset[str]
    applied_index: int
    peers: Map[str, PeerState] = Map()
    members: frozenset[str] = frozenset()
    void_wait_ns: int = 0
    silence_ns: int = 0
    stalled_since_ns: int | None = None


def began(tag: str, view: RaftView, now: Now, stamps_from_ns: int) -> Authority:
    """A new leadership. A granted vote counts as the echo of the vote request's stamp."""
    voted = {
        voter: PeerState(silent_from_ns=now.elapsed_lower_ns, echo_ns=sent_ns)
        for voter, sent_ns in view.votes.items()
        if voter != tag and stamps_from_ns <= sent_ns <= now.elapsed_upper_ns
    }
    return Authority(
        tag=tag,
        term=view.term,
        elected_ns=now.elapsed_lower_ns,
        voters=view.voters,
        applied_index=view.applied_index,
        peers=Map(voted),
    )


def refreshed(authority: Authority, view: RaftView, now: Now) -> Authority:
    """The leadership with the view's timings and nodes taken in."""
    if view.timings:
        authority = replace(
            authority,
            void_wait_ns=max(authority.void_wait_ns, void_wait_ns(view.timings)),
            silence_ns=max(authority.silence_ns, silence_ns(view.timings)),
        )
    silent_from_ns = now.elapsed_lower_ns + authority.silence_ns
    peers = authority.peers
    for tag in authority.members - view.peers:
        # Whoever joins under this tag later may have another disk, whose first start it is: nothing that the previous
        # node said counts for it. Only its silence stays, on which the void of its claims rests.
        left = peers[tag]
        peers = peers.set(tag, PeerState(silent_from_ns=left.silent_from_ns, leases_until_ns=left.leases_until_ns))
    for tag in view.peers - authority.members:
        known = peers.get(tag) or PeerState(silent_from_ns=silent_from_ns)
        peers = peers.set(tag, replace(known, silent_from_ns=silent_from_ns))
    if authority.voters == {authority.tag}:
        # Nobody else can be elected without this node's vote, so a second voter counts as heard when it is
        # added.
        for tag in view.voters - {authority.tag}:
            peers = peers.set(tag, replace(peers[tag], echo_ns=now.elapsed_upper_ns))
    return replace(_stalling(authority, view, now), peers=peers, members=view.peers, voters=view.voters)


def _stalling(authority: Authority, view: RaftView, now: Now) -> Authority:
    if view.applied_index >= view.commit_index:
        return replace(authority, stalled_since_ns=None)
    if view.applied_index != authority.applied_index or authority.stalled_since_ns is None:
        return replace(authority, applied_index=view.applied_index, stalled_since_ns=now.elapsed_upper_ns)
    return authority


def without_echoes(authority: Authority) -> Authority:
    """The leadership after its stamps have turned out to mean nothing (see `holder.lapsed`)."""
    return replace(authority, peers=Map({tag: replace(p, echo_ns=None) for tag, p in authority.peers.items()}))


def until_ns(authority: Authority, timings: Timings, now: Now) -> int:
    """The upper-bound reading at which the authority ends: the stamp that a majority of voters echoed, plus L."""
    if authority.voters == {authority.tag}:
        return FOREVER_NS
    echoes = sorted((_echo_of(authority, voter, now) for voter in authority.voters), reverse=True)
    majority = len(authority.voters) // 2 + 1
    return echoes[majority - 1] + lease_ns(timings) if len(echoes) >= majority else 0


def _echo_of(authority: Authority, voter: str, now: Now) -> int:
    if voter == authority.tag:
        return now.elapsed_upper_ns
    peer = authority.peers.get(voter)
    return -FOREVER_NS if peer is None or peer.echo_ns is None else peer.echo_ns


def stalled(authority: Authority, timings: Timings, now: Now) -> bool:
    """Whether the leader's own apply has stood still for longer than L while there was something to apply."""
    since_ns = authority.stalled_since_ns
    return since_ns is not None and now.elapsed_upper_ns - since_ns > lease_ns(timings)


def heard(authority: Authority, tag: str, report: Report, view: RaftView, own: Stamp, now: Now) -> Authority:
    """The leadership after a report, in its own term, of one of the view's peers. `own` is the leader's stamp of
    this moment.

    A process that the record does not have yet may still announce itself: it counts as a voter and is not accepted.
    One that the record has gone past, or a second one of the same start (a copied directory), is not heard at all.
    """
    peer, speaker = authority.peers[tag], report.stamp.incarnation
    known = view.incarnations.get(tag, UNKNOWN)
    # A higher boot count is a process that has started since and not announced itself yet. Any other that the record
    # does not name it has gone past: were that heard, two processes of one node would share one silence, and the life
    # of the one would keep the claims of the other, which may have died.
    if speaker != known and speaker.boot <= known.boot:
        return authority
    if speaker == known:
        # Before the stamps are compared: another process reads another clock, and may be on another machine.
        if peer.stamp and peer.stamp.incarnation != known:
            peer = _begun_again(peer, now)
        # Late or repeated: the node's silence counts from its newest stamp, and so does its lease.
        if peer.stamp and report.stamp.clock_ns <= peer.stamp.clock_ns:
            return authority
    # The echo counts for this leader's authority whatever becomes of the report: it proves that the voter was in this
    # term after the stamp was taken, which is all that authority rests on. A stamp of an earlier process of this node
    # was taken by another clock. The newest counts, as a report that was sent later may have answered an older beat.
    if report.echo and report.echo.incarnation == own.incarnation and report.echo.clock_ns <= own.clock_ns:
        peer = replace(peer, echo_ns=max(report.echo.clock_ns, peer.echo_ns or report.echo.clock_ns))
    # Only the process that the record names can get a lease. It is counted before it is judged: whether it applies, and
    # has a lease, is what decides if its stamp is taken.
    if speaker == known:
        peer = _taken(_counted(peer, report, view, now), report, authority.silence_ns, view, now)
    return replace(authority, peers=authority.peers.set(tag, peer))


def _begun_again(peer: PeerState, now: Now) -> PeerState:
    """The node with another process: how far the previous one had come says nothing of it; when it had its last lease
    stays, until that does not matter any more."""
    return PeerState(
        silent_from_ns=peer.silent_from_ns,
        echo_ns=peer.echo_ns,
        leases_until_ns=Map({process: ns for process, ns in peer.leases_until_ns.items() if ns > now.elapsed_lower_ns}),
    )


def _taken(peer: PeerState, report: Report, silence_ns: int, view: RaftView, now: Now) -> PeerState:
    if not _accepted(peer, view, now):
        return peer
    again = _given_up(peer, view, now)
    silent_from_ns = now.elapsed_lower_ns + silence_ns
    return replace(
        peer,
        stamp=report.stamp,
        silent_from_ns=silent_from_ns,
        leases_until_ns=peer.leases_until_ns.set(report.stamp.incarnation, silent_from_ns),
        no_lease_since_ns=now.elapsed_lower_ns if again else peer.no_lease_since_ns,
    )


def _counted(peer: PeerState, report: Report, view: RaftView, now: Now) -> PeerState:
    """How long the node has been behind without applying anything, and how long it has had no lease."""
    behind = report.applied_index < view.commit_index
    moved = report.applied_index != peer.applied_index
    waiting = view.role == "Leader" and not report.has_lease
    return replace(
        peer,
        applied_index=report.applied_index,
        behind_since_ns=_since(behind, None if moved else peer.behind_since_ns, now),
        no_lease_since_ns=_since(waiting, peer.no_lease_since_ns, now),
    )


def _since(is_so: bool, since_ns: int | None, now: Now) -> int | None:
    """Since when it is so: since this moment if it was not before."""
    if not is_so:
        return None
    return now.elapsed_lower_ns if since_ns is None else since_ns


def _accepted(peer: PeerState, view: RaftView, now: Now) -> bool:
    if view.timings is None:
        return True
    since_ns = peer.behind_since_ns
    stuck = since_ns is not None and now.elapsed_lower_ns - since_ns > lease_ns(view.timings)
    # A node that takes no lease is left to fall silent; when that has lasted for R it gets another chance.
    another_chance = now.elapsed_lower_ns >= peer.silent_from_ns + silence_ns(view.timings)
    return not stuck and (another_chance or not _given_up(peer, view, now))


def _given_up(peer: PeerState, view: RaftView, now: Now) -> bool:
    since_ns, timings = peer.no_lease_since_ns, view.timings
    return timings is not None and since_ns is not None and now.elapsed_lower_ns - since_ns >= silence_ns(timings)


def void_allowed_from_ns(authority: Authority) -> int:
    """The lower-bound reading before which this leader voids nothing, whatever it hears or does not hear."""
    return authority.elected_ns + max(authority.void_wait_ns, authority.silence_ns)


def is_silent(authority: Authority, tag: str, now: Now) -> bool:
    """Whether a node's claims may be voided. A node never heard of in this leadership had no lease from
    it."""
    peer, allowed_ns = authority.peers.get(tag), void_allowed_from_ns(authority)
    silent_from_ns = peer.silent_from_ns if peer else allowed_ns
    return tag != authority.tag and now.elapsed_lower_ns >= max(silent_from_ns, allowed_ns)


def is_over(authority: Authority, tag: str, incarnation: Incarnation, own: Incarnation, now: Now) -> bool:
    """Whether the claims of that process may be voided: R after the newest of its own stamps that this leader echoed,
    whatever other processes of the node say. `own` is the leader's, which is not over."""
    peer, allowed_ns = authority.peers.get(tag), void_allowed_from_ns(authority)
    until_ns = peer.leases_until_ns.get(incarnation, allowed_ns) if peer else allowed_ns
    return (tag, incarnation) != (authority.tag, own) and now.elapsed_lower_ns >= max(until_ns, allowed_ns)


def beat_for(authority: Authority, tag: str, view: RaftView, own: Stamp) -> Beat:
    """The beat to one node. It echoes the process that the record has, and no other; a leader that has not yet applied
    its first entry, and so may have an old record, echoes nobody."""
    peer = authority.peers.get(tag)
    stamp = peer.stamp if peer and view.role == "Leader" else None
    echo = stamp if stamp and stamp.incarnation == view.incarnations.get(tag) else None
    return Beat(term=authority.term, stamp=own, echo=echo, timings=view.timings)
