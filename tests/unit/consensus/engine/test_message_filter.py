"""What each message does to a node, exactly: by its type, the node's role and the message's term; then rule by rule.

In the manner of the tables of etcd's raft: a row is a rule, and names it. A follower and a candidate are one role here:
the filter does not ask, as all that a candidate does more it does by its own clock.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import pytest
from msgspec.structs import replace

from raftnode.consensus.engine.message_filter import (
    Action,
    AdoptTerm,
    AppendToLog,
    Campaign,
    ConsiderVote,
    CountPreVote,
    CountResponse,
    CountVote,
    Drop,
    FilterView,
    FollowLeader,
    Reply,
    ResetFromLeader,
    TakeChunk,
    filter_message,
)
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
)
from tests.unit.consensus.engine.logs import TermsLog, entries

TERM, NONCE, STREAM = 3, 77, 9
Role = Literal["follower", "leader", "watcher", "recovering", "installing"]

FOLLOWER = FilterView(
    "A", TERM, False, TermsLog([0, 1, 2, 2]), 3, frozenset("ABC"), frozenset("BCD"), prevote_nonce=NONCE
)
"""Node A, with voters B and C and a watcher D. The fourth entry of its log is not committed."""

LEADER = replace(FOLLOWER, is_leader=True)

NODES: dict[Role, FilterView] = {
    "follower": FOLLOWER,
    "leader": LEADER,
    "watcher": replace(FOLLOWER, voters=frozenset("BC")),
    "recovering": replace(FOLLOWER, recovering=True),
    "installing": replace(FOLLOWER, installing=True),
}

MESSAGES: dict[type[AnyMessage], Callable[[int], AnyMessage]] = {
    AppendEntries: lambda term: AppendEntries(term, 4, 2, entries([2], after=4), commit_index=4, stream=STREAM),
    SnapshotHeartbeat: SnapshotHeartbeat,
    SnapshotChunk: lambda term: SnapshotChunk(term, index=9, index_term=2, size_bytes=100, offset=0, data=b"state"),
    AppendResponse: lambda term: AppendResponse(term, next_index=5, success=True, reset=False, stream=STREAM),
    SnapshotChunkAck: lambda term: SnapshotChunkAck(term, index=9, offset=5),
    PreVote: lambda term: PreVote(term, NONCE, last_index=4, last_term=2),
    PreVoteGranted: lambda term: PreVoteGranted(term, NONCE, granted=True),
    RequestVote: lambda term: RequestVote(term, last_index=4, last_term=2),
    VoteGranted: VoteGranted,
    TimeoutNow: TimeoutNow,
}
"""A message of each type and of that term, in which nothing but the term may be wrong."""

Effect = Sequence[Action] | Callable[[int], Sequence[Action]]


def alive(term: int) -> Reply:
    """The answer that vouches for nothing but this node's life and term."""
    return Reply(AppendResponse(term, 0, success=False, reset=False, stream=0))


def holds(index: int, term: int = TERM, stream: int = STREAM) -> Reply:
    """The answer that this node holds the leader's log up to `index`."""
    return Reply(AppendResponse(term, index + 1, success=True, reset=False, stream=stream))


def extended(term: int) -> Sequence[Action]:
    return [AppendToLog(term, 4, 2, entries([2], after=4), 4), holds(5, term)]


def heard(term: int) -> Sequence[Action]:
    return [FollowLeader(term, 3), alive(term)]


def stored(term: int) -> Sequence[Action]:
    return [FollowLeader(term, 3), TakeChunk(SnapshotChunk(term, 9, 2, 100, 0, b"state"))]


def adopted(term: int) -> Sequence[Action]:
    return [AdoptTerm(term)]


def standing(term: int) -> Sequence[Action]:
    return [Campaign(term)]


def asked(term: int) -> Sequence[Action]:
    return [ConsiderVote(RequestVote(term, 4, 2))]


def answered(granted: bool) -> Sequence[Action]:
    return [Reply(PreVoteGranted(TERM, NONCE, granted))]


