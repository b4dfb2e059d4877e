"""The message filter: a pure function from a message and a view of this node to actions.

PySyncObj's own message handler deletes whatever follows the previous log position, steps back one index per
conflict, answers without a term, and trusts an unverified commit index. So it only ever sees messages that this
filter has reduced to what is safe: an append whose entries are all new, or a bare heartbeat whose commit index this
node's log is known to match.
"""

from collections.abc import Collection, Sequence
from typing import Protocol, assert_never

import msgspec

from raftnode.consensus.engine.messages import (
    AnyMessage,
    AppendEntries,
    AppendResponse,
    PreVote,
    PreVoteGranted,
    RequestVote,
    SnapshotChunk,
    SnapshotChunkAck,
    SnapshotHeartbeat,
    TimeoutNow,
    VoteGranted,
    WireEntry,
)


class LogView(Protocol):
    """What the filter may know of the log."""

    @property
    def first_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def last_term(self) -> int: ...
    def term_at(self, index: int) -> int | None: ...


class FilterView(msgspec.Struct, frozen=True):
    """This node at the moment a message arrives. `leader_recent`, for a PreVote: a leader was heard within the shortest
    election timeout (or, on a leader, a quorum was). `installing`: a snapshot is being restored. `recovering`: this
    node lost what it had acknowledged and may not vote."""

    tag: str
    term: int
    is_leader: bool
    log: LogView
    commit_index: int
    voters: frozenset[str]
    followers: Collection[str]
    leader_recent: bool = False
    installing: bool = False
    recovering: bool = False
    prevote_nonce: int | None = None


class FollowLeader(msgspec.Struct, frozen=True):
    """A leader of `term` lives; this node's log equals its own up to `commit_index`, which is committed."""

    term: int
    commit_index: int


class AppendToLog(msgspec.Struct, frozen=True):
    """Append `entries`, all of them new, behind `prev_index`. What follows that now is in conflict and goes."""

    term: int
    prev_index: int
    prev_term: int
    entries: tuple[WireEntry, ...]
    commit_index: int


class Reply(msgspec.Struct, frozen=True):
    """Send the message back, once everything before it is on the disk."""

    message: AnyMessage


class AdoptTerm(msgspec.Struct, frozen=True):
    """Somebody has a newer term: adopt it, as a follower."""

    term: int


class ResetFromLeader(msgspec.Struct, frozen=True):
    """The leader's log contradicts a committed entry of this node: what this node knows is worthless. It may vote
    again once it has applied `recover_to`."""

    index: int
    recover_to: int


class TakeChunk(msgspec.Struct, frozen=True):
    """A piece of the leader's snapshot that this node has use for."""

    chunk: SnapshotChunk


class CountResponse(msgspec.Struct, frozen=True):
    """A follower's answer that counts for this leadership."""

    answer: AppendResponse | SnapshotChunkAck


class CountPreVote(msgspec.Struct, frozen=True):
    """A voter would vote for this node."""


class CountVote(msgspec.Struct, frozen=True):
    """A voter voted for this node in its current term."""


class ConsiderVote(msgspec.Struct, frozen=True):
    """A candidate's request that this node may answer."""

    request: RequestVote


class Campaign(msgspec.Struct, frozen=True):
    """The leader hands over to this node."""

    term: int


class Drop(msgspec.Struct, frozen=True):
    """The message has no effect; why."""

    reason: str


Action = (
    FollowLeader
    | AppendToLog
    | Reply
    | AdoptTerm
    | ResetFromLeader
    | TakeChunk
    | CountResponse
    | CountPreVote
    | CountVote
    | ConsiderVote
    | Campaign
    | Drop
)


def filter_message(sender: str, message: AnyMessage, view: FilterView) -> Sequence[Action]:
    """What the message of `sender` does to this node."""
    match message:
        case AppendEntries() | SnapshotHeartbeat() | SnapshotChunk():
            return _from_leader(message, view)
        case AppendResponse() | SnapshotChunkAck():
            return _from_follower(sender, message, view)
        case PreVote():
            # Answered with this node's own term, and never adopted: asking around must not depose anybody. The term in
            # the answer is how a node that was away learns that it is behind.
            return [Reply(PreVoteGranted(view.term, message.nonce, _would_vote(message, view)))]
        case PreVoteGranted() | VoteGranted():
            return _from_voter(sender, message, view)
        case RequestVote():
            # Terms and logs are compared by the core. What it cannot know is that this log was once longer: a vote for
            # a candidate without the lost entries could elect a leader that lacks what a majority acknowledged.
            if view.recovering:
                return [Drop("this node lost entries it had acknowledged and may not vote yet")]
            return [ConsiderVote(message)]
        case TimeoutNow():
            # The core would stand at once, without asking around first. A watcher could never win and would only raise
            # the term; a node that has lost entries would vote for itself.
            if view.tag not in view.voters or view.recovering:
                return [Drop("this node is not a voter and cannot take the leadership")]
            return [Campaign(message.term)]
        case _:
            assert_never(message)


