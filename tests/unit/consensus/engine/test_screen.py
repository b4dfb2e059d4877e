"""What each message does to a node, exactly: by its type, the node's role and the message's term; then rule by rule.

In the manner of the tables of etcd's raft: a row is a rule, and names it. A follower and a candidate are one role here:
the filter does not ask, as all that a candidate does more it does by its own clock.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import pytest
from msgspec.structs import replace

from raftnode.consensus.engine.screen import (
    Account,
    Action,
    AdoptTerm,
    CountPreVote,
    CountVote,
    Drop,
    Extend,
    Follow,
    PassVoteRequest,
    Reply,
    StandNow,
    TakePiece,
    View,
    Wipe,
    screen,
)
from raftnode.consensus.messages import (
    AnyMessage,
    Append,
    Appended,
    Piece,
    PieceTaken,
    PreVote,
    PreVoted,
    Pulse,
    RequestVote,
    TimeoutNow,
    Voted,
)
from tests.unit.consensus.engine.logs import TermsLog, entries

TERM, NONCE, STREAM = 3, 77, 9
Role = Literal["follower", "leader", "watcher", "recovering", "installing"]

FOLLOWER = View("A", TERM, False, TermsLog([0, 1, 2, 2]), 3, frozenset("ABC"), frozenset("BCD"), prevote_nonce=NONCE)
"""Node A, with voters B and C and a watcher D. The fourth entry of its log is not committed."""

LEADER = replace(FOLLOWER, is_leader=True)

NODES: dict[Role, View] = {
    "follower": FOLLOWER,
    "leader": LEADER,
    "watcher": replace(FOLLOWER, voters=frozenset("BC")),
    "recovering": replace(FOLLOWER, recovering=True),
    "installing": replace(FOLLOWER, installing=True),
}

MESSAGES: dict[type[AnyMessage], Callable[[int], AnyMessage]] = {
    Append: lambda term: Append(term, 4, 2, entries([2], after=4), commit_index=4, stream=STREAM),
    Pulse: Pulse,
    Piece: lambda term: Piece(term, index=9, index_term=2, size_bytes=100, offset=0, data=b"state"),
    Appended: lambda term: Appended(term, next_index=5, success=True, reset=False, stream=STREAM),
    PieceTaken: lambda term: PieceTaken(term, index=9, offset=5),
    PreVote: lambda term: PreVote(term, NONCE, last_index=4, last_term=2),
    PreVoted: lambda term: PreVoted(term, NONCE, granted=True),
    RequestVote: lambda term: RequestVote(term, last_index=4, last_term=2),
    Voted: Voted,
    TimeoutNow: TimeoutNow,
}
"""A message of each type and of that term, in which nothing but the term may be wrong."""

Effect = Sequence[Action] | Callable[[int], Sequence[Action]]


def alive(term: int) -> Reply:
    """The answer that vouches for nothing but this node's life and term."""
    return Reply(Appended(term, 0, success=False, reset=False, stream=0))


def holds(index: int, term: int = TERM, stream: int = STREAM) -> Reply:
    """The answer that this node holds the leader's log up to `index`."""
    return Reply(Appended(term, index + 1, success=True, reset=False, stream=stream))


def extended(term: int) -> Sequence[Action]:
    return [Extend(term, 4, 2, entries([2], after=4), 4), holds(5, term)]


def heard(term: int) -> Sequence[Action]:
    return [Follow(term, 3), alive(term)]


def stored(term: int) -> Sequence[Action]:
    return [Follow(term, 3), TakePiece(Piece(term, 9, 2, 100, 0, b"state"))]


def adopted(term: int) -> Sequence[Action]:
    return [AdoptTerm(term)]


def standing(term: int) -> Sequence[Action]:
    return [StandNow(term)]


def asked(term: int) -> Sequence[Action]:
    return [PassVoteRequest(RequestVote(term, 4, 2))]


def answered(granted: bool) -> Sequence[Action]:
    return [Reply(PreVoted(TERM, NONCE, granted))]


TOLD = [alive(TERM)]
RIVAL = [Drop("another node claims to lead this very term")]
LATE = [Drop("an answer to an earlier leadership")]
LATE_VOTE = [Drop("a vote of an earlier term")]
NO_VOTER: list[Action] = [Drop("this node is no voter and cannot take the leadership")]
LOST = [Drop("this node lost entries it had acknowledged and may not vote yet")]
GRANTED, REFUSED = answered(True), answered(False)
COUNTED_BEFORE, COUNTED = [CountPreVote()], [CountVote()]
ACCOUNTED = [Account(Appended(TERM, 5, success=True, reset=False, stream=STREAM))]
TAKEN = [Account(PieceTaken(TERM, 9, 5))]

