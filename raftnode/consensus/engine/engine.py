"""The Raft engine: PySyncObj's core between our journal, our messages and our clock. No asyncio, no sockets.

Its owner calls `tick` when `schedule_tick` asks for it and at least twice per period of empty appends, `receive` for
each message, and `connected` when a peer comes or goes; all on one thread.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from raftnode.consensus.engine import members as membership
from raftnode.consensus.engine import messages, patches
from raftnode.consensus.engine.admission import Admission
from raftnode.consensus.engine.applying import Applier
from raftnode.consensus.engine.core import CANDIDATE, FOLLOWER, LEADER, Core
from raftnode.consensus.engine.elections import Elections
from raftnode.consensus.engine.environment import EngineEnvironment
from raftnode.consensus.engine.members import MEMBERSHIP, NO_OP, REGULAR, RequestRefused
from raftnode.consensus.engine.messages import AnyMessage
from raftnode.consensus.engine.parts import EngineParts
from raftnode.consensus.engine.receiving import Receiver
from raftnode.consensus.engine.replication import Replication
from raftnode.consensus.engine.resync import Resync
from raftnode.consensus.engine.snapshots import Snapshots
from raftnode.consensus.engine.storage import Storage
from raftnode.consensus.model import Change, ConsensusFailed, JournalFailed, Peer, RaftStatus, Role
from raftnode.consensus.storage.hard_state import VOTE
from raftnode.consensus.storage.segment import Entry
from raftnode.consensus.storage.snapshot import SNAPSHOT, SnapshotDescription

log = structlog.get_logger(__name__)

NS_PER_S = 1_000_000_000
ROLES: dict[int, Role] = {FOLLOWER: "Follower", CANDIDATE: "Candidate", LEADER: "Leader"}


class Engine:
    """One node's Raft. Make it of an opened storage whose snapshot the state machine has been restored from;
    `empty_state` is what the state machine dumped before that.

    `status` is published at the end of every call that may change it, and within one before anybody outside is told of
    anything. So whoever reads it sees what this node is at that moment, and never the middle of a transition.
    """

    status: RaftStatus

    def __init__(
        self,
        tag: str,
        peers: tuple[Peer, ...],
        storage: Storage,
        empty_state: list[bytes],
        environment: EngineEnvironment,
    ) -> None:
        self.tag = tag
        self._environment = environment
        self._bootstrap = peers
        self._failure: ConsensusFailed | None = None
        description, config = storage.description, environment.config
        self._members = storage.members
        self._log, self._journal = storage.log, storage.log.journal
        self._applier = Applier(environment.machine, environment.events, restored=description is not None)
        patches.use_time(self._now_s())
        self._core = Core(tag, self._log, self, config, environment.random)
        self._journal.sync()
        self._elections = Elections(tag, self._core, config, environment.clock, environment.random)
        self._log.on_vote = self._elections.term_begun
        self._snapshots = Snapshots(
            storage.snapshots,
            description,
            self._journal,
            environment.machine,
            config,
            self._offload,
            lambda installed, leader: self._resync.installed(installed, leader),
        )
        self._replication = Replication(self._core, self._journal, self._snapshots, environment.wire)
        self._admission = Admission(tag, self._core, self._journal, self._replication, config)
        parts = EngineParts(
            tag=tag,
            log=self._log,
            journal=self._journal,
            members=self._members,
            core=self._core,
            elections=self._elections,
            snapshots=self._snapshots,
            replication=self._replication,
        )
        adopt = self._adopt_members
        self._resync = Resync(parts, self._applier, environment.machine, environment.events, empty_state, adopt)
        self._receiver = Receiver(parts, self._admission, self._resync, adopt)
        self._begin(description)

    def _begin(self, description: SnapshotDescription | None) -> None:
        """Takes up what was on the disk."""
        if description is not None:
            self._core.rewind(description.index, self._log.getRaftCommitIndex())
        self._applier.applied_term = self._journal.term_at(self._core.applied_index) or 0
        self._adopt_members()
        if self._members.voters <= {self.tag} and self._eligible():
            # Nobody else is to be asked: it leads with the first tick.
            self._core.deadline = self._now_s() - 1

    # entries into the engine

    def tick(self) -> None:
        """Does whatever is due."""
        self._guarded(self._tick)

    def receive(self, sender: str, payload: bytes) -> None:
        """Takes a message of another node."""
        try:
            message = messages.decode(payload)
        except messages.DECODE_ERRORS as error:
            log.warning("A message is dropped, as it cannot be read.", sender=sender, reason=str(error))
            return
        self._guarded(self._receive, sender, message)
        self._publish()

    def connected(self, tag: str, up: bool) -> None:
        """The connection to a peer came up or was lost."""
        self._guarded(self._connected, tag, up)

    def propose(self, command: bytes) -> tuple[int, int]:
        """Takes an application's command into the leader's log, and gives its index and term. The next tick syncs and
        sends it. Raises RequestRefused."""
        self._check_alive()
        self._admission.check(len(command))
        return self._take(REGULAR + command)

    def propose_no_op(self) -> tuple[int, int]:
        """The same with an entry that changes nothing."""
        self._check_alive()
        self._admission.check(0)
        return self._take(NO_OP)

    def propose_change(self, change: Change, command: bytes) -> tuple[int, int]:
        """The same with one entry that changes the membership and carries a command."""
        self._check_alive()
        self._admission.check(len(command))
        peers = self._admission.peers_after(change, self._members)
        position = self._take(membership.encode(peers, command))
        log.info("The membership changes.", change=repr(change), index=position[0], peers=[p.tag for p in peers])
        return position

    def transfer_leadership(self, tag: str | None) -> str:
        """Tells a follower to take the leadership over: the named one or the most advanced. Gives its tag. Raises
        Refused when it does not hold the whole log (yet)."""
        self._check_alive()
        target = self._admission.transfer_target(tag, self._members.voters, self._now_s())
        self._enter()
        if not self._core.transfer_leadership(target):
            raise RequestRefused(f"{target} does not hold the whole log yet")
        return target

    @property
    def handing_over(self) -> bool:
        """Whether the leadership is on its way to another node. No command is taken meanwhile, so that the other one
        can come to hold the whole log (thesis, section 3.10)."""
        return self._admission.handing_over

    @handing_over.setter
    def handing_over(self, value: bool) -> None:
        self._admission.handing_over = value

    def check_transfer_target(self, tag: str | None) -> None:
        """Raises RequestRefused when no hand-over to that voter, or to any, can come to anything now."""
        self._admission.check_transfer_target(tag, self._members.voters, self._now_s())

    def step_down(self, term: int | None) -> None:
        """Stops leading; with a newer `term`, adopts that."""
        if self._core.is_leader or (term or 0) > self._core.term:
            log.info("This node steps down.", term=self._core.term, newer_term=term)
            self._guarded(self._step_down, term or 0)
            self._publish()

    def snapshot(self) -> None:
        """Starts writing a snapshot now, unless one is being written."""
        self._guarded(self._snapshots.write, self._core.applied_index, self._members)

    def close(self) -> None:
        """Makes everything durable and closes the files. The engine must not be used afterwards."""
        self._snapshots.close()
        if self._failure is None:
            self._failure = ConsensusFailed("Raft was stopped.")
            self._publish()
            self._core.destroy()
        else:
            self._journal.abandon()

    def fail(self, error: ConsensusFailed) -> None:
        """Takes no part any more."""
        log.error("Raft stops on this node.", reason=str(error))
        self._failure = error
        self._publish()
        self._environment.events.failed(error)

    # what is asked too rarely, or is too much, for the status

    @property
    def files(self) -> frozenset[Path]:
        """What must be in the directory for as long as this engine lives."""
        directory = self._environment.config.data_dir
        snapshot = {directory / SNAPSHOT} if self._snapshots.index else set()
        return frozenset({directory / VOTE, *self._journal.paths, *snapshot})

    @property
    def applied_members(self) -> tuple[int, tuple[Peer, ...]]:
        """The index and the peers of the newest membership that is applied."""
        return self._members.at(self._core.applied_index)

    def contacts(self) -> tuple[Peer, ...]:
        """Whom to be connected with: the peers of the newest and of the applied membership; and, as long as a new
        node has not found itself in the log, those it was started with."""
        known = {peer.tag: peer for peer in (*self.applied_members[1], *self._members.current)}
        if self.tag not in known:
            known = {peer.tag: peer for peer in self._bootstrap} | known
        return tuple(known[tag] for tag in sorted(known) if tag != self.tag)

    def votes_granted(self, term: int) -> dict[str, int]:
        """See `Elections.votes_granted`."""
        return self._elections.votes_granted(term)

    # what the core asks for

    def apply_entry(self, entry: Entry) -> None:
        self._applier.apply(entry)

    def applying_paused(self) -> bool:
        """Nothing is applied while the state is being replaced."""
        return self._snapshots.installing

    def send(self, tag: str, message: AnyMessage) -> None:
        if isinstance(message, messages.VoteGranted):
            # Like every answer: not before all that was received is on the disk.
            self._replication.answer(tag, message)
            return
        if isinstance(message, messages.RequestVote):
            self._elections.requested(tag)
        self._replication.send(tag, message)

    def send_appends(self) -> None:
        self._replication.supply(heartbeat=True)

    def leadership_won(self) -> None:
        self._elections.won()
        self._replication.won()

    # inside

    def _now_s(self) -> float:
        return self._environment.clock.elapsed_upper_ns() / NS_PER_S

    def _enter(self) -> None:
        patches.use_time(self._environment.clock.elapsed_upper_ns() / NS_PER_S)

    def _guarded(self, work: Callable[..., None], *given: Any) -> None:
        """Any failure here is the end: what is half done must not be built upon."""
        if self._failure is not None:
            return
        self._enter()
        try:
            work(*given)
        except ConsensusFailed as error:
            self.fail(error)
        except OSError as error:
            self.fail(JournalFailed(f"The disk under {self._environment.config.data_dir} failed: {error}."))
        except Exception as error:
            log.exception("The Raft engine failed.")
            self.fail(ConsensusFailed(f"Raft stopped at an unexpected error: {error!r}. Start the node again."))

    def _publish(self) -> None:
        # Called several times for every command, so it reads each thing once.
        core, members = self._core, self._members
        if self._failure is not None:
            # The failure may have come in the middle of anything, so little can be read but the term that was reached.
            self.status = msgspec.structs.replace(
                self.status, role="Follower", leader=None, term=core.term, elected_ns=None, failure=self._failure
            )
            return
        state, applied_index = core.state, core.applied_index
        role = ROLES[state]
        if state == LEADER and applied_index < core.no_op_index:
            role = "LeaderElect"
        self.status = RaftStatus(
            role=role,
            leader=core.leader,
            term=core.term,
            commit_index=core.commit_index,
            applied_index=applied_index,
            applied_term=self._applier.applied_term,
            last_index=self._journal.last_index,
            snapshot_index=self._snapshots.index,
            peers=members.current,
            voters=members.voters,
            elected_ns=self._elections.elected_ns if state == LEADER else None,
        )

    def _offload(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        def finished(outcome: Any) -> None:
            self._guarded(done, outcome)
            self._publish()
            self._environment.events.schedule_tick()

        self._environment.offload(work, finished)

    def _tick(self) -> None:
        """One turn. The order is the point of it:

        1. Elections. If one is due, this node first asks whether anybody would vote for it (pre-vote, thesis, section
           9.6). Before the package's own turn, which would stand at once.
        2. A leader sends its new entries before it syncs them: the followers' disks and its own work at the same time
           (thesis, section 10.2.1).
        3. The journal is synced, once for all that came together, and only then do answers and votes leave: what they
           vouch for is on the disk (Raft paper, figure 2: "persistent state, updated before responding").
        4. The package's turn: a leader steps down if it has not heard a majority (thesis, section 6.2), commits what a
           majority holds and is of its own term (Raft paper, section 5.4.2), applies, and sends heartbeats. Its own
           entries count for it only now that they are synced.
        5. Followers are told a new commit index at once, and not with the next heartbeat, so that a command that came
           through one of them is answered there.
        6. What no message waits for: another turn if more is to be applied than one turn may take, a snapshot.
        7. The status, and last the listeners: all that they read, and all that they are told, is of after this turn.
        """
        core = self._core
        self._elections.before_tick(patches.seconds(), self._eligible(), self._members.voters, self._replication.send)
        if core.is_leader:
            self._replication.supply()
        else:
            self._snapshots.finish_all()
        self._replication.flush()
        core.tick()
        if core.is_leader:
            self._replication.supply()
        if core.applied_index < core.commit_index and not self._snapshots.installing:
            self._environment.events.schedule_tick()
        self._resync.end_recovery()
        if self._snapshots.due():
            self._snapshots.write(core.applied_index, self._members)
        self._publish()
        self._applier.tell(installing=self._snapshots.installing)

    def _eligible(self) -> bool:
        """Whether this node may stand for election: a voter with a state, that has not lost what it vouched for."""
        voter = self.tag in self._members.voters
        return voter and not self._snapshots.installing and not self._log.vote.recover_to

    def _receive(self, sender: str, message: AnyMessage) -> None:
        if self._receiver.receive(sender, message):
            self._environment.events.schedule_tick()

    def _connected(self, tag: str, up: bool) -> None:
        self._core.connected(tag, up)
        self._replication.connected(tag, up)
        if not up and tag == self._core.leader and not self._core.is_leader:
            self._elections.lost_leader(self._now_s())
        self._environment.events.schedule_tick()

    def _step_down(self, term: int) -> None:
        self._core.step_down(term, self._now_s())
        self._environment.events.schedule_tick()

    # proposals and members

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise RequestRefused(str(self._failure))

    def _take(self, entry: bytes) -> tuple[int, int]:
        index, term = self._journal.last_index + 1, self._core.term
        self._guarded(self._append, entry, index, term)
        self._check_alive()
        return index, term

    def _append(self, entry: bytes, index: int, term: int) -> None:
        self._journal.append((entry, index, term))
        if entry[:1] == MEMBERSHIP:
            self._members.learn(index, entry)
            self._adopt_members()
        else:
            # Nothing else has changed: how far it is committed shows with the next tick.
            self.status = msgspec.structs.replace(self.status, last_index=index)
        self._environment.events.schedule_tick()

    def _adopt_members(self) -> None:
        """Makes the newest membership in the log count, committed or not (thesis, section 4.1)."""
        voters = self._members.voters
        watchers = frozenset(peer.tag for peer in self._members.current) - voters
        self._core.set_members(voters - {self.tag}, watchers - {self.tag}, self._now_s())
        self._publish()
        self._environment.events.members_changed()