TOLD = [alive(TERM)]
RIVAL = [Drop("another node claims to lead this very term")]
LATE = [Drop("an answer to an earlier leadership")]
LATE_VOTE = [Drop("a vote of an earlier term")]
NO_VOTER: list[Action] = [Drop("this node is not a voter and cannot take the leadership")]
LOST = [Drop("this node lost entries it had acknowledged and may not vote yet")]
GRANTED, REFUSED = answered(True), answered(False)
COUNTED_BEFORE, COUNTED = [CountPreVote()], [CountVote()]
ACCOUNTED = [CountResponse(AppendResponse(TERM, 5, success=True, reset=False, stream=STREAM))]
TAKEN = [CountResponse(SnapshotChunkAck(TERM, 9, 5))]

TABLE: dict[tuple[type[AnyMessage], Role], tuple[Effect, Effect, Effect]] = {
    # A message of:              an older term    this term       a newer term
    (AppendEntries, "follower"):       (TOLD,            extended,       extended),
    (AppendEntries, "leader"):         (TOLD,            RIVAL,          extended),
    (AppendEntries, "watcher"):        (TOLD,            extended,       extended),
    (AppendEntries, "recovering"):     (TOLD,            extended,       extended),
    (AppendEntries, "installing"):     (TOLD,            heard,          heard),
    (SnapshotHeartbeat, "follower"):        (TOLD,            heard,          heard),
    (SnapshotHeartbeat, "leader"):          (TOLD,            RIVAL,          heard),
    (SnapshotHeartbeat, "watcher"):         (TOLD,            heard,          heard),
    (SnapshotHeartbeat, "recovering"):      (TOLD,            heard,          heard),
    (SnapshotHeartbeat, "installing"):      (TOLD,            heard,          heard),
    (SnapshotChunk, "follower"):        (TOLD,            stored,         stored),
    (SnapshotChunk, "leader"):          (TOLD,            RIVAL,          stored),
    (SnapshotChunk, "watcher"):         (TOLD,            stored,         stored),
    (SnapshotChunk, "recovering"):      (TOLD,            stored,         stored),
    (SnapshotChunk, "installing"):      (TOLD,            heard,          heard),
    (AppendResponse, "follower"):     (LATE,            LATE,           adopted),
    (AppendResponse, "leader"):       (LATE,            ACCOUNTED,      adopted),
    (AppendResponse, "watcher"):      (LATE,            LATE,           adopted),
    (AppendResponse, "recovering"):   (LATE,            LATE,           adopted),
    (AppendResponse, "installing"):   (LATE,            LATE,           adopted),
    (SnapshotChunkAck, "follower"):   (LATE,            LATE,           adopted),
    (SnapshotChunkAck, "leader"):     (LATE,            TAKEN,          adopted),
    (SnapshotChunkAck, "watcher"):    (LATE,            LATE,           adopted),
    (SnapshotChunkAck, "recovering"): (LATE,            LATE,           adopted),
    (SnapshotChunkAck, "installing"): (LATE,            LATE,           adopted),
    # A pre-vote changes no term, neither of who asks nor of who is asked. A watcher answers, as who asks may know newer
    # members; and so does a leader, which refuses while a majority answers it (`leader_recent`, below).
    (PreVote, "follower"):      (REFUSED,         GRANTED,        GRANTED),
    (PreVote, "leader"):        (REFUSED,         GRANTED,        GRANTED),
    (PreVote, "watcher"):       (REFUSED,         GRANTED,        GRANTED),
    (PreVote, "recovering"):    (REFUSED,         REFUSED,        REFUSED),
    (PreVote, "installing"):    (REFUSED,         GRANTED,        GRANTED),
    # A grant of the present round counts also if it is of an older term: no vote was given with it.
    (PreVoteGranted, "follower"):     (COUNTED_BEFORE,  COUNTED_BEFORE, adopted),
    (PreVoteGranted, "leader"):       (COUNTED_BEFORE,  COUNTED_BEFORE, adopted),
    (PreVoteGranted, "watcher"):      (COUNTED_BEFORE,  COUNTED_BEFORE, adopted),
    (PreVoteGranted, "recovering"):   (COUNTED_BEFORE,  COUNTED_BEFORE, adopted),
    (PreVoteGranted, "installing"):   (COUNTED_BEFORE,  COUNTED_BEFORE, adopted),
    # The core compares the terms of these two, and the logs.
    (RequestVote, "follower"):  (asked,           asked,          asked),
    (RequestVote, "leader"):    (asked,           asked,          asked),
    (RequestVote, "watcher"):   (asked,           asked,          asked),
    (RequestVote, "recovering"): (LOST,           LOST,           LOST),
    (RequestVote, "installing"): (asked,          asked,          asked),
    (TimeoutNow, "follower"):   (standing,        standing,       standing),
    (TimeoutNow, "leader"):     (standing,        standing,       standing),
    (TimeoutNow, "watcher"):    (NO_VOTER,        NO_VOTER,       NO_VOTER),
    (TimeoutNow, "recovering"): (NO_VOTER,        NO_VOTER,       NO_VOTER),
    (TimeoutNow, "installing"): (standing,        standing,       standing),
    # The engine counts only what it has asked for, and only as a candidate.
    (VoteGranted, "follower"):        (LATE_VOTE,       COUNTED,        adopted),
    (VoteGranted, "leader"):          (LATE_VOTE,       COUNTED,        adopted),
    (VoteGranted, "watcher"):         (LATE_VOTE,       COUNTED,        adopted),
    (VoteGranted, "recovering"):      (LATE_VOTE,       COUNTED,        adopted),
    (VoteGranted, "installing"):      (LATE_VOTE,       COUNTED,        adopted),
}  # fmt: skip