TABLE: dict[tuple[type[AnyMessage], Role], tuple[Effect, Effect, Effect]] = {
    # A message of:              an older term    this term       a newer term
    (Append, "follower"):       (TOLD,            extended,       extended),
    (Append, "leader"):         (TOLD,            RIVAL,          extended),
    (Append, "watcher"):        (TOLD,            extended,       extended),
    (Append, "recovering"):     (TOLD,            extended,       extended),
    (Append, "installing"):     (TOLD,            heard,          heard),
    (Pulse, "follower"):        (TOLD,            heard,          heard),
    (Pulse, "leader"):          (TOLD,            RIVAL,          heard),
    (Pulse, "watcher"):         (TOLD,            heard,          heard),
    (Pulse, "recovering"):      (TOLD,            heard,          heard),
    (Pulse, "installing"):      (TOLD,            heard,          heard),
    (Piece, "follower"):        (TOLD,            stored,         stored),
    (Piece, "leader"):          (TOLD,            RIVAL,          stored),
    (Piece, "watcher"):         (TOLD,            stored,         stored),
    (Piece, "recovering"):      (TOLD,            stored,         stored),
    (Piece, "installing"):      (TOLD,            heard,          heard),
    (Appended, "follower"):     (LATE,            LATE,           adopted),
    (Appended, "leader"):       (LATE,            ACCOUNTED,      adopted),
    (Appended, "watcher"):      (LATE,            LATE,           adopted),
    (Appended, "recovering"):   (LATE,            LATE,           adopted),
    (Appended, "installing"):   (LATE,            LATE,           adopted),
    (PieceTaken, "follower"):   (LATE,            LATE,           adopted),
    (PieceTaken, "leader"):     (LATE,            TAKEN,          adopted),
    (PieceTaken, "watcher"):    (LATE,            LATE,           adopted),
    (PieceTaken, "recovering"): (LATE,            LATE,           adopted),
    (PieceTaken, "installing"): (LATE,            LATE,           adopted),
    # A pre-vote changes no term, neither of who asks nor of who is asked. A watcher answers, as who asks may know newer
    # members; and so does a leader, which refuses while a majority answers it (`leader_recent`, below).
    (PreVote, "follower"):      (REFUSED,         GRANTED,        GRANTED),
    (PreVote, "leader"):        (REFUSED,         GRANTED,        GRANTED),
    (PreVote, "watcher"):       (REFUSED,         GRANTED,        GRANTED),
    (PreVote, "recovering"):    (REFUSED,         REFUSED,        REFUSED),
    (PreVote, "installing"):    (REFUSED,         GRANTED,        GRANTED),
    # A grant of the present round counts also if it is of an older term: no vote was given with it.
    (PreVoted, "follower"):     (COUNTED_BEFORE,  COUNTED_BEFORE, adopted),
    (PreVoted, "leader"):       (COUNTED_BEFORE,  COUNTED_BEFORE, adopted),
    (PreVoted, "watcher"):      (COUNTED_BEFORE,  COUNTED_BEFORE, adopted),
    (PreVoted, "recovering"):   (COUNTED_BEFORE,  COUNTED_BEFORE, adopted),
    (PreVoted, "installing"):   (COUNTED_BEFORE,  COUNTED_BEFORE, adopted),
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
    (Voted, "follower"):        (LATE_VOTE,       COUNTED,        adopted),
    (Voted, "leader"):          (LATE_VOTE,       COUNTED,        adopted),
    (Voted, "watcher"):         (LATE_VOTE,       COUNTED,        adopted),
    (Voted, "recovering"):      (LATE_VOTE,       COUNTED,        adopted),
    (Voted, "installing"):      (LATE_VOTE,       COUNTED,        adopted),
}  # fmt: skip


def test_the_table_has_every_type_of_message_and_every_role() -> None:
    assert set(TABLE) == {(kind, role) for kind in get_args(AnyMessage) for role in get_args(Role)}


@pytest.mark.parametrize(("kind", "role"), TABLE, ids=lambda value: getattr(value, "__name__", value))
def test_a_message_of_an_older_of_this_and_of_a_newer_term(kind: type[AnyMessage], role: Role) -> None:
    for term, effect in zip((TERM - 1, TERM, TERM + 1), TABLE[kind, role], strict=True):
        expected = effect(term) if callable(effect) else effect
        assert screen("B", MESSAGES[kind](term), NODES[role]) == expected, f"of term {term}"


def append(prev: tuple[int, int], terms: list[int], commit_index: int) -> Append:
    """What a leader sends whose log has entries of these terms behind `prev`."""
    return Append(TERM, *prev, entries(terms, after=prev[0]), commit_index, STREAM)


def follower(terms: list[int], commit_index: int, *, first_index: int = 1) -> View:
    return replace(FOLLOWER, log=TermsLog(terms, first_index), commit_index=commit_index)


