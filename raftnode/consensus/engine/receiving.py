"""What a message of another node does here: the filter decides, this does it."""

from collections.abc import Callable
from typing import assert_never

import structlog

from raftnode.consensus.engine import message_filter, messages, patches
from raftnode.consensus.engine.admission import Admission
from raftnode.consensus.engine.core import CANDIDATE
from raftnode.consensus.engine.members import MEMBERSHIP
from raftnode.consensus.engine.messages import AnyMessage
from raftnode.consensus.engine.parts import EngineParts
from raftnode.consensus.engine.resync import Resync

log = structlog.get_logger(__name__)


class Receiver:
    """Judges each message by what this node is as it arrives, and carries out what the filter lets through."""

    def __init__(
        self, parts: EngineParts, admission: Admission, resync: Resync, adopt_members: Callable[[], None]
    ) -> None:
        self._parts = parts
        self._admission = admission
        self._resync = resync
        self._adopt_members = adopt_members

    def receive(self, sender: str, message: AnyMessage) -> bool:
        """Takes the message, and says whether a tick must follow. If none must, the answers have left when this
        returns: a follower that has nothing to write answers a heartbeat at once."""
        core = self._parts.core
        before = (core.state, core.term, core.leader)
        due = False
        for action in message_filter.filter_message(sender, message, self._view(message)):
            due = self._act(sender, action) or due
        if due or self._parts.journal.dirty or before != (core.state, core.term, core.leader):
            return True
        self._parts.replication.flush()
        return False

    def _view(self, message: AnyMessage) -> message_filter.FilterView:
        """What the filter is to know of this node, for that message."""
        parts, core, voters = self._parts, self._parts.core, self._parts.members.voters
        asked = isinstance(message, messages.PreVote)
        return message_filter.FilterView(
            tag=parts.tag,
            term=core.term,
            is_leader=core.is_leader,
            log=parts.journal,
            commit_index=core.commit_index,
            voters=voters,
            followers=core.followers,
            leader_recent=asked and parts.elections.leader_recent(patches.seconds(), voters),
            installing=parts.snapshots.installing,
            recovering=bool(parts.log.vote.recover_to),
            prevote_nonce=parts.elections.nonce,
        )

    def _act(self, sender: str, action: message_filter.Action) -> bool:
        """Does it, and says whether a tick must follow: most messages of a quiet cluster leave nothing to be done."""
        parts, core, now_s = self._parts, self._parts.core, patches.seconds()
        match action:
            case message_filter.FollowLeader(term, commit_index):
                parts.elections.heard_leader(now_s)
                core.follow(sender, term, commit_index)
                return core.applied_index < core.commit_index
            case message_filter.AppendToLog():
                parts.elections.heard_leader(now_s)
                self._extend(sender, action)
            case message_filter.Reply(message):
                parts.replication.answer(sender, message)
                return False
            case message_filter.AdoptTerm(term):
                core.step_down(term, now_s)
            case message_filter.ResetFromLeader(index, recover_to):
                self._resync.reset_from_leader(index, recover_to)
            case message_filter.TakeChunk(chunk):
                parts.snapshots.take(
                    sender, chunk, chunk.term, lambda message: parts.replication.answer(sender, message)
                )
            case message_filter.CountResponse(answer):
                parts.replication.account(sender, answer, now_s)
                # Whoever hands the leadership over waits for the follower to hold the whole log.
                return self._admission.handing_over or parts.replication.moves(sender)
            case message_filter.CountPreVote():
                parts.elections.count_prevote(sender, parts.members.voters, now_s)
            case message_filter.CountVote():
                if parts.elections.count_vote(sender, core.term) and core.state == CANDIDATE:
                    core.receive_vote(sender)
            case message_filter.ConsiderVote(request):
                core.receive_vote_request(sender, request.term, request.last_index, request.last_term)
            case message_filter.Campaign(term):
                core.receive_timeout_now(sender, term)
            case message_filter.Drop(reason):
                log.debug("A message is dropped.", sender=sender, reason=reason)
                return False
            case _:
                assert_never(action)
        return True

    def _extend(self, leader: str, extend: message_filter.AppendToLog) -> None:
        """Appends the leader's entries, and takes back what is in conflict with them (section 5.3). A membership in
        the log counts as soon as it is there, and no longer than that (thesis, section 4.1)."""
        parts, first_new = self._parts, extend.entries[0][1]
        conflict = first_new <= parts.journal.last_index
        if conflict:
            log.info("Entries that were never committed are replaced by the leader's.", first=first_new, leader=leader)
            parts.members.truncate(first_new)
        parts.core.extend(
            leader, extend.term, (extend.prev_index, extend.prev_term), extend.entries, extend.commit_index
        )
        changed = conflict
        for command, index, _ in extend.entries:
            if command[:1] == MEMBERSHIP:
                parts.members.learn(index, command)
                changed = True
        if changed:
            self._adopt_members()
