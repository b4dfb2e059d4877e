"""When this node takes the leader's state in place of its own: it installs a snapshot, or starts over from nothing."""

from collections.abc import Callable

import structlog

from raftnode.consensus.engine import messages
from raftnode.consensus.engine.applying import Applier
from raftnode.consensus.engine.environment import EngineEvents
from raftnode.consensus.engine.members import NO_OP
from raftnode.consensus.engine.parts import EngineParts
from raftnode.consensus.model import StateMachine
from raftnode.consensus.storage.hard_state import HardState
from raftnode.consensus.storage.snapshot import SnapshotDescription

log = structlog.get_logger(__name__)


class Resync:
    """Puts log, membership and state machine where the leader's are. `empty_state` is what the state machine dumps
    before it has applied or restored anything."""

    def __init__(
        self,
        parts: EngineParts,
        applier: Applier,
        machine: StateMachine,
        events: EngineEvents,
        empty_state: list[bytes],
        adopt_members: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._applier = applier
        self._machine = machine
        self._events = events
        self._empty_state = empty_state
        self._adopt_members = adopt_members

    def installed(self, description: SnapshotDescription, leader: str) -> None:
        """The state machine stands where the leader's snapshot ends: the log goes on from there (Raft paper, section
        7). What this node holds behind it stays if it continues the snapshot."""
        parts, index = self._parts, description.index
        if parts.journal.term_at(index) == description.term:
            parts.journal.compact(index)
        else:
            parts.journal.reset((NO_OP, index, description.term))
        parts.members.begin_at(description.peers, description.peers_index)
        for command, at, _ in parts.journal.entries:
            if at > index:
                parts.members.learn(at, command)
        parts.core.rewind(index, max(index, min(parts.core.commit_index, parts.journal.last_index)))
        self._applier.restored(description.term)
        self._adopt_members()
        self._events.jumped(index)
        holds = messages.AppendResponse(parts.core.term, index + 1, success=True, reset=False, stream=0)
        parts.replication.answer(leader, holds)

    def reset_from_leader(self, index: int, recover_to: int) -> None:
        """What this node holds as committed is not what the cluster holds: a majority lost synced data, or this disk
        did. Nothing here can be trusted, so all of it goes but the vote; and until this node again holds what it may
        once have vouched for, it votes for nobody."""
        parts = self._parts
        reason = f"Entry {index} is committed here, and the leader's log contradicts it"
        reason = f"{reason}: this node throws its log and state away and takes the leader's."
        log.critical("This node starts over from the leader's state.", reason=reason)
        vote = parts.log.vote
        # Marked first: a crash anywhere on the way is gone on with at the next start, see `open_storage`.
        parts.log.store_vote(HardState(vote.term, vote.voted_for, recover_to, wiping=True))
        parts.snapshots.forget()
        parts.journal.reset((NO_OP, 1, 0))
        parts.log.store_vote(HardState(vote.term, vote.voted_for, recover_to))
        parts.members.begin_at(parts.members.current)
        self._machine.restore(iter(self._empty_state))
        parts.core.rewind(1, 1)
        parts.log.onOneSecondTimer()
        self._applier.restored(0)
        self._adopt_members()
        self._events.jumped(recover_to)
        self._events.wiped(reason)

    def end_recovery(self) -> None:
        """Votes again, once this node has applied all that it may have vouched for before it started over."""
        vote, applied_index = self._parts.log.vote, self._parts.core.applied_index
        if vote.recover_to and applied_index >= vote.recover_to:
            self._parts.log.store_vote(HardState(vote.term, vote.voted_for))
            log.info("This node has recovered what it had lost and may vote again.", index=applied_index)
