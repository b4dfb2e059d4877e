"""A node's lease: what gives it, what ends it, and what its session says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.lease import FOREVER_NS, LeaseHolder, LeaseState, Stamp, advance, has_lease, new_lease, on_beat, role_of
from raftnode.record.model import Timings
from tests.unit.lease.world import BOOT, MS, NONCE, TIMINGS, at, beat, follower, node, own, theirs, view


def test_a_node_that_has_just_started_has_no_lease_and_no_session() -> None:
    lease = node()
    holder = LeaseHolder(
        boot=BOOT,
        nonce=NONCE,
        held=False,
        until_ns=0,
        session=0,
        stamps_from_ns=0,
        wall_offset_ns=None,
        complaint="",
    )
    assert lease == LeaseState(tag="A", holder=holder, authority=None)
    assert not has_lease(lease, TIMINGS, at(0))
    assert role_of(lease, view()) == "Candidate"
    assert role_of(lease, view(timings=None)) == "Passive"


def test_the_lease_counts_from_the_nodes_own_echoed_stamp_and_not_from_the_beat() -> None:
    lease = follower(echo_ms=100, now_ms=500)
    assert lease.holder.until_ns == 1900 * MS
    assert lease.holder.session == 1
    assert has_lease(lease, TIMINGS, at(1899))
    assert not has_lease(lease, TIMINGS, at(1900))
    assert role_of(lease, view()) == "Follower"


def test_an_echo_that_is_as_old_as_a_lease_is_long_grants_none() -> None:
    lease, report, _ = on_beat(node(), beat(own(200)), view(), at(2000))
    assert (lease.holder.held, lease.holder.session, report.has_lease) == (False, 0, False)
    lease, report, _ = on_beat(node(), beat(own(200)), view(), at(1999))
    assert (lease.holder.held, lease.holder.session, report.has_lease) == (True, 1, True)


def test_an_older_echo_does_not_shorten_the_lease() -> None:
    lease = on_beat(follower(400, 500), beat(own(300)), view(), at(600))[0]
    assert lease.holder.until_ns == 2200 * MS


@pytest.mark.parametrize(
    ("name", "echo"),
    [
        ("none", None),
        ("an earlier start", own(100).__class__(BOOT - 1, NONCE, 100)),
        ("another process of the same start", own(100).__class__(BOOT, NONCE + 1, 100)),
        ("a stamp this clock has not yet reached", own(501)),
        ("a stamp older than L", own(-1300)),
        ("a stamp from before this process counts", own(-1)),
    ],
)
def test_an_echo_that_is_not_a_recent_stamp_of_this_process_grants_nothing(name: str, echo: object) -> None:
    lease, report, _ = on_beat(node(), beat(echo), view(), at(500))  # type: ignore[arg-type]
    assert not lease.holder.held, name
    assert not report.has_lease


@pytest.mark.parametrize("term", [0, 2])
def test_a_beat_of_another_term_grants_nothing_and_is_not_echoed(term: int) -> None:
    lease, report, _ = on_beat(node(), beat(own(0), term=term), view(), at(100))
    assert not lease.holder.held
    assert report.echo is None
    assert report.term == 1


def test_the_answer_to_a_beat_echoes_it_and_stamps_the_moment() -> None:
    _, report, down = on_beat(node(), beat(own(0)), view(applied_index=7), at(100), payload=b"x")
    assert report.echo == theirs(5)
    assert report.stamp == own(100)
    assert report.has_lease
    assert (report.applied_index, report.payload, down) == (7, b"x", None)


def test_timings_that_differ_from_the_leaders_grant_nothing_and_are_said() -> None:
    other = Timings(heartbeat_ms=1, lease_ms=2, task_stop_timeout_ms=3, time_before_moving_to_rehab_ms=4)
    lease, report, _ = on_beat(node(), beat(own(0), timings=other), view(), at(100))
    assert not lease.holder.held
    assert "differ" in lease.holder.complaint
    assert report.echo, "the leader's authority does not depend on it"
    mended = on_beat(lease, beat(own(0)), view(), at(110))[0]
    assert mended.holder.held
    assert mended.holder.complaint == ""
    assert on_beat(lease, beat(own(0), timings=None), view(), at(110))[0].holder.complaint == ""


@pytest.mark.parametrize(("leaders", "own_timings"), [(None, TIMINGS), (TIMINGS, None), (None, None)])
def test_before_the_cluster_is_formed_nobody_has_a_lease(leaders: Timings | None, own_timings: Timings | None) -> None:
    lease = on_beat(node(), beat(own(0), timings=leaders), view(timings=own_timings), at(100))[0]
    assert not lease.holder.held
    assert lease.holder.complaint == ""


def test_a_lapse_ends_the_session_before_the_beat_that_wakes_the_node_can_renew_it() -> None:
    lease = follower(0, 100)
    late = on_beat(lease, beat(own(400)), view(), at(1850))[0]
    assert late.holder.held
    assert late.holder.until_ns == 2200 * MS
    assert late.holder.session == 2


def test_an_unbroken_lease_is_one_session_through_elections() -> None:
    lease = follower(0, 100)
    lease, _ = advance(lease, view("Candidate", term=2), at(900))
    assert role_of(lease, view("Candidate", term=2)) == "Follower"
    lease, _, _ = on_beat(lease, beat(own(800), term=2), view(term=2), at(1000))
    assert lease.holder.session == 1
    assert lease.holder.until_ns == 2600 * MS


def test_a_lapse_is_noticed_by_a_look_at_the_clock() -> None:
    lease, _ = advance(follower(0, 100), view(), at(1800))
    assert not lease.holder.held
    assert role_of(lease, view()) == "Candidate"


def test_a_wall_clock_that_runs_ahead_ends_the_session_and_disowns_older_stamps() -> None:
    lease = follower(0, 100)
    still, _ = advance(lease, view(), at(200, wall_ms=200 + 450))
    assert still.holder.held, "a quarter of L is forgiven"
    lease, _ = advance(lease, view(), at(200, wall_ms=200 + 451))
    assert lease.holder == LeaseHolder(
        boot=BOOT,
        nonce=NONCE,
        held=False,
        until_ns=0,
        session=1,
        stamps_from_ns=200 * MS,
        wall_offset_ns=451 * MS,
    )
    stale = on_beat(lease, beat(own(199)), view(), at(210, wall_ms=661))[0]
    assert not stale.holder.held
    fresh = on_beat(lease, beat(own(205)), view(), at(220, wall_ms=671))[0]
    assert fresh.holder.held
    assert fresh.holder.session == 2


def test_a_stamp_of_the_moment_in_which_a_stand_still_was_noticed_counts_and_none_before_it() -> None:
    lease, _ = advance(follower(0, 100), view(), at(200, wall_ms=2000))
    for stamp, held in ((Stamp(BOOT, NONCE, 200 * MS - 1), False), (Stamp(BOOT, NONCE, 200 * MS), True)):
        assert on_beat(lease, beat(stamp), view(), at(200, wall_ms=2000))[0].holder.held == held


def test_a_lease_that_a_stand_still_ended_does_not_come_back_with_a_shorter_one() -> None:
    short = Timings(heartbeat_ms=40, lease_ms=450, task_stop_timeout_ms=150, time_before_moving_to_rehab_ms=750)
    lease, _ = advance(follower(0, 100), view(), at(200, wall_ms=2000))
    lease = on_beat(lease, beat(own(210), timings=short), view(timings=short), at(220, wall_ms=2020))[0]
    assert (lease.holder.held, lease.holder.until_ns) == (True, 660 * MS)


def test_a_question_from_a_thread_sees_the_wall_clock_too_and_changes_nothing() -> None:
    lease = follower(0, 100)
    assert not has_lease(lease, TIMINGS, at(200, wall_ms=2000))
    assert has_lease(lease, TIMINGS, at(200))


def test_a_wall_clock_that_goes_back_or_drifts_slowly_is_forgiven() -> None:
    lease = follower(0, 100)
    wall_ms = 100
    for ms in range(200, 1700, 100):
        wall_ms += 150
        lease, _ = advance(lease, view(), at(ms, wall_ms))
    lease, _ = advance(lease, view(), at(1750, wall_ms=0))
    assert lease.holder.held


def test_the_lease_of_a_single_node_never_ends_whatever_the_wall_clock_says() -> None:
    alone = view("Leader", voters="A")
    lease, down = advance(node(), alone, at(0))
    assert down is None
    assert lease.holder.until_ns == FOREVER_NS
    lease, down = advance(lease, alone, at(10**9, wall_ms=10**12))
    assert (lease.holder.session, down) == (1, None)


@pytest.mark.parametrize("role", ["Candidate", "LeaderElect", "Leader"])
def test_the_session_of_a_single_voter_goes_on_through_its_own_terms(role: str) -> None:
    lease, _ = advance(node(), view("Leader", voters="A"), at(0))
    lease, down = advance(lease, view(role, term=2, voters="A"), at(10**6))
    assert (lease.holder.held, lease.holder.until_ns, lease.holder.session, down) == (True, FOREVER_NS, 1, None)


def test_whoever_leads_others_in_a_new_term_does_not_do_so_in_the_session_of_its_lease_without_end() -> None:
    lease, _ = advance(node(), view("Leader", voters="A"), at(0))
    lease, _ = advance(lease, view("Leader", term=2, voters="AB", votes={"B": 5 * MS}), at(10))
    assert (lease.holder.held, lease.holder.until_ns, lease.holder.session) == (True, 1805 * MS, 2)


def test_nothing_is_left_of_a_lease_without_end_once_others_vote() -> None:
    lease, _ = advance(node(), view("Leader", voters="A"), at(0))
    lease, down = advance(lease, view("Follower", voters="AB"), at(10))
    holder = LeaseHolder(boot=BOOT, nonce=NONCE, held=False, until_ns=0, session=1, wall_offset_ns=0)
    assert (lease, down) == (LeaseState(tag="A", holder=holder), None)
    lease, _ = advance(lease, view("Follower", voters="AB"), at(20, wall_ms=2000))
    stale = on_beat(lease, beat(own(19)), view(voters="AB"), at(30, wall_ms=2010))[0]
    assert not stale.holder.held, "a stand-still disowns older stamps again"


@pytest.mark.parametrize("role", ["Follower", "LeaderElect"])
def test_a_lease_without_end_does_not_survive_into_a_role_that_did_not_grant_it(role: str) -> None:
    lease, _ = advance(node(), view("Leader", voters="A"), at(0))
    lease, _ = advance(lease, view(role, term=2, voters="AB", votes={"B": 0}), at(10))
    assert not lease.holder.held


@given(data=st.data())
def test_a_lease_never_exceeds_the_newest_echoed_stamp_of_ones_own_by_more_than_l(data: st.DataObject) -> None:
    lease: LeaseState = new_lease("A", BOOT, NONCE)
    newest_ns, now_ms, sessions = None, 0, [0]
    for _ in range(data.draw(st.integers(1, 30))):
        now_ms += data.draw(st.integers(0, 2500))
        echo = data.draw(
            st.none() | st.builds(own, st.integers(0, now_ms + 50)) | st.builds(theirs, st.integers(0, 10**6))
        )
        term = data.draw(st.sampled_from([1, 1, 1, 2]))
        ahead_ms = data.draw(st.sampled_from([0, 0, 0, 1000]))
        lease, report, _ = on_beat(lease, beat(echo, term=term), view(), at(now_ms, now_ms + ahead_ms))
        mine = echo is not None and (echo.boot, echo.nonce) == (BOOT, NONCE) and echo.clock_ns <= now_ms * MS
        if mine and term == 1:
            assert echo is not None
            newest_ns = max(newest_ns or 0, echo.clock_ns)
        if lease.holder.held:
            assert newest_ns is not None
            assert now_ms * MS < lease.holder.until_ns <= newest_ns + 1800 * MS
        assert report.has_lease == lease.holder.held
        assert lease.holder.session - sessions[-1] in (0, 1)
        sessions.append(lease.holder.session)