def _from_leader(message: AppendEntries | SnapshotHeartbeat | SnapshotChunk, view: FilterView) -> Sequence[Action]:
    if message.term < view.term:
        # Not silence: the deposed leader is to see the newer term now, not at its own time limit. The answer must not
        # look like a success or a reset, as it says nothing about the log.
        return [Reply(AppendResponse(view.term, 0, success=False, reset=False, stream=0))]
    if message.term == view.term and view.is_leader:
        # Cannot be while each voter votes once a term. If it is, obeying would truncate a leader's log.
        return [Drop("another node claims to lead this very term")]
    alive = Reply(AppendResponse(message.term, 0, success=False, reset=False, stream=0))
    # The message proves that the leader lives, and nothing about this log: the leader's commit index may count entries
    # that differ here. So the own one is given, which changes nothing.
    unverified = FollowLeader(message.term, view.commit_index)
    # While a snapshot is installed the log below is about to be replaced; what is missing then is sent again.
    if view.installing or isinstance(message, SnapshotHeartbeat):
        return [unverified, alive]
    if isinstance(message, AppendEntries):
        return _append(message, view)
    if message.index <= view.commit_index:
        # A late or repeated piece. Installing it would take the state back; saying what is held ends the sending.
        # Stream 0 is right: only resets are compared with the stream.
        return [unverified, _holds(message.term, view.commit_index, 0)]
    return [unverified, TakeChunk(message)]


def _append(message: AppendEntries, view: FilterView) -> Sequence[Action]:
    entries = message.entries
    # All that follows compares by index, and the journal keeps entries by position.
    if any(entry[1] != message.prev_index + 1 + position for position, entry in enumerate(entries)):
        return [Drop("the entries' indexes have gaps")]
    log, matched = view.log, message.prev_index
    if matched < log.first_index:
        # What this log no longer holds is in its snapshot, so it is committed and the leader's too.
        # Compare from the log's first entry on, which is the snapshot's last.
        entries = entries[log.first_index - matched :]
        matched = log.first_index
        if not entries:
            # The leader believes this node to be far behind. All that is committed here is in the leader's log too, so
            # vouching for that much spares a step back through entries that are gone.
            return [
                FollowLeader(message.term, view.commit_index),
                _holds(message.term, view.commit_index, message.stream),
            ]
    elif log.term_at(matched) != message.prev_term:
        if matched <= view.commit_index:
            # The leader lacks a committed entry, so a majority has lost synced data, and what the leader has is what
            # the cluster goes on with. This node may have vouched for anything up to either commit index: it must not
            # vote before it has that again.
            return [ResetFromLeader(matched, max(view.commit_index, message.commit_index))]
        # Back to the commit index in one step: up to there the logs are equal for certain, and stepping back one index
        # a message takes a round trip for each entry.
        reset = AppendResponse(message.term, view.commit_index + 1, success=False, reset=True, stream=message.stream)
        return [FollowLeader(message.term, view.commit_index), Reply(reset)]
    # Entries of equal index and term are equal, and so is all before them. Skipping them is what makes a repeated or
    # overtaken append harmless: the package would cut behind `prev_index` and lose what was acknowledged since.
    known = 0
    while known < len(entries) and log.term_at(entries[known][1]) == entries[known][2]:
        known += 1
    matched += known
    fresh = entries[known:]
    if not fresh:
        # The log may go on behind `matched` with entries that the leader does not have, so only what was compared
        # counts as committed, and only that is vouched for.
        safe = min(message.commit_index, matched)
        return [FollowLeader(message.term, safe), _holds(message.term, matched, message.stream)]
    if matched < view.commit_index:
        # The next entry here is committed, and the leader has another one there. Extending would cut it.
        return [ResetFromLeader(matched + 1, max(view.commit_index, message.commit_index))]
    term = log.term_at(matched)
    assert term is not None
    # The core takes the commit index only as far as the log then goes, and all of that has been compared.
    extend = AppendToLog(message.term, matched, term, fresh, message.commit_index)
    return [extend, _holds(message.term, fresh[-1][1], message.stream)]


def _holds(term: int, index: int, stream: int) -> Reply:
    return Reply(AppendResponse(term, index + 1, success=True, reset=False, stream=stream))


def _from_follower(sender: str, message: AppendResponse | SnapshotChunkAck, view: FilterView) -> Sequence[Action]:
    # Before the sender is looked at: a node that is no member (any more) here may know of newer members.
    if message.term > view.term:
        return [AdoptTerm(message.term)]
    # An answer of an earlier term vouches for entries that may have been replaced since, though this node leads again.
    if not view.is_leader or message.term < view.term:
        return [Drop("an answer to an earlier leadership")]
    if sender not in view.followers:
        return [Drop("an answer of a node that is not in the cluster")]
    if isinstance(message, AppendResponse) and message.success and message.next_index > view.log.last_index + 1:
        # Counting it would let the commit index pass the end of the log. A reset may name any index: it only asks.
        return [Drop("an answer that vouches for entries this leader never had")]
    return [CountResponse(message)]


def _would_vote(request: PreVote, view: FilterView) -> bool:
    # `leader_recent` is what keeps a node that comes back from a partition from disturbing a leader that works
    # (Ongaro's thesis, 9.6). The request has the candidate's present term, not that of the election: an equal one is
    # new enough.
    behind = (request.last_term, request.last_index) < (view.log.last_term, view.log.last_index)
    return not (view.leader_recent or view.recovering or behind or request.term < view.term)


def _from_voter(sender: str, message: PreVoteGranted | VoteGranted, view: FilterView) -> Sequence[Action]:
    if message.term > view.term:
        return [AdoptTerm(message.term)]
    if sender not in view.voters:
        return [Drop("the vote of a node that is not a voter")]
    if isinstance(message, PreVoteGranted):
        # The nonce and not the term tells the rounds apart: there may be many in one term. A voter with an older term
        # counts: it adopts the newer one when it is asked for its vote.
        counts = message.granted and message.nonce == view.prevote_nonce
        return [CountPreVote()] if counts else [Drop("no grant of the present round")]
    if message.term < view.term:
        # The core has no term in a vote and would count it for the present election: two leaders in one term.
        return [Drop("a vote of an earlier term")]
    # Whether a vote was asked for, and counted before, the engine looks up.
    return [CountVote()]
