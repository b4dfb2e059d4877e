"""The Raft engine: PySyncObj's core between our journal, our messages and our clock. No asyncio, no sockets.

Whoever owns it calls `tick` when asked to by `kick` and every few milliseconds besides, `receive` for each message,
and `connected` when a peer comes or goes; all on one thread.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_never

import msgspec
import structlog

from raftnode.consensus import messages
from raftnode.consensus.engine import members as membership
from raftnode.consensus.engine import patches, screen
from raftnode.consensus.engine.admission import Admission
from raftnode.consensus.engine.core import CANDIDATE, Core
from raftnode.consensus.engine.elections import Elections
from raftnode.consensus.engine.members import MEMBERSHIP, NO_OP, REGULAR, Members, Refused
from raftnode.consensus.engine.replication import Replication
from raftnode.consensus.engine.snapshots import Snapshots
from raftnode.consensus.engine.storage import Storage
from raftnode.consensus.engine.surroundings import Surroundings
from raftnode.consensus.messages import AnyMessage
from raftnode.consensus.model import ApplyFailed, Change, ConsensusFailed, JournalFailed, Peer, RaftStatus, Role
from raftnode.consensus.storage.hard_state import VOTE, Vote
from raftnode.consensus.storage.segment import Entry
from raftnode.consensus.storage.snapshot import SNAPSHOT, Description

log = structlog.get_logger(__name__)

NS_PER_S = 1_000_000_000


class Engine:
    """One node's Raft. Make it of an opened storage whose snapshot the state machine has been restored from;
    `empty_state` is what the state machine dumped before that.

    `status` is published at the end of every call, and within one before anybody outside is told of anything. So
    whoever reads it sees what this node is at that moment, and never the middle of a transition.
    """

    status: RaftStatus

    def __init__(
        self, tag: str, peers: tuple[Peer, ...], storage: Storage, empty_state: list[bytes], around: Surroundings
    ) -> None:
        self.tag = tag
        self._around = around
        self._bootstrap = peers
        self._members = storage.members
        self._log, self._journal = storage.log, storage.log.journal
        self._empty_state = empty_state
        self._failure: ConsensusFailed | None = None
        self.handing_over = False
        self._membership_applied = False
        self._applied_something = storage.description is not None
        patches.use_time(self._now_s())
        self._core = Core(tag, self._log, self, around.config, around.random)
        self._journal.sync()
        self._elections = Elections(tag, self._core, around.config, around.clock, around.random)
        self._log.on_vote = self._elections.term_begun
        snapshots, description = storage.snapshots, storage.description
        self._snapshots = Snapshots(
            snapshots, description, self._journal, around.machine, around.config, self._offload, self._installed
        )
        self._replication = Replication(self._core, self._journal, self._snapshots, around.wire)
        self._admission = Admission(tag, self._core, self._journal, self._replication, around.config)
        if description is not None:
            self._core.rewind(description.index, self._log.getRaftCommitIndex())
        self._applied_term = self._journal.term_at(self._core.applied_index) or 0
        self._adopt_members()
        if self._members.voters <= {self.tag} and self._eligible():
            self._core.deadline = self._now_s() - 1

    # entries into the engine

    def tick(self) -> None:
        """Does whatever is due."""
        self._guarded(self._tick)

    def receive(self, sender: str, payload: bytes) -> None:
        """Takes a message of another node."""
        try:
            message = messages.decode(payload)
        except messages.UNREADABLE as error:
            log.warning("A message is dropped, as it cannot be read.", sender=sender, reason=str(error))
            return
        self._guarded(self._receive, sender, message)

    def connected(self, tag: str, up: bool) -> None:
        """The connection to a peer came up or was lost."""
        self._guarded(self._connected, tag, up)

    def propose(self, command: bytes) -> tuple[int, int]:
        """Takes an application's command into the leader's log, and gives its index and term. The next tick syncs and
        sends it. Raises Refused."""
        self._check_proposal(len(command))
        return self._take(REGULAR + command)

    def propose_no_op(self) -> tuple[int, int]:
        """The same with an entry that changes nothing."""
        self._check_proposal(0)
        return self._take(NO_OP)

    def propose_change(self, change: Change, command: bytes) -> tuple[int, int]:
        """The same with one entry that changes the membership and carries a command."""
        self._check_proposal(len(command))
        peers = self._admission.peers_after(change, self._members)
        position = self._take(membership.encode(peers, command))
        log.info("The membership changes.", change=repr(change), index=position[0], peers=[p.tag for p in peers])
        return position

    def hand_over(self, tag: str | None) -> str:
        """Tells a follower to take the leadership over: the named one or the most advanced. Gives its tag. Raises
        Refused when it does not hold the whole log (yet)."""
        self._check_alive()
        heir = self._admission.heir(tag, self._members.voters, self._now_s())
        self._enter()
        if not self._core.hand_over(heir):
            raise Refused(f"{heir} does not hold the whole log yet")
        return heir

    def check_heir(self, tag: str | None) -> None:
        """Raises Refused when no hand-over to that voter, or to any, can come to anything now."""
        self._admission.check_heir(tag, self._members.voters, self._now_s())

    def step_down(self, term: int | None) -> None:
        """Stops leading; with a newer `term`, adopts that."""
        if self._core.is_leader or (term or 0) > self._core.term:
            log.info("This node steps down.", term=self._core.term, newer_term=term)
            self._guarded(self._step_down, term or 0)

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
        self._around.events.failed(error)

    # what is asked too rarely, or is too much, for the status

    @property
    def files(self) -> frozenset[Path]:
        """What must be in the directory for as long as this engine lives."""
        directory = self._around.config.data_dir
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

    def match_index(self, tag: str) -> int:
        """How far a follower's log is known to equal this leader's."""
        return self._core.match_index(tag)

    def votes_granted(self, term: int) -> dict[str, int]:
        """See `Elections.votes_granted`."""
        return self._elections.votes_granted(term)

    # what the core asks for

    def apply_entry(self, entry: Entry) -> None:
        """Applies one committed entry. What the state machine raises ends this node before anybody is answered: other
        nodes may apply the entry."""
        command, index, term = entry
        answer: Any = None
        body = membership.application_part(command)
        if body is not None:
            try:
                answer = self._around.machine.apply(index, term, body)
            except Exception as error:
                raise ApplyFailed(index, error) from error
        self._applied_something, self._applied_term = True, term
        self._around.events.applied(index, term, answer)
        self._membership_applied = self._membership_applied or command[:1] == MEMBERSHIP

    def applying_paused(self) -> bool:
        """Nothing is applied while the state is being replaced."""
        return self._snapshots.installing

    def send_vote_request(self, tag: str, term: int, last_index: int, last_term: int) -> None:
        self._elections.requested(tag)
        self._replication.send(tag, messages.RequestVote(term, last_index, last_term))

    def send_vote(self, tag: str, term: int) -> None:
        self._replication.answer(tag, messages.Voted(term))

    def send_timeout_now(self, tag: str, term: int) -> None:
        self._replication.send(tag, messages.TimeoutNow(term))

    def send_appends(self) -> None:
        self._replication.supply(heartbeat=True)

    def leadership_won(self) -> None:
        """Called by the core inside the transition."""
        self._elections.won()
        self._replication.won()

    # inside

    def _now_s(self) -> float:
        return self._around.clock.hold_ns() / NS_PER_S

    def _enter(self) -> None:
        patches.use_time(self._around.clock.hold_ns() / NS_PER_S)

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
            self.fail(JournalFailed(f"The disk under {self._around.config.data_dir} failed: {error}."))
        except Exception as error:
            log.exception("The Raft engine failed.")
            self.fail(ConsensusFailed(f"Raft stopped at an unexpected error: {error!r}. Start the node again."))
        self._publish()

    def _publish(self) -> None:
        core, members = self._core, self._members
        if self._failure is not None:
            # The failure may have come in the middle of anything, so little can be read but the term that was reached.
            self.status = msgspec.structs.replace(
                self.status, role="Follower", leader=None, term=core.term, elected_ns=None, failure=self._failure
            )
            return
        self.status = RaftStatus(
            role=self._role(),
            leader=core.leader,
            term=core.term,
            commit_index=core.commit_index,
            applied_index=core.applied_index,
            applied_term=self._applied_term,
            last_index=self._journal.last_index,
            snapshot_index=self._snapshots.index,
            peers=members.current,
            voters=members.voters,
            elected_ns=self._elections.elected_ns if core.is_leader else None,
        )

    def _role(self) -> Role:
        core = self._core
        if core.is_leader:
            return "LeaderElect" if core.applied_index < core.no_op_index else "Leader"
        return "Candidate" if core.state == CANDIDATE else "Follower"

    def _offload(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        def finished(outcome: Any) -> None:
            self._guarded(done, outcome)
            self._around.events.kick()

        self._around.offload(work, finished)

    def _tick(self) -> None:
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
            self._around.events.kick()
        self._recovered()
        if self._snapshots.due():
            self._snapshots.write(core.applied_index, self._members)
        # What the listeners read is what this tick has come to.
        self._publish()
        if self._membership_applied:
            self._membership_applied = False
            self._around.events.members_changed()
        if self._applied_something and not self._snapshots.installing:
            self._applied_something = False
            try:
                self._around.machine.after_tick()
            except Exception:
                log.exception("The state machine's after_tick raised.")

    def _eligible(self) -> bool:
        voter = self.tag in self._members.voters
        return voter and not self._snapshots.installing and not self._log.vote.recover_to

    def _recovered(self) -> None:
        vote = self._log.vote
        if vote.recover_to and self._core.applied_index >= vote.recover_to:
            self._log.store_vote(Vote(vote.term, vote.voted_for))
            log.info("This node has recovered what it had lost and may vote again.", index=self._core.applied_index)

    def _receive(self, sender: str, message: AnyMessage) -> None:
        core = self._core
        before = (core.state, core.term, core.leader)
        due = False
        for action in screen.screen(sender, message, self._view(message)):
            due = self._act(sender, action) or due
        if due or self._journal.dirty or before != (core.state, core.term, core.leader):
            self._around.events.kick()
        else:
            self._replication.flush()

    def _view(self, message: AnyMessage) -> screen.View:
        """What the filter is to know of this node, for that message."""
        core, voters = self._core, self._members.voters
        asked = isinstance(message, messages.PreVote)
        return screen.View(
            tag=self.tag,
            term=core.term,
            is_leader=core.is_leader,
            log=self._journal,
            commit_index=core.commit_index,
            voters=voters,
            followers=core.followers,
            leader_recent=asked and self._elections.leader_recent(patches.seconds(), voters),
            installing=self._snapshots.installing,
            recovering=bool(self._log.vote.recover_to),
            prevote_nonce=self._elections.nonce,
        )

    def _act(self, sender: str, action: screen.Action) -> bool:
        """Does it, and says whether a tick must follow: most messages of a quiet cluster leave nothing to be done."""
        core, now_s = self._core, patches.seconds()
        match action:
            case screen.Follow(term, commit_index):
                self._elections.heard_leader(now_s)
                core.follow(sender, term, commit_index)
                return core.applied_index < core.commit_index
            case screen.Extend():
                self._elections.heard_leader(now_s)
                self._extend(sender, action)
            case screen.Reply(message):
                self._replication.answer(sender, message)
                return False
            case screen.AdoptTerm(term):
                self._step_down(term)
            case screen.Wipe(index, recover_to):
                self._wipe(index, recover_to)
            case screen.TakePiece(piece):
                self._snapshots.take(
                    sender, piece, piece.term, lambda message: self._replication.answer(sender, message)
                )
            case screen.Account(answer):
                self._replication.account(sender, answer, now_s)
                return self.handing_over or self._replication.moves(sender)
            case screen.CountPreVote():
                self._elections.count_prevote(sender, self._members.voters, now_s)
            case screen.CountVote():
                if self._elections.count_vote(sender, core.term) and core.state == CANDIDATE:
                    core.receive_vote(sender)
            case screen.PassVoteRequest(request):
                core.receive_vote_request(sender, request.term, request.last_index, request.last_term)
            case screen.StandNow(term):
                core.receive_timeout_now(sender, term)
            case screen.Drop(reason):
                log.debug("A message is dropped.", sender=sender, reason=reason)
                return False
            case _:
                assert_never(action)
        return True

    def _extend(self, leader: str, extend: screen.Extend) -> None:
        first_new = extend.entries[0][1]
        conflict = first_new <= self._journal.last_index
        if conflict:
            log.info("Entries that were never committed are replaced by the leader's.", first=first_new, leader=leader)
            self._members.truncate(first_new)
        self._core.extend(
            leader, extend.term, (extend.prev_index, extend.prev_term), extend.entries, extend.commit_index
        )
        changed = conflict
        for command, index, _ in extend.entries:
            if command[:1] == MEMBERSHIP:
                self._members.learn(index, command)
                changed = True
        if changed:
            self._adopt_members()

    def _connected(self, tag: str, up: bool) -> None:
        self._core.connected(tag, up)
        self._replication.connected(tag, up)
        if not up and tag == self._core.leader and not self._core.is_leader:
            self._elections.lost_leader(self._now_s())
        self._around.events.kick()

    def _step_down(self, term: int) -> None:
        self._core.step_down(term, self._now_s())
        self._around.events.kick()

    # proposals

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise Refused(str(self._failure))

    def _check_proposal(self, command_bytes: int) -> None:
        self._check_alive()
        if self.handing_over:
            raise Refused("the leadership is being transferred")
        self._admission.check(command_bytes)

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
        self._around.events.kick()

    # membership, snapshots, recovery

    def _adopt_members(self) -> None:
        voters = self._members.voters
        watchers = frozenset(peer.tag for peer in self._members.current) - voters
        self._core.set_members(voters - {self.tag}, watchers - {self.tag}, self._now_s())
        self._publish()
        self._around.events.members_changed()

    def _installed(self, description: Description, leader: str) -> None:
        index, core = description.index, self._core
        if self._journal.term_at(index) == description.term:
            self._journal.compact(index)
        else:
            self._journal.reset((NO_OP, index, description.term))
        self._members = Members(description.peers, description.peers_index)
        for command, at, _ in self._journal.entries:
            if at > index:
                self._members.learn(at, command)
        core.rewind(index, max(index, min(core.commit_index, self._journal.last_index)))
        self._applied_something, self._applied_term = True, description.term
        self._adopt_members()
        self._around.events.jumped(index)
        self._replication.answer(leader, messages.Appended(core.term, index + 1, success=True, reset=False, stream=0))

    def _wipe(self, index: int, recover_to: int) -> None:
        """What this node holds as committed is not what the cluster holds: a majority lost synced data, or this disk
        did. Nothing here can be trusted, so all of it goes but the vote; and until this node again holds what it may
        once have vouched for, it votes for nobody."""
        reason = f"Entry {index} is committed here, and the leader's log contradicts it"
        reason = f"{reason}: this node throws its log and state away and takes the leader's."
        log.critical("This node starts over from the leader's state.", reason=reason)
        vote = self._log.vote
        self._log.store_vote(Vote(vote.term, vote.voted_for, recover_to, wiping=True))
        self._snapshots.forget()
        self._journal.reset((NO_OP, 1, 0))
        self._log.store_vote(Vote(vote.term, vote.voted_for, recover_to))
        self._members = Members(self._members.current)
        self._around.machine.restore(iter(self._empty_state))
        self._core.rewind(1, 1)
        self._log.onOneSecondTimer()
        self._applied_something, self._applied_term = True, 0
        self._adopt_members()
        self._around.events.jumped(recover_to)
        self._around.events.wiped(reason)
