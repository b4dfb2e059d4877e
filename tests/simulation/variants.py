"""The daemon with one rule left out: what the simulated world must notice.

Each variant is a function that breaks one rule by replacing a part of the product through a `pytest.MonkeyPatch`. Rules
that another one stands behind are left out together with it, and their sentence says so. Those about claims stand in
`claim_variants`, the worlds in which they show in `schedules`, and `hunt` looks for a seed that notices.
"""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from raftnode.cluster.replica import Replica, Unavailable
from raftnode.consensus.engine import core
from raftnode.consensus.engine.applying import Applier
from raftnode.consensus.model import ApplyFailed, NotCommitted
from raftnode.consensus.storage.hard_state import HardStateFiles
from raftnode.consensus.storage.journal import Journal
from raftnode.foundation.ports import NS_PER_MS
from raftnode.lease import FOREVER_NS, Authority, Beat, LeaseHolder, Now, RaftView, Stamp
from raftnode.lease import authority as leadership
from raftnode.lease import holder as holding
from raftnode.lease.messages import lease_ns
from raftnode.record import machine as state_machine
from raftnode.record.commands import Decide, Entry, Outcome
from raftnode.record.commands import claims as claiming
from raftnode.record.commands import observer as deciding
from raftnode.record.model import CommandResult, Record, Timings
from tests.simulation import node
from tests.simulation.body import Sink
from tests.simulation.schedules import PACE

Patch = pytest.MonkeyPatch
Variant = Callable[[Patch], None]

LEASE_NS = PACE["lease_ms"] * NS_PER_MS
STOP_NS = PACE["task_stop_timeout_ms"] * NS_PER_MS


def _stop_ns(timings: Timings) -> int:
    return timings.task_stop_timeout_ms * NS_PER_MS


# ---- time


