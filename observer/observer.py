"""The cluster observer: on the leader only, gathers, decides and proposes, and says what it decided and why.

The rules are pure and stand in `observer.rules`. A decision names the term it was made in and is never proposed
twice: what was not committed is decided again from what is true then.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog
from msgspec.structs import replace

from observer.health import Health, LeadershipPort
from observer.rules.decide import IterationDecisions, Sentence, decide
from observer.rules.facts import Facts, ObserverLimits, started_again
from observer.rules.settled import NOTHING_SETTLED, settled_after
from raftnode.consensus.model import NotCommitted, OutcomeUnknown
from raftnode.foundation import timestamps
from raftnode.foundation.background import set_or_after
from raftnode.foundation.ports import NS_PER_MS, Clock
from raftnode.lease import Role
from raftnode.record.commands import Decide, encode
from raftnode.record.model import COMMAND_BYTES_MAX, CommandResult, Record

_log = structlog.get_logger(__name__)

POLLS_IN_SILENCE = 50
"""While a node is not heard but not yet silent, the observer looks that many times in R."""
POLL_MS_MIN = 5


class HeartbeatPort(LeadershipPort, Protocol):
    """What the observer needs of the lease; see `raftnode.liveness.heartbeat.Heartbeat`."""

    def check(self) -> None: ...
    @property
    def role(self) -> Role: ...
    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]: ...


class RecordPort(Protocol):
    """What the observer needs of the record; see `raftnode.cluster.replica.Replica`."""

    @property
    def record(self) -> Record: ...
    async def decide(self, command: Decide) -> CommandResult: ...


class Observer:
    """The loop. `period_ms` is how often it looks when nothing is near a limit."""

    def __init__(
        self,
        *,
        replica: RecordPort,
        heartbeat: HeartbeatPort,
        health: Health,
        clock: Clock,
        period_ms: int,
        limits: ObserverLimits,
    ) -> None:
        self._replica = replica
        self._heartbeat = heartbeat
        self._health = health
        self._clock = clock
        self._period_ms = period_ms
        self._limits = limits
        self._iteration = 0
        self._term = -1
        self._settled = NOTHING_SETTLED
        self._standing: frozenset[Sentence] | None = None
        self._quiet: tuple[str, tuple[str, ...]] | None = None
        self._wake = asyncio.Event()

    @property
    def iteration(self) -> int:
        """How many times this node has looked since it began to lead."""
        return self._iteration

    def wake(self) -> None:
        """Has the observer look at once. A change of role does so by itself."""
        self._wake.set()

    async def run(self) -> None:
        """Looks again and again until cancelled. While this node does not lead, that costs a glance a period.

        An error in a turn is logged and the turn given up: it must not end one leader after the other.
        """
        unsubscribe = self._heartbeat.subscribe(self.wake)
        try:
            while True:
                self._wake.clear()
                pause_ms = await self._turn_or_give_up()
                await set_or_after(self._wake, pause_ms / 1000)
        finally:
            unsubscribe()

    async def _turn_or_give_up(self) -> float:
        try:
            return await self.turn()
        except Exception:
            _log.exception("A turn of the observer failed and is given up.", iteration=self._iteration)
            return self._period_ms

    async def turn(self) -> float:
        """One turn: looks, decides, and proposes what was decided. Returns how long nothing can change, in ms."""
        # First of all: a leader that wakes late may lead no more, and must not decide by what it last heard.
        self._heartbeat.check()
        record = self._replica.record
        timings = record.timings
        if self._heartbeat.role != "Leader" or timings is None:
            self._term = -1
            return self._period_ms
        if self._heartbeat.term != self._term:
            self._term, self._iteration, self._settled = self._heartbeat.term, 0, NOTHING_SETTLED
            self._standing, self._quiet = None, None
        self._iteration += 1
        facts = self._health.facts(record, timings, self._limits)
        decisions = decide(record, facts, self._settled)
        self._settled = settled_after(record, facts, (one.database for one in decisions.sentences), self._settled)
        standing = _told_before(record, decisions) if self._standing is None else self._standing
        new = (one for one in decisions.sentences if one.key is None or _keyed(one) not in standing)
        fresh = replace(decisions, sentences=tuple(new))
        if not (fresh.topologies or fresh.voids or fresh.graces or fresh.sentences):
            self._standing = _standing(decisions)
            self._nothing(record, facts)
            return _pause_ms(record, facts, self._period_ms)
        self._quiet = None
        if not await self._propose(self._command(fresh, facts), fresh):
            return _pause_ms(record, facts, self._period_ms)
        self._standing = _standing(decisions)
        return 0

    def _command(self, decisions: IterationDecisions, facts: Facts) -> Decide:
        return Decide(
            term=facts.term,
            iteration=self._iteration,
            at=timestamps.from_ticks(facts.now_ms * timestamps.TICKS_PER_MS),
            at_ms=facts.now_ms,
            topologies=decisions.topologies,
            voids=decisions.voids,
            graces=decisions.graces,
            decisions=tuple((sentence.database, sentence.message) for sentence in decisions.sentences),
        )

    async def _propose(self, command: Decide, decisions: IterationDecisions) -> bool:
        """Whether all of it was applied."""
        stale: set[str] = set()
        for part in parts(command):
            try:
                result = await self._replica.decide(part)
            except (NotCommitted, OutcomeUnknown) as failure:
                _log.warning("A decision was not committed and will be made again.", reason=str(failure))
                return False
            if result.error is not None:
                _log.warning("A decision was refused and will be made again.", reason=result.error.message)
                return False
            stale.update(result.value)
        for database in sorted(stale):
            _log.warning(
                "A topology was not changed: its record was edited meanwhile. It is decided again.", database=database
            )
        for sentence in (sentence for sentence in decisions.sentences if sentence.database not in stale):
            _log.info(sentence.message, database=sentence.database, iteration=command.iteration, term=command.term)
        return not stale

    def _nothing(self, record: Record, facts: Facts) -> None:
        """The sentence of a turn without a decision; a repeat of the last one is not logged again."""
        silent = tuple(sorted(node.tag for node in facts.nodes.values() if node.silent))
        why = "the observer is suspended" if record.observer.suspended else "everything is as it should be"
        if (why, silent) != self._quiet:
            self._quiet = (why, silent)
            databases = len(record.databases)
            _log.debug(f"Nothing was decided: {why}.", term=facts.term, databases=databases, silent=silent)


def parts(command: Decide) -> list[Decide]:
    """The command, cut in halves until each fits the log. The sentences go with the first parts."""
    items = (len(command.topologies), len(command.voids), len(command.graces), len(command.decisions))
    if max(items) <= 1 or len(encode(command)) <= COMMAND_BYTES_MAX:
        return [command]
    t, v, g, d = ((count + 1) // 2 for count in items)
    first = replace(
        command,
        topologies=command.topologies[:t],
        voids=command.voids[:v],
        graces=command.graces[:g],
        decisions=command.decisions[:d],
    )
    settled = replace(
        command,
        topologies=command.topologies[t:],
        voids=command.voids[v:],
        graces=command.graces[g:],
        decisions=command.decisions[d:],
    )
    return [*parts(first), *parts(settled)]


def _pause_ms(record: Record, facts: Facts, period_ms: int) -> float:
    """Until a node that is heard no more would have been silent for R; a node that is past that moment and does not
    count as silent yet (the leader is new, or the node reports but is not accepted) is polled for, and so is the end of
    a previous process, which the node that was started again waits for."""
    poll_ms = max(POLL_MS_MIN, facts.silence_ms / POLLS_IN_SILENCE)
    waited_for = any(started_again(record, holder) for holder in facts.holders - facts.over)
    pause_ms: float = min(period_ms, poll_ms) if waited_for else period_ms
    for node in facts.nodes.values():
        if node.silent or node.tag == facts.leader:
            continue
        left_ms = facts.silence_ms - (facts.now_ns - node.heard_ns) / NS_PER_MS
        pause_ms = min(pause_ms, left_ms + 1 if left_ms > 0 else poll_ms)
    return pause_ms


def _keyed(sentence: Sentence) -> Sentence:
    return Sentence(sentence.database, "", sentence.key)


def _told_before(record: Record, decisions: IterationDecisions) -> frozenset[Sentence]:
    """What a leader before has said, and need not be said again by the next."""
    told = {(decision.database, decision.message) for decision in record.observer.decisions}
    return frozenset(_keyed(s) for s in decisions.sentences if s.key is not None and (s.database, s.message) in told)


def _standing(decisions: IterationDecisions) -> frozenset[Sentence]:
    return frozenset(_keyed(sentence) for sentence in decisions.sentences if sentence.key is not None)
