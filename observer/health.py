"""How the nodes are, as this leader sees them: their reports, and since when each is heard and each copy is well.

Silence comes from the lease alone (`Heartbeat.judgement`), so that what is void and what has a lease can never be
judged by two clocks. Everything here is forgotten when the leadership ends: it is rebuilt from the reports, and a new
leader counts every span from its own election.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from observer.rules.facts import (
    ClaimHolder,
    CopyState,
    DatabaseReport,
    Facts,
    NodeFacts,
    ObserverLimits,
    holder_of,
)
from raftnode.documents.change_vector import ChangeVectorInvalid, parse
from raftnode.foundation.names import fold
from raftnode.foundation.ports import NS_PER_MS, Clock
from raftnode.lease import Incarnation
from raftnode.liveness.heartbeat import LivenessJudgement
from raftnode.liveness.report import PAYLOAD_PERIOD_MS, CopyReport, NodeReport, ReceivedReport
from raftnode.record.model import Claim, NodeState, Record, Timings

_log = structlog.get_logger(__name__)


class LeadershipPort(Protocol):
    """What health needs of the lease; see `raftnode.liveness.heartbeat.Heartbeat`."""

    @property
    def term(self) -> int: ...
    @property
    def reports(self) -> Mapping[str, ReceivedReport]: ...
    def judgement(self) -> LivenessJudgement: ...


NOTHING_TOLD = NodeReport()


@dataclass
class _Seen:
    """One node, in this leadership. `report` is the one the newest sample was made of, `samples` its number,
    `databases` those of the record at that time, and `read` the newest one whose copies could be read."""

    heard_ns: int
    report: NodeReport | None = None
    samples: int = 0
    databases: object = None
    read: NodeReport = NOTHING_TOLD
    current: Mapping[str, DatabaseReport] = field(default_factory=dict)
    current_ns: int = 0
    previous: Mapping[str, DatabaseReport] = field(default_factory=dict)
    previous_ns: int = 0
    copies: dict[str, CopyState] = field(default_factory=dict)
    complaint: str = ""


class Health:
    """Samples the reports and keeps what the rules need of the past.

    `own_report` gives this node's own, `last_error` the last error on the way to a node, or the empty string.
    """

    def __init__(
        self,
        *,
        tag: str,
        heartbeat: LeadershipPort,
        clock: Clock,
        own_report: Callable[[], NodeReport],
        last_error: Callable[[str], str] = lambda tag: "",
    ) -> None:
        self._tag = tag
        self._heartbeat = heartbeat
        self._clock = clock
        self._own_report = own_report
        self._last_error = last_error
        self._term = -1
        self._seen: dict[str, _Seen] = {}
        self._own_sampled_ns = 0
        self._claims: Mapping[str, Claim] = {}
        self._holders: frozenset[ClaimHolder] = frozenset()

    def facts(self, record: Record, timings: Timings, limits: ObserverLimits) -> Facts:
        """All that is known at this moment, of the cluster's nodes and of whoever holds a claim."""
        now_ns = self._clock.elapsed_lower_ns()
        if self._heartbeat.term != self._term:
            self._term, self._seen, self._own_sampled_ns = (
                self._heartbeat.term,
                {},
                now_ns - PAYLOAD_PERIOD_MS * NS_PER_MS,
            )
        judgement = self._heartbeat.judgement()
        holders = self._holders_of(record)
        tags = {self._tag, *record.nodes, *self._heartbeat.reports, *(holder.tag for holder in holders)}
        for tag in tags:
            seen = self._seen.setdefault(tag, _Seen(heard_ns=now_ns))
            self._sample(tag, seen, record, now_ns, silent=judgement.is_silent(tag))
        fresh_ns = timings.time_before_moving_to_rehab_ms * NS_PER_MS // 2
        return Facts(
            leader=self._tag,
            term=self._term,
            now_ns=now_ns,
            now_ms=self._clock.wall_ms(),
            # Tags are never empty: this asks about a node that nobody has ever heard.
            void_allowed=judgement.is_silent(""),
            silence_ms=timings.time_before_moving_to_rehab_ms,
            limits=limits,
            nodes={tag: self._node(tag, self._seen[tag], now_ns, fresh_ns, judgement) for tag in tags},
            holders=holders,
            over=frozenset(h for h in holders if judgement.is_over(h.tag, Incarnation(h.boot, h.nonce))),
        )

    def _holders_of(self, record: Record) -> frozenset[ClaimHolder]:
        if record.claims is not self._claims:
            self._claims = record.claims
            self._holders = frozenset(holder_of(claim) for claim in record.claims.values() if claim.state == "Held")
        return self._holders

    def _sample(self, tag: str, seen: _Seen, record: Record, now_ns: int, *, silent: bool) -> None:
        if tag == self._tag:
            seen.heard_ns = now_ns
            if now_ns - self._own_sampled_ns >= PAYLOAD_PERIOD_MS * NS_PER_MS:
                self._own_sampled_ns = now_ns
                self._take(tag, seen, self._own_report(), record, now_ns)
            return
        heard = self._heartbeat.reports.get(tag)
        if heard is not None:
            seen.heard_ns = heard.heard_ns
            if heard.node is not None and heard.samples != seen.samples:
                seen.samples = heard.samples
                self._take(tag, seen, heard.node, record, now_ns)
        if silent:
            seen.copies, seen.report = {}, None

    def _take(self, tag: str, seen: _Seen, report: NodeReport, record: Record, now_ns: int) -> None:
        """One more sample. A report that cannot be read leaves the one before in place and is complained of once. The
        same report again costs next to nothing, and what it says of a copy stays the same object while it is the same.
        """
        if report is seen.report and record.databases is seen.databases and not seen.complaint:
            seen.previous, seen.previous_ns, seen.current_ns = seen.current, seen.current_ns, now_ns
            return
        seen.report, seen.databases = report, record.databases
        known = seen.read.databases
        try:
            reports = {
                fold(name): seen.current[fold(name)] if known.get(name) == copy else _report(copy)
                for name, copy in report.databases.items()
            }
        except ChangeVectorInvalid as error:
            if str(error) != seen.complaint:
                _log.warning("The report of a node cannot be read.", tag=tag, error=str(error))
                seen.complaint = str(error)
            return
        seen.complaint, seen.read = "", report
        seen.previous, seen.previous_ns = seen.current, seen.current_ns
        seen.current, seen.current_ns = reports, now_ns
        # A copy counts from when its node is in the group: what was there before is another copy.
        states = {name: record.databases[name].topology.state_of(tag) for name in reports if name in record.databases}
        seen.copies = {
            name: _state(seen.copies.get(name), reports[name], state, now_ns)
            for name, state in states.items()
            if state is not None
        }

    def _node(self, tag: str, seen: _Seen, now_ns: int, fresh_ns: int, judgement: LivenessJudgement) -> NodeFacts:
        silent = judgement.is_silent(tag)
        return NodeFacts(
            tag=tag,
            silent=silent,
            fresh=not silent and bool(seen.current) and now_ns - seen.heard_ns <= fresh_ns,
            heard_ns=seen.heard_ns,
            error=self._last_error(tag) if silent else "",
            current=seen.current,
            previous=seen.previous,
            previous_ns=seen.previous_ns,
            copies=seen.copies,
            flags=seen.read.flags,
        )


def _report(copy: CopyReport) -> DatabaseReport:
    return DatabaseReport(
        status=copy.status,
        last_etag=copy.last_etag,
        documents=copy.documents,
        vector={database_id: etag for database_id, (etag, _) in parse(copy.change_vector).items()},
        sent=copy.sent,
        error=copy.error or "",
    )


def _state(before: CopyState | None, report: DatabaseReport, state: NodeState, now_ns: int) -> CopyState:
    since_ns = before.since_ns if before is not None and before.well == report.well else now_ns
    known_ns = before.member_since_ns if before is not None else None
    member_since_ns = (now_ns if known_ns is None else known_ns) if state == "Member" else None
    return CopyState(report.well, since_ns, member_since_ns)
