"""Drives the lease: sends beats, answers them with reports, and tells the node what it may do.

All rules stand in `raftnode.lease`; here are the clock, the wire, the timer and the log. Whatever wakes this node and
acts by the lease calls `check` first: the timer, a message, a change of Raft's role or of the members, the supervisor
and the observer. Whoever only reads changes nothing, and never reads of a lease that has ended, as every answer is
compared with the clock.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from raftnode import lease as rules
from raftnode.foundation.background import set_or_after
from raftnode.foundation.decoding import DECODE_ERRORS, MsgpackDecoder
from raftnode.foundation.ports import NS_PER_MS, Clock, Network
from raftnode.lease import FOREVER_NS, Beat, Incarnation, LeaseState, Now, RaftView, Report, Role, StepDown
from raftnode.liveness.report import NodeReport, ReceivedReport, ReceivedReports, ReportPayload
from raftnode.liveness.view_source import RaftPort, ViewSource
from raftnode.record.model import ClusterNode, Timings

CHANNEL = "beat"

_log = structlog.get_logger(__name__)
_decoder: MsgpackDecoder[Beat | Report] = MsgpackDecoder(Beat | Report)


class LivenessJudgement(Protocol):
    """Who is silent and whose lease is over, all at one moment."""

    def is_silent(self, tag: str) -> bool:
        """Whether the node certainly has no lease; also one that is no longer, or never was, in the cluster."""

    def is_over(self, tag: str, incarnation: Incarnation) -> bool:
        """Whether this leader may void the claims of that process of the node."""


class Heartbeat:
    """The lease of this node, driven. All methods but `has_lease` are for the event loop's thread.

    `timings` gives the record's, None before the cluster is formed; until then beats go out every `heartbeat_ms` and
    grant nothing. `nodes` gives the record's, the same object as long as nothing has changed in it: of each node the
    leader hears the process that has announced itself. `own_report` is asked for what the observer is to know of this
    node, and gives the same object as long as that is the same. `on_lease` is called with the new end of the lease, an
    upper-bound reading, whenever that changes, and before any subscriber.
    """

    def __init__(
        self,
        *,
        raft: RaftPort,
        network: Network,
        clock: Clock,
        boot: int,
        nonce: int,
        timings: Callable[[], Timings | None],
        nodes: Callable[[], Mapping[str, ClusterNode]],
        heartbeat_ms: int,
        own_report: Callable[[], NodeReport],
        on_lease: Callable[[int], None] = lambda until_ns: None,
    ) -> None:
        self._raft = raft
        self._network = network
        self._clock = clock
        self._timings = timings
        self._views = ViewSource(raft, timings, nodes)
        self._heartbeat_ms = heartbeat_ms
        self._payload = ReportPayload(own_report)
        self._on_lease = on_lease
        self._lease = rules.new_lease(raft.tag, boot, nonce)
        self._told: tuple[Role, int | None] = ("Passive", None)
        self._subscribers: list[Callable[[], None]] = []
        self._reports = ReceivedReports()
        self._reported_peers: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
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
        return None if until_ns == FOREVER_NS else (until_ns - now.elapsed_upper_ns) // NS_PER_MS

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
            self._reports.keep(view.peers)
        self._take(*rules.advance(self._lease, view, self._now()), view)

    # ---- what the leader knows

    def silent_tags(self) -> frozenset[str]:
        """The nodes that certainly have no lease now; empty in a node that does not lead."""
        return rules.silent_tags(*self._as_of_now())

    def judgement(self) -> LivenessJudgement:
        """One consistent view for questions about many nodes and their processes: the clocks and Raft are read
        once."""
        lease, _, now = self._as_of_now()
        return _Judgement(lease, now)

    @property
    def reports(self) -> Mapping[str, ReceivedReport]:
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
        return min(pause_ns, max(0, holder.until_ns - self._clock.elapsed_upper_ns())) if holder.held else pause_ns

    def _role_changed(self) -> None:
        self.check()
        self._wake.set()

    # ---- messages

    def _received(self, tag: str, data: bytes) -> None:
        try:
            message = _decoder.decode(data)
        except DECODE_ERRORS as error:
            _log.warning("A message on the beat channel was dropped, as it cannot be read.", tag=tag, error=str(error))
            return
        if isinstance(message, Beat):
            self._answer(tag, message)
        else:
            self._hear(tag, message)

    def _answer(self, tag: str, beat: Beat) -> None:
        complaint = self._lease.holder.complaint
        payload = self._payload.due(beat.term, self._clock.elapsed_upper_ns())
        view = self._view()
        lease, report, step_down = rules.on_beat(self._lease, beat, view, self._now(), payload)
        self._take(lease, step_down, view)
        self._network.send(tag, CHANNEL, msgspec.msgpack.encode(report))
        if self.complaint and self.complaint != complaint:
            _log.error("This node takes no lease.", leader=tag, reason=self.complaint)

    def _hear(self, tag: str, report: Report) -> None:
        view, now = self._view(), self._now()
        self._take(*rules.on_report(self._lease, tag, report, view, now), view)
        heard = self._lease.authority is not None and tag in view.peers
        if heard and report.stamp.incarnation == view.incarnations.get(tag):
            self._reports.hear(tag, report, now.elapsed_lower_ns)

    # ---- state

    def _as_of_now(self) -> tuple[LeaseState, RaftView, Now]:
        """What can be read at this moment, and what it was read with."""
        view, now = self._view(), self._now()
        return rules.as_of(self._lease, view, now), view, now

    def _now(self) -> Now:
        return Now(self._clock.elapsed_upper_ns(), self._clock.elapsed_lower_ns(), self._clock.wall_ms())

    def _view(self) -> RaftView:
        return self._views.view(self._lease.authority)

    def _take(self, lease: LeaseState, step_down: StepDown | None, view: RaftView) -> None:
        before, self._lease = self._lease, lease
        if lease.authority is None or before.authority is None or lease.authority.term != before.authority.term:
            self._reports.clear()
        if step_down:
            if before.authority:
                _log.warning("This leader steps down.", reason=step_down.reason, term=self._raft.status.term)
            self._raft.step_down(step_down.term)
            view = self._view()
        if lease.holder.held and lease.holder.until_ns != before.holder.until_ns:
            self._on_lease(lease.holder.until_ns)
        self._tell(view)

    def _tell(self, view: RaftView) -> None:
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
    lease: LeaseState
    now: Now

    def is_silent(self, tag: str) -> bool:
        return rules.is_silent(self.lease, tag, self.now)

    def is_over(self, tag: str, incarnation: Incarnation) -> bool:
        return rules.is_over(self.lease, tag, incarnation, self.now)