def test_the_table_has_every_type_of_message_and_every_role() -> None:
    assert set(TABLE) == {(kind, role) for kind in get_args(AnyMessage) for role in get_args(Role)}


@pytest.mark.parametrize(("kind", "role"), TABLE, ids=lambda value: getattr(value, "__name__", value))
def test_a_message_of_an_older_of_this_and_of_a_newer_term(kind: type[AnyMessage], role: Role) -> None:
    for term, effect in zip((TERM - 1, TERM, TERM + 1), TABLE[kind, role], strict=True):
        expected = effect(term) if callable(effect) else effect
        assert filter_message("B", MESSAGES[kind](term), NODES[role]) == expected, f"of term {term}"


def append(prev: tuple[int, int], terms: list[int], commit_index: int) -> AppendEntries:
    """What a leader sends whose log has entries of these terms behind `prev`."""
    return AppendEntries(TERM, *prev, entries(terms, after=prev[0]), commit_index, STREAM)


def follower(terms: list[int], commit_index: int, *, first_index: int = 1) -> FilterView:
    return replace(FOLLOWER, log=TermsLog(terms, first_index), commit_index=commit_index)


def extension(prev: tuple[int, int], terms: list[int], commit_index: int) -> list[Action]:
    """The log is cut behind `prev` and goes on with entries of these terms."""
    return [
        AppendToLog(TERM, *prev, entries(terms, after=prev[0]), commit_index),
        holds(prev[0] + len(terms)),
    ]


def reset(next_index: int, commit_index: int) -> list[Action]:
    """The leader is asked to go back."""
    return [
        FollowLeader(TERM, commit_index),
        Reply(AppendResponse(TERM, next_index, success=False, reset=True, stream=STREAM)),
    ]


GAPS: list[Action] = [Drop("the entries' indexes have gaps")]

