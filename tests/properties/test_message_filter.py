"""The message filter against a model of Raft's log: whatever arrives, in whatever order and however often, a follower
never drops what is committed, never vouches for what it does not hold, and never takes a commit index on trust."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from raftnode.consensus.engine.message_filter import (
    AppendToLog,
    FilterView,
    FollowLeader,
    Reply,
    ResetFromLeader,
    filter_message,
)
from raftnode.consensus.engine.messages import AppendEntries, AppendResponse, SnapshotHeartbeat, WireEntry

TERM = 9


@dataclass
class ListLog:
    """Entries from `first_index` on."""

    entries: list[WireEntry]

    @property
    def first_index(self) -> int:
        return self.entries[0][1]

    @property
    def last_index(self) -> int:
        return self.entries[-1][1]

    @property
    def last_term(self) -> int:
        return self.entries[-1][2]

    def term_at(self, index: int) -> int | None:
        held = self.first_index <= index <= self.last_index
        return self.entries[index - self.first_index][2] if held else None


def logs_of(terms: list[int]) -> list[WireEntry]:
    return [(b"\x00%d/%d" % (index, term), index, term) for index, term in enumerate(sorted(terms), start=1)]


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[WireEntry], ListLog, int]:
    """A leader's log, a follower's that agrees up to some point, and the follower's commit index within that."""
    leader = logs_of([0, *draw(st.lists(st.integers(1, TERM - 1), min_size=3, max_size=25)), TERM])
    agreed = draw(st.integers(1, len(leader)))
    tail_term = leader[agreed - 1][2]
    terms = st.lists(st.integers(tail_term, TERM - 1), max_size=10) if tail_term < TERM else st.just([])
    tail: list[WireEntry] = []
    for index, term in enumerate(sorted(draw(terms)), start=agreed + 1):
        if index <= len(leader) and leader[index - 1][2] == term:
            break  # an equal index and term would be an equal log up to there
        tail.append((b"\x00other", index, term))
    commit_index = draw(st.integers(1, agreed))
    first = draw(st.integers(1, commit_index))
    return leader, ListLog((leader[:agreed] + tail)[first - 1 :]), commit_index


@given(
    situation=situations(),
    slices=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 40), st.booleans()), max_size=12),
)
@settings(max_examples=400, deadline=None)
def test_a_follower_only_ever_moves_towards_the_leaders_log(
    situation: tuple[list[WireEntry], ListLog, int], slices: list[tuple[int, int, int, bool]]
) -> None:
    leader, log, commit_index = situation
    leader_commit = max(commit_index, len(leader) // 2)
    voters = frozenset("AB")
    for begin, length, said, pulse in slices:
        prev = min(begin, len(leader) - 1)
        entries = tuple(leader[prev : prev + length])
        prev_index = prev
        prev_term = leader[prev - 1][2] if prev else 0
        said = min(said, leader_commit)
        message = SnapshotHeartbeat(TERM) if pulse else AppendEntries(TERM, prev_index, prev_term, entries, said, 1)
        view = FilterView("B", TERM, False, log, commit_index, voters, frozenset())
        vouched = 0
        for action in filter_message("A", message, view):
            assert not isinstance(action, ResetFromLeader)
            if isinstance(action, AppendToLog):
                assert action.prev_index >= commit_index
                assert log.term_at(action.prev_index) == action.prev_term
                assert log.term_at(action.entries[0][1]) != action.entries[0][2]
                log.entries[action.prev_index - log.first_index + 1 :] = action.entries
                commit_index = max(commit_index, min(action.commit_index, log.last_index))
            elif isinstance(action, FollowLeader):
                commit_index = max(commit_index, action.commit_index)
            elif isinstance(action, Reply) and isinstance(action.message, AppendResponse) and action.message.success:
                vouched = action.message.next_index - 1
        for index in range(log.first_index, max(vouched, commit_index) + 1):
            assert log.entries[index - log.first_index] == leader[index - 1]
        assert commit_index <= leader_commit


@given(situation=situations())
@settings(max_examples=200, deadline=None)
def test_two_exchanges_are_enough_for_any_divergence(situation: tuple[list[WireEntry], ListLog, int]) -> None:
    leader, log, commit_index = situation
    next_index = len(leader) + 1
    for _ in range(2):
        prev = next_index - 1
        message = AppendEntries(TERM, prev, leader[prev - 1][2], tuple(leader[prev:]), 1, 1)
        view = FilterView("B", TERM, False, log, commit_index, frozenset("AB"), frozenset())
        for action in filter_message("A", message, view):
            if isinstance(action, AppendToLog):
                log.entries[action.prev_index - log.first_index + 1 :] = action.entries
            elif isinstance(action, Reply) and isinstance(action.message, AppendResponse):
                next_index = action.message.next_index
    assert log.entries[: len(leader)] == leader[log.first_index - 1 :]
