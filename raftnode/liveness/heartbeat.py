"""Drives the lease: sends beats, answers them with reports, and tells the node what it may do.

All rules stand in `raftnode.lease`; here are the clock, the wire, the timer and the log. Whatever wakes this node and
acts by the lease calls `check` first: the timer, a message, a change of Raft's role or of the members, the supervisor
and the observer. Whoever only reads changes nothing, and never reads of a lease that has ended, as every answer is
compared with the clock.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import structlog

from raftnode import lease as rules
from raftnode.consensus.model import Peer, RaftStatus
from raftnode.foundation.background import set_or_after
from raftnode.foundation.decoding import UNREADABLE, MsgpackDecoder
from raftnode.foundation.ports import NS_PER_MS, Clock, Network
from raftnode.lease import FOREVER_NS, Beat, Incarnation, Lease, Now, Report, Role, StepDown, View
from raftnode.record.model import ClusterNode, Timings

CHANNEL = "beat"
PAYLOAD_BYTES_MAX = 1024 * 1024
PAYLOAD_PERIOD_MS = 200
"""A report carries its payload no more often than this, so that short heartbeats stay small."""

_log = structlog.get_logger(__name__)
_decoder: MsgpackDecoder[Beat | Report] = MsgpackDecoder(Beat | Report)
_payload_decoder: MsgpackDecoder[dict[str, Any]] = MsgpackDecoder(dict[str, Any])


class Raft(Protocol):
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
        """Who elected this node in that term, each with the `Clock.hold_ns` at which its request was sent."""


@dataclass(frozen=True)
class Heard:
    """A node's last report, as the leader knows it. `heard_ns` is a judge reading. `payload` is the same object as long
    as the node reports the same, `samples` counts how often it has done so, and `encoded` is how it came."""

    tag: str
    boot: int
    has_lease: bool
    applied_index: int
    heard_ns: int
    payload: dict[str, Any]
    samples: int = 0
    encoded: bytes = b""


class Judgement(Protocol):
    """Who is silent and whose lease is over, all at one moment."""

    def is_silent(self, tag: str) -> bool:
        """Whether the node certainly has no lease; also one that is no longer, or never was, in the cluster."""

    def is_over(self, tag: str, incarnation: Incarnation) -> bool:
        """Whether this leader may void the claims of that process of the node."""


class Heartbeat:
    """The lease of this node, driven. All methods but `has_lease` are for the event loop's thread.

    `timings` gives the record's, None before the cluster is formed; until then beats go out every `heartbeat_ms` and
    grant nothing. `nodes` gives the record's, the same object as long as nothing has changed in it: of each node the
    leader hears the process that has announced itself. `report_payload` is asked for what the observer is to know of
    this node, and gives the same object as long as that is the same.
    """

    def __init__(
        self,
        *,
        raft: Raft,
        network: Network,
        clock: Clock,
        boot: int,
        nonce: int,
        timings: Callable[[], Timings | None],
        nodes: Callable[[], Mapping[str, ClusterNode]],
        heartbeat_ms: int,
        report_payload: Callable[[], dict[str, Any]],
        on_lease: Callable[[int], None] = lambda until_ns: None,
    ) -> None:
        self._raft = raft
        self._network = network
        self._clock = clock
        self._timings = timings
        self._nodes = nodes
        self._heartbeat_ms = heartbeat_ms
        self._report_payload = report_payload
        self._on_lease = on_lease
        self._lease = rules.new_lease(raft.tag, boot, nonce)
        self._told: tuple[Role, int | None] = ("Passive", None)
        self._subscribers: list[Callable[[], None]] = []
        self._reports: dict[str, Heard] = {}
        self._payload_sent: tuple[int, int] | None = None
        self._payload_encoded: tuple[object, bytes] = (None, b"")
        self._wake = asyncio.Event()
        self._members: tuple[Peer, ...] | None = None
        self._peers: frozenset[str] = frozenset()
        self._reported_peers = self._peers
        self._known_nodes: Mapping[str, ClusterNode] | None = None
        self._incarnations: dict[str, Incarnation] = {}
        network.on_message(CHANNEL, self._received)
        raft.on_role_change.append(lambda role, term: self._role_changed())

    # ---- what the node may do

    @property
    def role(self) -> Role:
        """What this node is to the cluster."""
        lease, view, _ = self._as_of_now()
        return rules.role_of(lease, view)

    @property
    def session(self) -> int | None:
        """The number of the unbroken lease this node has, None without one."""
        holder = self._as_of_now()[0].holder
        return holder.session if holder.held else None

    @property
    def leader(self) -> str | None:
        """The leader's tag; None in a node without a lease, which cannot know."""
        return self._raft.status.leader if self.role not in ("Candidate", "Passive") else None

    @property
    def term(self) -> int:
        """Raft's current term."""
        return self._raft.status.term

    @property
    def lease_left_ms(self) -> int | None:
        """How much of the lease is left, 0 without one, None when it has no end."""
        lease, _, now = self._as_of_now()
        if not lease.holder.held:
            return 0
        until_ns = lease.holder.until_ns
        return None if until_ns == FOREVER_NS else (until_ns - now.hold_ns) // NS_PER_MS

    @property
    def complaint(self) -> str:
        """Why this node takes no lease although the leader offers one, or empty."""
        return self._lease.holder.complaint

    def has_lease(self, session: int | None = None) -> bool:
        """Whether tasks may run at this very moment, in that session if one is named. Cheap, and safe in any
        thread."""
        held = self._lease
        same = session is None or held.holder.session == session
        return same and rules.has_lease(held, self._timings(), self._now())

    def check(self) -> None:
        """Looks at the clocks and at Raft: takes note of what has ended or begun, steps down if the leader must, and
        tells the subscribers. Nothing else changes what this node may do, but for messages, which come through the same
        rules."""
        view = self._view()
        if view.peers is not self._reported_peers:
            self._reported_peers = view.peers
            for tag in self._reports.keys() - view.peers:
                del self._reports[tag]
        self._take(*rules.checked(self._lease, view, self._now()), view)

    # ---- what the leader knows

    def silent_tags(self) -> frozenset[str]:
        """The nodes that certainly have no lease now; empty in a node that does not lead."""
        return rules.silent_tags(*self._as_of_now())

    def judgement(self) -> Judgement:
        """The same for one node after the other, and for each of its processes: the clocks and Raft are looked at once
        for all of them."""
        lease, _, now = self._as_of_now()
        return _Judgement(lease, now)

    @property
    def reports(self) -> Mapping[str, Heard]:
        """The last report of each node to this leader; empty in a node that does not lead."""
        return self._reports

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Has the callback called after each change of role or session. Returns what ends that."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    # ---- the loop

    async def run(self) -> None:
        """Beats until cancelled."""
        while True:
            self._wake.clear()
            self._beat()
            await set_or_after(self._wake, self._pause_ns() / 1e9)

    def _beat(self) -> None:
        self.check()
        for tag, beat in rules.beats(self._lease, self._view(), self._now()).items():
            self._network.send(tag, CHANNEL, msgspec.msgpack.encode(beat))

    def _pause_ns(self) -> int:
        """Until the next beat, or the end of the lease if that comes sooner."""
        timings = self._timings()
        pause_ns = (timings.heartbeat_ms if timings else self._heartbeat_ms) * NS_PER_MS
        holder = self._lease.holder
        return min(pause_ns, max(0, holder.until_ns - self._clock.hold_ns())) if holder.held else pause_ns

    def _role_changed(self) -> None:
        self.check()
        self._wake.set()

    # ---- messages

    def _received(self, tag: str, data: bytes) -> None:
        try:
            message = _decoder.decode(data)
        except UNREADABLE as error:
            _log.warning("A message on the beat channel was dropped, as it cannot be read.", tag=tag, error=str(error))
            return
        if isinstance(message, Beat):
            self._answer(tag, message)
        else:
            self._hear(tag, message)

    def _answer(self, tag: str, beat: Beat) -> None:
        complaint = self._lease.holder.complaint
        payload = self._payload(beat.term)
        view = self._view()
        lease, report, step_down = rules.on_beat(self._lease, beat, view, self._now(), payload)
        self._take(lease, step_down, view)
        self._network.send(tag, CHANNEL, msgspec.msgpack.encode(report))
        if self.complaint and self.complaint != complaint:
            _log.error("This node takes no lease.", leader=tag, reason=self.complaint)

    def _payload(self, term: int) -> bytes:
        now_ns = self._clock.hold_ns()
        sent_term, sent_ns = self._payload_sent or (None, 0)
        if sent_term == term and now_ns - sent_ns < PAYLOAD_PERIOD_MS * NS_PER_MS:
            return b""
        self._payload_sent = (term, now_ns)
        report, (before, payload) = self._report_payload(), self._payload_encoded
        if report is not before:
            payload = msgspec.msgpack.encode(report)
            self._payload_encoded = report, payload
        if len(payload) <= PAYLOAD_BYTES_MAX:
            return payload
        _log.error("The report is too large and goes without its payload.", bytes=len(payload), most=PAYLOAD_BYTES_MAX)
        return b""

    def _hear(self, tag: str, report: Report) -> None:
        view, now = self._view(), self._now()
        self._take(*rules.on_report(self._lease, tag, report, view, now), view)
        if self._lease.authority is None or tag not in self._peers:
            return
        if report.stamp.incarnation != view.incarnations.get(tag):
            return
        known = self._reports.get(tag) or Heard(tag, 0, False, 0, 0, {})
        payload, encoded, samples = known.payload, known.encoded, known.samples
        if report.payload == encoded:
            samples += bool(encoded)
        elif decoded := _decoded(tag, report.payload):
            payload, encoded, samples = decoded, report.payload, samples + 1
        self._reports[tag] = Heard(
            tag=tag,
            boot=report.stamp.boot,
            has_lease=report.has_lease,
            applied_index=report.applied_index,
            heard_ns=now.judge_ns,
            payload=payload,
            samples=samples,
            encoded=encoded,
        )

    # ---- state

    def _as_of_now(self) -> tuple[Lease, View, Now]:
        """What can be read at this moment, and what it was read with."""
        view, now = self._view(), self._now()
        return rules.as_of(self._lease, view, now), view, now

    def _now(self) -> Now:
        return Now(self._clock.hold_ns(), self._clock.judge_ns(), self._clock.wall_ms())

    def _view(self) -> View:
        status, authority = self._raft.status, self._lease.authority
        if status.peers is not self._members:
            self._members = status.peers
            self._peers = frozenset(peer.tag for peer in status.peers) - {self._raft.tag}
        nodes = self._nodes()
        if nodes is not self._known_nodes:
            self._known_nodes = nodes
            self._incarnations = {tag: Incarnation(node.boot, node.nonce) for tag, node in nodes.items()}
        elected = status.leads and (authority is None or authority.term != status.term)
        return View(
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

    def _take(self, lease: Lease, step_down: StepDown | None, view: View) -> None:
        before, self._lease = self._lease, lease
        if lease.authority is None or before.authority is None or lease.authority.term != before.authority.term:
            self._reports = {}
        if step_down:
            if before.authority:
                _log.warning("This leader steps down.", reason=step_down.reason, term=self._raft.status.term)
            self._raft.step_down(step_down.term)
            view = self._view()
        if lease.holder.held and lease.holder.until_ns != before.holder.until_ns:
            self._on_lease(lease.holder.until_ns)
        self._tell(view)

    def _tell(self, view: View) -> None:
        role, holder = rules.role_of(self._lease, view), self._lease.holder
        before, self._told = self._told, (role, holder.session if holder.held else None)
        if self._told == before:
            return
        _log.info(
            "This node's role or session has changed.",
            role=role,
            previous_role=before[0],
            session=holder.session,
            lease_held=holder.held,
        )
        for callback in list(self._subscribers):
            try:
                callback()
            except Exception:
                _log.exception("A subscriber to role changes failed.")


@dataclass(frozen=True)
class _Judgement:
    lease: Lease
    now: Now

    def is_silent(self, tag: str) -> bool:
        return rules.is_silent(self.lease, tag, self.now)

    def is_over(self, tag: str, incarnation: Incarnation) -> bool:
        return rules.is_over(self.lease, tag, incarnation, self.now)


def _decoded(tag: str, payload: bytes) -> dict[str, Any]:
    try:
        return _payload_decoder.decode(payload) if payload else {}
    except UNREADABLE as error:
        _log.warning("The payload of a report cannot be read.", tag=tag, error=str(error))
        return {}