LOGS: dict[str, tuple[FilterView, AppendEntries, list[Action]]] = {
    # name: follower (terms of its log, commit index), append (previous entry, terms, commit index), effect
    "entries right behind the log are appended": (
        follower([0, 1, 1], 2),
        append((3, 1), [1, 3], 3),
        extension((3, 1), [1, 3], 3),
    ),
    "the first entry ever is appended": (
        follower([0], 1),
        append((1, 0), [1], 1),
        extension((1, 0), [1], 1),
    ),
    "the leader's commit index may lie behind its entries: the core takes what the log has": (
        follower([0, 1, 1], 2),
        append((3, 1), [3], 9),
        extension((3, 1), [3], 9),
    ),
    "of entries that overlap the log only the new ones are appended": (
        follower([0, 1, 1, 2], 2),
        append((2, 1), [1, 2, 2, 3], 2),
        extension((4, 2), [2, 3], 2),
    ),
    "entries that are held are not appended again, and nothing behind them is cut": (
        follower([0, 1, 1, 2, 2], 2),
        append((2, 1), [1], 2),
        [FollowLeader(TERM, 2), holds(3)],
    ),
    "of a commit index beyond what was compared only as much counts": (
        follower([0, 1, 1, 2, 2], 2),
        append((2, 1), [1], 5),
        [FollowLeader(TERM, 3), holds(3)],
    ),
    "a heartbeat brings the commit index": (
        follower([0, 1, 1, 2, 2], 2),
        append((5, 2), [], 4),
        [FollowLeader(TERM, 4), holds(5)],
    ),
    "a heartbeat of a leader that holds more brings the commit index up to what it compares": (
        follower([0, 1, 1, 2, 2], 2),
        append((4, 2), [], 9),
        [FollowLeader(TERM, 4), holds(4)],
    ),
    "a late append says less than is committed, and does no harm": (
        follower([0, 1, 1, 2, 2], 4),
        append((1, 0), [1], 2),
        [FollowLeader(TERM, 2), holds(2)],
    ),
    "an entry of another term, not committed, is replaced with all behind it": (
        follower([0, 1, 1, 2, 2], 3),
        append((4, 2), [3, 3], 4),
        extension((4, 2), [3, 3], 4),
    ),
    "an entry of another term in the midst of the append is replaced": (
        follower([0, 1, 1, 2, 2], 3),
        append((2, 1), [1, 2, 3], 4),
        extension((4, 2), [3], 4),
    ),
    "all that is not committed may be replaced": (
        follower([0, 1, 1, 2, 2], 3),
        append((3, 1), [3], 3),
        extension((3, 1), [3], 3),
    ),
    "before what this node does not have the leader goes back to the commit index": (
        follower([0, 1, 1, 2, 2], 3),
        append((6, 2), [3], 6),
        reset(4, commit_index=3),
    ),
    "a previous entry of another term, not committed: the leader goes back to the commit index, in one step": (
        follower([0, 1, 1, 2, 2], 2),
        append((5, 3), [3], 5),
        reset(3, commit_index=2),
    ),
    "the entry right behind the commit index may differ from the leader's": (
        follower([0, 1, 1, 2, 2], 3),
        append((4, 3), [3], 4),
        reset(4, commit_index=3),
    ),
    "the leader lacks the newest committed entry: all goes, and this node votes when it has recovered what it had": (
        follower([0, 1, 1, 2, 2], 4),
        append((4, 1), [3], 2),
        [ResetFromLeader(4, recover_to=4)],
    ),
    "the leader lacks an older committed entry": (
        follower([0, 1, 1, 2, 2], 5),
        append((3, 2), [], 3),
        [ResetFromLeader(3, recover_to=5)],
    ),
    "a node that is wiped recovers up to what the leader knows to be committed, if that is more": (
        follower([0, 1, 1, 2, 2], 4),
        append((4, 1), [3, 3, 3], 7),
        [ResetFromLeader(4, recover_to=7)],
    ),
    "an entry contradicts a committed one though the previous one agrees: all goes": (
        follower([0, 1, 1, 2, 2], 4),
        append((2, 1), [1, 3], 2),
        [ResetFromLeader(4, recover_to=4)],
    ),
    "the first entry contradicts a committed one": (
        follower([0, 1, 1, 2, 2], 5),
        append((2, 1), [3, 3, 3], 3),
        [ResetFromLeader(3, recover_to=5)],
    ),
    "an entry contradicts a committed one, and the leader knows more to be committed": (
        follower([0, 1, 1, 2, 2], 4),
        append((2, 1), [1, 3, 3, 3, 3], 7),
        [ResetFromLeader(4, recover_to=7)],
    ),
    "what the snapshot contains is not compared, only what follows it": (
        follower([1, 1, 2], 4, first_index=3),
        append((1, 0), [1, 1, 1, 2, 2], 5),
        extension((5, 2), [2], 5),
    ),
    "what follows the snapshot is compared": (
        follower([1, 1, 2], 3, first_index=3),
        append((1, 0), [1, 1, 3], 4),
        extension((3, 1), [3], 4),
    ),
    "entries up to the snapshot's end are committed, and this node holds all that is": (
        follower([1, 1, 2], 4, first_index=3),
        append((1, 0), [1, 1], 9),
        [FollowLeader(TERM, 4), holds(4)],
    ),
    "entries within the snapshot": (
        follower([1, 1, 2], 5, first_index=3),
        append((1, 0), [1], 2),
        [FollowLeader(TERM, 5), holds(5)],
    ),
    "a heartbeat about an entry within the snapshot": (
        follower([1, 1, 2], 4, first_index=3),
        append((2, 1), [], 5),
        [FollowLeader(TERM, 4), holds(4)],
    ),
    "the snapshot's last entry is compared, as the log begins with it": (
        follower([1, 1, 2], 4, first_index=3),
        append((3, 2), [2], 4),
        [ResetFromLeader(3, recover_to=4)],
    ),
    "the first entry does not follow the previous one": (
        FOLLOWER,
        AppendEntries(TERM, 4, 2, entries([3], after=5), 4, STREAM),
        GAPS,
    ),
    "the entries have a gap": (
        FOLLOWER,
        AppendEntries(TERM, 4, 2, (*entries([3], after=4), *entries([3], after=6)), 4, STREAM),
        GAPS,
    ),
    "the entries have a gap before the snapshot's end": (
        follower([1, 1, 2], 4, first_index=3),
        AppendEntries(TERM, 0, 0, entries([1, 1], after=1), 4, STREAM),
        GAPS,
    ),
}