def extension(prev: tuple[int, int], terms: list[int], commit_index: int) -> list[Action]:
    """The log is cut behind `prev` and goes on with entries of these terms."""
    return [
        Extend(TERM, *prev, entries(terms, after=prev[0]), commit_index),
        holds(prev[0] + len(terms)),
    ]


def reset(next_index: int, commit_index: int) -> list[Action]:
    """The leader is asked to go back."""
    return [
        Follow(TERM, commit_index),
        Reply(Appended(TERM, next_index, success=False, reset=True, stream=STREAM)),
    ]


GAPS: list[Action] = [Drop("the entries' indexes have gaps")]

LOGS: dict[str, tuple[View, Append, list[Action]]] = {
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
        [Follow(TERM, 2), holds(3)],
    ),
    "of a commit index beyond what was compared only as much counts": (
        follower([0, 1, 1, 2, 2], 2),
        append((2, 1), [1], 5),
        [Follow(TERM, 3), holds(3)],
    ),
    "a heartbeat brings the commit index": (
        follower([0, 1, 1, 2, 2], 2),
        append((5, 2), [], 4),
        [Follow(TERM, 4), holds(5)],
    ),
    "a heartbeat of a leader that holds more brings the commit index up to what it compares": (
        follower([0, 1, 1, 2, 2], 2),
        append((4, 2), [], 9),
        [Follow(TERM, 4), holds(4)],
    ),
    "a late append says less than is committed, and does no harm": (
        follower([0, 1, 1, 2, 2], 4),
        append((1, 0), [1], 2),
        [Follow(TERM, 2), holds(2)],
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
        [Wipe(4, recover_to=4)],
    ),
    "the leader lacks an older committed entry": (
        follower([0, 1, 1, 2, 2], 5),
        append((3, 2), [], 3),
        [Wipe(3, recover_to=5)],
    ),
    "a node that is wiped recovers up to what the leader knows to be committed, if that is more": (
        follower([0, 1, 1, 2, 2], 4),
        append((4, 1), [3, 3, 3], 7),
        [Wipe(4, recover_to=7)],
    ),
    "an entry contradicts a committed one though the previous one agrees: all goes": (
        follower([0, 1, 1, 2, 2], 4),
        append((2, 1), [1, 3], 2),
        [Wipe(4, recover_to=4)],
    ),
    "the first entry contradicts a committed one": (
        follower([0, 1, 1, 2, 2], 5),
        append((2, 1), [3, 3, 3], 3),
        [Wipe(3, recover_to=5)],
    ),
    "an entry contradicts a committed one, and the leader knows more to be committed": (
        follower([0, 1, 1, 2, 2], 4),
        append((2, 1), [1, 3, 3, 3, 3], 7),
        [Wipe(4, recover_to=7)],
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
        [Follow(TERM, 4), holds(4)],
    ),
    "entries within the snapshot": (
        follower([1, 1, 2], 5, first_index=3),
        append((1, 0), [1], 2),
        [Follow(TERM, 5), holds(5)],
    ),
    "a heartbeat about an entry within the snapshot": (
        follower([1, 1, 2], 4, first_index=3),
        append((2, 1), [], 5),
        [Follow(TERM, 4), holds(4)],
    ),
    "the snapshot's last entry is compared, as the log begins with it": (
        follower([1, 1, 2], 4, first_index=3),
        append((3, 2), [2], 4),
        [Wipe(3, recover_to=4)],
    ),
    "the first entry does not follow the previous one": (
        FOLLOWER,
        Append(TERM, 4, 2, entries([3], after=5), 4, STREAM),
        GAPS,
    ),
    "the entries have a gap": (
        FOLLOWER,
        Append(TERM, 4, 2, (*entries([3], after=4), *entries([3], after=6)), 4, STREAM),
        GAPS,
    ),
    "the entries have a gap before the snapshot's end": (
        follower([1, 1, 2], 4, first_index=3),
        Append(TERM, 0, 0, entries([1, 1], after=1), 4, STREAM),
        GAPS,
    ),
}


@pytest.mark.parametrize("rule", LOGS)
def test_an_append(rule: str) -> None:
    node, message, effect = LOGS[rule]
    assert screen("B", message, node) == effect


