"""Who only looks at the lease: never sees one that has ended, nor one that has not begun."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.lease import FOREVER_NS, advance, as_of, on_report, role_of
from tests.unit.lease.world import answered, at, elected, follower, node, own, report, view

ROLES = st.sampled_from(["Follower", "Candidate", "LeaderElect", "Leader"])
VOTERS = st.frozensets(st.sampled_from("ABC"), min_size=1)
TERMS = st.integers(1, 2)


def test_a_lease_is_seen_until_its_end() -> None:
    lease = follower()
    assert as_of(lease, view(), at(1799)).holder == advance(lease, view(), at(1799))[0].holder
    assert role_of(as_of(lease, view(), at(1799)), view()) == "Follower"
    assert not as_of(lease, view(), at(1800)).holder.held
    assert role_of(as_of(lease, view(), at(1800)), view()) == "Candidate"


def test_a_lease_that_check_would_begin_is_not_seen_before() -> None:
    alone = view("Leader", voters="A")
    assert not as_of(node(), alone, at(0)).holder.held
    begun, _ = advance(node(), alone, at(0))
    assert as_of(begun, alone, at(10)).holder.until_ns == FOREVER_NS


@pytest.mark.parametrize(("role", "voters"), [("Follower", "AB"), ("LeaderElect", "AB")])
def test_a_lease_without_end_is_not_seen_once_another_may_lead(role: str, voters: str) -> None:
    lease, _ = advance(node(), view("Leader", voters="A"), at(0))
    assert not as_of(lease, view(role, term=2, voters=voters), at(10)).holder.held


def test_a_leader_whose_authority_has_ended_is_seen_as_a_follower_as_long_as_its_lease_stands() -> None:
    stuck = view("Leader", applied_index=1, commit_index=9)
    lease, _ = advance(elected(), stuck, at(100))
    lease, _ = advance(answered(lease, 1700, "B", "C", leader_applied=1), stuck, at(1800))
    assert role_of(as_of(lease, stuck, at(1900)), stuck) == "Leader"
    seen = as_of(lease, stuck, at(1901))
    assert (seen.holder.held, seen.authority, role_of(seen, stuck)) == (True, None, "Follower")


@given(role=ROLES, then=ROLES, voters=VOTERS, later=VOTERS, term=TERMS, next_term=TERMS, ms=st.integers(0, 2000))
def test_what_is_seen_is_never_more_than_what_check_finds(
    role: str, then: str, voters: frozenset[str], later: frozenset[str], term: int, next_term: int, ms: int
) -> None:
    first = view(role, term=term, voters=voters, votes=dict.fromkeys(voters, 0))
    lease, _ = advance(follower(), first, at(100))
    lease, _ = on_report(lease, "B", report(90, own(80)), first, at(110))
    second = view(then, term=next_term, voters=later)
    seen, (found, down) = as_of(lease, second, at(110 + ms)), advance(lease, second, at(110 + ms))
    assert seen.authority == found.authority
    if seen.holder.held:
        assert (found.holder.held, found.holder.session) == (True, seen.holder.session)
        assert seen.holder.session == lease.holder.session
    if role_of(seen, second) in ("Leader", "LeaderElect"):
        assert down is None