@pytest.mark.parametrize("rule", LOGS)
def test_an_append(rule: str) -> None:
    node, message, effect = LOGS[rule]
    assert filter_message("B", message, node) == effect


RULES: dict[str, tuple[str, AnyMessage, FilterView, list[Action]]] = {
    # name: sender, message, node, effect
    "a snapshot of no more than is committed is not taken: the leader may go on behind that": (
        "B",
        SnapshotChunk(TERM, 3, 2, 100, 0, b"state"),
        FOLLOWER,
        [FollowLeader(TERM, 3), holds(3, stream=0)],
    ),
    "a snapshot of less than is committed": (
        "B",
        SnapshotChunk(TERM, 2, 1, 100, 0, b"state"),
        FOLLOWER,
        [FollowLeader(TERM, 3), holds(3, stream=0)],
    ),
    "a snapshot of one entry more is taken": (
        "B",
        SnapshotChunk(TERM, 4, 2, 100, 0, b"state"),
        FOLLOWER,
        [FollowLeader(TERM, 3), TakeChunk(SnapshotChunk(TERM, 4, 2, 100, 0, b"state"))],
    ),
    "a snapshot is not taken while another one is installed": (
        "B",
        SnapshotChunk(TERM, 2, 1, 100, 0, b"state"),
        NODES["installing"],
        [FollowLeader(TERM, 3), alive(TERM)],
    ),
    "a follower holds the leader's whole log": (
        "B",
        AppendResponse(TERM, 5, success=True, reset=False, stream=STREAM),
        LEADER,
        [CountResponse(AppendResponse(TERM, 5, success=True, reset=False, stream=STREAM))],
    ),
    "nobody holds what this leader never had": (
        "B",
        AppendResponse(TERM, 6, success=True, reset=False, stream=STREAM),
        LEADER,
        [Drop("an answer that vouches for entries this leader never had")],
    ),
    "a watcher's answer counts": (
        "D",
        AppendResponse(TERM, 5, success=True, reset=False, stream=STREAM),
        LEADER,
        [CountResponse(AppendResponse(TERM, 5, success=True, reset=False, stream=STREAM))],
    ),
    "whoever asks the leader to go back vouches for nothing": (
        "B",
        AppendResponse(TERM, 9, success=False, reset=True, stream=STREAM),
        LEADER,
        [CountResponse(AppendResponse(TERM, 9, success=False, reset=True, stream=STREAM))],
    ),
    "an answer of a node that is no member": (
        "E",
        AppendResponse(TERM, 5, success=True, reset=False, stream=STREAM),
        LEADER,
        [Drop("an answer of a node that is not in the cluster")],
    ),
    "what a node that is no member has of the snapshot": (
        "E",
        SnapshotChunkAck(TERM, 9, 5),
        LEADER,
        [Drop("an answer of a node that is not in the cluster")],
    ),
    "a newer term counts, whoever has it": (
        "E",
        AppendResponse(TERM + 1, 5, success=True, reset=False, stream=STREAM),
        LEADER,
        [AdoptTerm(TERM + 1)],
    ),
    "a candidate with more of the newest term": (
        "B",
        PreVote(TERM, 5, 9, 2),
        FOLLOWER,
        [Reply(PreVoteGranted(TERM, 5, True))],
    ),
    "a candidate with less of the newest term": (
        "B",
        PreVote(TERM, 5, 3, 2),
        FOLLOWER,
        [Reply(PreVoteGranted(TERM, 5, False))],
    ),
    "a shorter log of a newer term is ahead": (
        "B",
        PreVote(TERM, 5, 1, 3),
        FOLLOWER,
        [Reply(PreVoteGranted(TERM, 5, True))],
    ),
    "a longer log of an older term is behind": (
        "B",
        PreVote(TERM, 5, 9, 1),
        FOLLOWER,
        [Reply(PreVoteGranted(TERM, 5, False))],
    ),
    "whoever hears a leader elects no other": (
        "B",
        PreVote(TERM, 5, 4, 2),
        replace(FOLLOWER, leader_recent=True),
        [Reply(PreVoteGranted(TERM, 5, False))],
    ),
    "a leader that a majority answers elects no other": (
        "B",
        PreVote(TERM + 1, 5, 9, 4),
        replace(LEADER, leader_recent=True),
        [Reply(PreVoteGranted(TERM, 5, False))],
    ),
    "a pre-vote that was refused": (
        "B",
        PreVoteGranted(TERM, NONCE, False),
        FOLLOWER,
        [Drop("no grant of the present round")],
    ),
    "a pre-vote of an earlier round": (
        "B",
        PreVoteGranted(TERM, NONCE - 1, True),
        FOLLOWER,
        [Drop("no grant of the present round")],
    ),
    "a pre-vote after the round": (
        "B",
        PreVoteGranted(TERM, NONCE, True),
        replace(FOLLOWER, prevote_nonce=None),
        [Drop("no grant of the present round")],
    ),
    "a watcher's pre-vote": (
        "D",
        PreVoteGranted(TERM, NONCE, True),
        FOLLOWER,
        [Drop("the vote of a node that is not a voter")],
    ),
    "a watcher's vote": ("D", VoteGranted(TERM), FOLLOWER, [Drop("the vote of a node that is not a voter")]),
    "a refusal in a newer term": ("B", PreVoteGranted(TERM + 1, NONCE, False), FOLLOWER, [AdoptTerm(TERM + 1)]),
    "a newer term in the vote of a node that is not a voter": (
        "D",
        VoteGranted(TERM + 1),
        FOLLOWER,
        [AdoptTerm(TERM + 1)],
    ),
    "a watcher that lost what it had is not handed the leadership": (
        "B",
        TimeoutNow(TERM),
        replace(NODES["watcher"], recovering=True),
        NO_VOTER,
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str) -> None:
    sender, message, node, effect = RULES[rule]
    assert filter_message(sender, message, node) == effect


def test_a_message_of_a_type_without_a_rule_is_an_error_and_not_passed_over() -> None:
    with pytest.raises(AssertionError):
        filter_message("B", object(), FOLLOWER)  # type: ignore[arg-type]