RULES: dict[str, tuple[str, AnyMessage, View, list[Action]]] = {
    # name: sender, message, node, effect
    "a snapshot of no more than is committed is not taken: the leader may go on behind that": (
        "B",
        Piece(TERM, 3, 2, 100, 0, b"state"),
        FOLLOWER,
        [Follow(TERM, 3), holds(3, stream=0)],
    ),
    "a snapshot of less than is committed": (
        "B",
        Piece(TERM, 2, 1, 100, 0, b"state"),
        FOLLOWER,
        [Follow(TERM, 3), holds(3, stream=0)],
    ),
    "a snapshot of one entry more is taken": (
        "B",
        Piece(TERM, 4, 2, 100, 0, b"state"),
        FOLLOWER,
        [Follow(TERM, 3), TakePiece(Piece(TERM, 4, 2, 100, 0, b"state"))],
    ),
    "a snapshot is not taken while another one is installed": (
        "B",
        Piece(TERM, 2, 1, 100, 0, b"state"),
        NODES["installing"],
        [Follow(TERM, 3), alive(TERM)],
    ),
    "a follower holds the leader's whole log": (
        "B",
        Appended(TERM, 5, success=True, reset=False, stream=STREAM),
        LEADER,
        [Account(Appended(TERM, 5, success=True, reset=False, stream=STREAM))],
    ),
    "nobody holds what this leader never had": (
        "B",
        Appended(TERM, 6, success=True, reset=False, stream=STREAM),
        LEADER,
        [Drop("an answer that vouches for entries this leader never had")],
    ),
    "a watcher's answer counts": (
        "D",
        Appended(TERM, 5, success=True, reset=False, stream=STREAM),
        LEADER,
        [Account(Appended(TERM, 5, success=True, reset=False, stream=STREAM))],
    ),
    "whoever asks the leader to go back vouches for nothing": (
        "B",
        Appended(TERM, 9, success=False, reset=True, stream=STREAM),
        LEADER,
        [Account(Appended(TERM, 9, success=False, reset=True, stream=STREAM))],
    ),
    "an answer of a node that is no member": (
        "E",
        Appended(TERM, 5, success=True, reset=False, stream=STREAM),
        LEADER,
        [Drop("an answer of a node that is not in the cluster")],
    ),
    "what a node that is no member has of the snapshot": (
        "E",
        PieceTaken(TERM, 9, 5),
        LEADER,
        [Drop("an answer of a node that is not in the cluster")],
    ),
    "a newer term counts, whoever has it": (
        "E",
        Appended(TERM + 1, 5, success=True, reset=False, stream=STREAM),
        LEADER,
        [AdoptTerm(TERM + 1)],
    ),
    "a candidate with more of the newest term": (
        "B",
        PreVote(TERM, 5, 9, 2),
        FOLLOWER,
        [Reply(PreVoted(TERM, 5, True))],
    ),
    "a candidate with less of the newest term": (
        "B",
        PreVote(TERM, 5, 3, 2),
        FOLLOWER,
        [Reply(PreVoted(TERM, 5, False))],
    ),
    "a shorter log of a newer term is ahead": ("B", PreVote(TERM, 5, 1, 3), FOLLOWER, [Reply(PreVoted(TERM, 5, True))]),
    "a longer log of an older term is behind": (
        "B",
        PreVote(TERM, 5, 9, 1),
        FOLLOWER,
        [Reply(PreVoted(TERM, 5, False))],
    ),
    "whoever hears a leader elects no other": (
        "B",
        PreVote(TERM, 5, 4, 2),
        replace(FOLLOWER, leader_recent=True),
        [Reply(PreVoted(TERM, 5, False))],
    ),
    "a leader that a majority answers elects no other": (
        "B",
        PreVote(TERM + 1, 5, 9, 4),
        replace(LEADER, leader_recent=True),
        [Reply(PreVoted(TERM, 5, False))],
    ),
    "a pre-vote that was refused": (
        "B",
        PreVoted(TERM, NONCE, False),
        FOLLOWER,
        [Drop("no grant of the present round")],
    ),
    "a pre-vote of an earlier round": (
        "B",
        PreVoted(TERM, NONCE - 1, True),
        FOLLOWER,
        [Drop("no grant of the present round")],
    ),
    "a pre-vote after the round": (
        "B",
        PreVoted(TERM, NONCE, True),
        replace(FOLLOWER, prevote_nonce=None),
        [Drop("no grant of the present round")],
    ),
    "a watcher's pre-vote": ("D", PreVoted(TERM, NONCE, True), FOLLOWER, [Drop("the vote of a node that is no voter")]),
    "a watcher's vote": ("D", Voted(TERM), FOLLOWER, [Drop("the vote of a node that is no voter")]),
    "a refusal in a newer term": ("B", PreVoted(TERM + 1, NONCE, False), FOLLOWER, [AdoptTerm(TERM + 1)]),
    "a newer term in the vote of a node that is no voter": ("D", Voted(TERM + 1), FOLLOWER, [AdoptTerm(TERM + 1)]),
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
    assert screen(sender, message, node) == effect


def test_a_message_of_a_type_without_a_rule_is_an_error_and_not_passed_over() -> None:
    with pytest.raises(AssertionError):
        screen("B", object(), FOLLOWER)  # type: ignore[arg-type]