def half_a_lease_of_silence(patch: Patch) -> None:
    """R is half a lease."""
    patch.setattr(leadership, "silence_ns", lambda timings: lease_ns(timings) // 2)


def silence_without_margin(patch: Patch) -> None:
    """R is L + stop, without factor and margin."""
    patch.setattr(leadership, "silence_ns", lambda timings: lease_ns(timings) + _stop_ns(timings))


def no_wait_after_the_election(patch: Patch) -> None:
    """A leader voids as soon as it leads, and counts no silence anew from its election."""
    patch.setattr(leadership, "void_allowed_from_ns", lambda authority: authority.elected_ns)
    _silence_before_the_election_counts(patch)


def short_wait_after_the_election(patch: Patch) -> None:
    """A leader waits L + stop after its election and counts no silence anew; Raft's fallback ends no old leader."""
    no_fallback(patch)
    patch.setattr(
        leadership,
        "void_allowed_from_ns",
        lambda authority: authority.elected_ns + LEASE_NS + STOP_NS,
    )
    _silence_before_the_election_counts(patch)


def wait_without_margin(patch: Patch) -> None:
    """A leader waits exactly 2 L + stop after its election, without factor and margin, and counts no silence anew."""
    patch.setattr(
        leadership,
        "void_allowed_from_ns",
        lambda authority: authority.elected_ns + 2 * LEASE_NS + STOP_NS,
    )
    _silence_before_the_election_counts(patch)


def _silence_before_the_election_counts(patch: Patch) -> None:
    def refreshed(authority: Authority, view: RaftView, now: Now) -> Authority:
        fresh = not authority.members
        authority = original(authority, view, now)
        if not fresh:
            return authority
        peers = {tag: replace(peer, silent_from_ns=0) for tag, peer in authority.peers.items()}
        return replace(authority, peers=authority.peers.update(peers))

    original = leadership.refreshed
    patch.setattr(leadership, "refreshed", refreshed)


def void_without_silence(patch: Patch) -> None:
    """Every node counts as silent, and every process but the leader as over."""
    patch.setattr(leadership, "is_silent", lambda authority, tag, now: tag != authority.tag)
    patch.setattr(
        leadership, "is_over", lambda authority, tag, process, own, now: (tag, process) != (authority.tag, own)
    )


def lease_from_receipt(patch: Patch) -> None:
    """A lease counts from the receipt of a beat, not from the echoed stamp."""

    def granted(holder: LeaseHolder, beat: Beat, view: RaftView, now: Now) -> LeaseHolder:
        return (
            holder
            if view.timings is None
            else holding.renewed(holder, now.elapsed_upper_ns + lease_ns(view.timings), now)
        )

    patch.setattr(holding, "granted", granted)


def leader_without_authority(patch: Patch) -> None:
    """A leader that nobody answers goes on, and Raft's own fallback is off."""
    patch.setattr(
        leadership,
        "until_ns",
        lambda authority, timings, now: min(now.elapsed_upper_ns + lease_ns(timings), FOREVER_NS),
    )
    no_fallback(patch)


def no_fallback(patch: Patch) -> None:
    """A leader without a majority goes on for as long as its authority lasts."""
    original = core._configuration

    def configuration(config: Any) -> Any:
        made = original(config)
        made.leaderFallbackTimeout = 1e6
        return made

    patch.setattr(core, "_configuration", configuration)


def leader_elect_grants(patch: Patch) -> None:
    """A leader echoes before it has applied an entry of its own term. Shows only where sessions are left out."""

    def beat_for(authority: Authority, tag: str, view: RaftView, own: Stamp) -> Beat:
        return original(authority, tag, replace(view, role="Leader"), own)

    original = leadership.beat_for
    patch.setattr(leadership, "beat_for", beat_for)


def stamps_without_incarnation(patch: Patch) -> None:
    """An echo of the process before is sent and counts, although by this one's clock, which began anew, it is of the
    future."""

    def granted(holder: LeaseHolder, beat: Beat, view: RaftView, now: Now) -> LeaseHolder:
        if beat.echo is None or beat.timings is None or view.timings is None:
            return original(holder, beat, view, now)
        return holding.renewed(holder, beat.echo.clock_ns + lease_ns(view.timings), now)

    original = holding.granted
    patch.setattr(holding, "granted", granted)
    patch.setattr(leadership, "_begun_again", lambda peer, now: peer)

    def beat_for(authority: Authority, tag: str, view: RaftView, own: Stamp) -> Beat:
        peer = authority.peers.get(tag)
        echo = peer.stamp if peer and view.role == "Leader" else None
        return Beat(term=authority.term, stamp=own, echo=echo, timings=view.timings)

    patch.setattr(leadership, "beat_for", beat_for)


def processes_without_nonce(patch: Patch) -> None:
    """Two processes of one start are told apart by nothing: not in claims, announcements, stamps or greetings."""
    patch.setattr(node.Machine, "nonce", lambda self: 1)


def clock_that_stops_in_a_pause(patch: Patch) -> None:
    """Elapsed time leaves out the time in which the process stood still, as CLOCK_MONOTONIC does in a suspend."""
    pause, thaw = node.Machine.pause, node.Machine.thaw
    since: dict[str, float] = {}

    def paused(machine: node.Machine) -> None:
        if machine.running:
            since[machine.tag] = machine.world.loop.time()
        pause(machine)

    def thawed(machine: node.Machine) -> None:
        if machine.tag in since:
            lost_ns = int((machine.world.loop.time() - since.pop(machine.tag)) * machine.clock.rate * 1e9)
            machine.clock._upper_ns -= lost_ns
            machine.clock._lower_ns -= lost_ns
        thaw(machine)

    def kill(timer: node.KernelTimer) -> None:
        if timer._process.alive and not timer._process.paused:
            timer._machine.die()

    patch.setattr(node.Machine, "pause", paused)
    patch.setattr(node.Machine, "thaw", thawed)
    patch.setattr(node.KernelTimer, "_kill", kill)


def no_watchdog(patch: Patch) -> None:
    """A process that hangs is not killed when its lease and the time to stop are over."""
    patch.setattr(node.KernelTimer, "_kill", lambda self: None)


# ---- void


def void_of_any_term(patch: Patch) -> None:
    """A decision counts in an entry of any term, and is proposed again, by way of any leader, until it is answered."""

    def apply(self: Decide, record: Record, entry: Entry) -> Outcome:
        return original(replace(self, term=entry.term), record, entry)

    async def decide(self: Replica, command: Decide) -> CommandResult:
        try:
            return await self.propose(command)
        except Unavailable as error:
            raise NotCommitted(str(error)) from error

    original = Decide.apply
    patch.setattr(Decide, "apply", apply)
    patch.setattr(Replica, "decide", decide)


def void_of_any_epoch(patch: Patch) -> None:
    """A void ends whatever claim stands under its key."""

    def void(record: Record, key: str, epoch: int, reason: str) -> Record | None:
        claim = record.claims.get(key)
        return None if claim is None else original(record, key, claim.epoch, reason)

    original = claiming.void
    patch.setattr(deciding, "void", void)


# ---- sinks


def sink_without_epochs(patch: Patch) -> None:
    """The sink takes whatever comes."""

    def write(self: Sink, epoch: int, step: int) -> bool:
        self.fence = epoch
        return original(self, epoch, step)

    original = Sink.write
    patch.setattr(Sink, "begin", lambda self, epoch: self.steps)
    patch.setattr(Sink, "write", write)


def read_before_the_fence(patch: Patch) -> None:
    """A body reads how far the task has come before it raises the sink's epoch, which its first write does."""

    def write(self: Sink, epoch: int, step: int) -> bool:
        self.fence = max(self.fence, epoch)
        return original(self, epoch, step)

    original = Sink.write
    patch.setattr(Sink, "begin", lambda self, epoch: None if epoch < self.fence else self.steps)
    patch.setattr(Sink, "write", write)


# ---- memory


def another_request_is_a_repeat(patch: Patch) -> None:
    """A request under an id that was used is answered with the first one's result, whatever it asks for."""
    patch.setattr(
        state_machine, "first_result", lambda record, request_id, asked, *, index: record.requests.get(request_id)
    )


def answers_are_not_kept(patch: Patch) -> None:
    """A repeat is carried out again."""
    patch.setattr(state_machine, "_remember", lambda record, envelope, result: record)


def any_error_is_an_answer(patch: Patch) -> None:
    """Whatever a command raises is answered and remembered, as if it were so on every node."""
    patch.setattr(state_machine, "ALIKE", (Exception,))


def failed_entries_count_as_applied(patch: Patch) -> None:
    """An entry that could not be applied is skipped."""

    def apply(self: Applier, entry: tuple[bytes, int, int]) -> None:
        try:
            original(self, entry)
        except ApplyFailed as failed:
            self._events.applied(entry[1], entry[2], failed)

    original = Applier.apply
    patch.setattr(Applier, "apply", apply)


# ---- disks


def journal_without_sync(patch: Patch) -> None:
    """The journal is written, and never synced."""

    def sync(self: Journal) -> None:
        if self._dirty:
            self._write()
            self._dirty = False

    patch.setattr(Journal, "sync", sync)


def vote_that_is_not_stored(patch: Patch) -> None:
    """Term and vote are kept in memory alone."""

    def store_vote(self: HardStateFiles, vote: Any) -> None:
        if vote.term == 0:
            original(self, vote)

    original = HardStateFiles.store_vote
    patch.setattr(HardStateFiles, "store_vote", store_vote)
