"""A leader's authority, whom it echoes, and who counts as silent."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from immutables import Map

from raftnode.lease import (
    FOREVER_NS,
    Authority,
    Beat,
    Incarnation,
    LeaseState,
    PeerState,
    StepDown,
    advance,
    beats,
    is_over,
    is_silent,
    new_lease,
    on_beat,
    on_report,
    role_of,
    silent_tags,
)
from raftnode.lease.messages import void_wait_ns
from raftnode.record.model import Timings
from tests.unit.lease.world import (
    BOOT,
    MS,
    NONCE,
    TIMINGS,
    answered,
    at,
    beat,
    elected,
    node,
    own,
    report,
    started,
    theirs,
    view,
)

VOID_WAIT_MS = 4930
OTHERS = ("B", "C", "D", "E")
SHORT = Timings(heartbeat_ms=40, lease_ms=450, task_stop_timeout_ms=150, time_before_moving_to_rehab_ms=750)


def led(
    lease: LeaseState, ms: float, *args: object, role: str = "Leader", **given: object
) -> tuple[LeaseState, StepDown | None]:
    return advance(lease, view(role, **given), at(ms))  # type: ignore[arg-type]


def echo_to(lease: LeaseState, tag: str, ms: float, role: str = "Leader", **given: Any) -> object:
    return beats(lease, view(role, **given), at(ms))[tag].echo


def test_a_granted_vote_counts_as_the_echo_of_the_vote_request() -> None:
    lease = elected(now_ms=300, votes={"B": 100 * MS, "C": 50 * MS, "A": 0})
    assert lease.holder.until_ns == (50 + 1800) * MS
    assert role_of(lease, view("Leader")) == "Leader"


def test_a_leadership_begins_with_its_votes_and_nothing_else() -> None:
    formed = view("Leader", term=4, voters="ABC", votes={"A": 0, "B": 0}, applied_index=8, commit_index=9)
    voted = PeerState(silent_from_ns=4000 * MS, echo_ns=0)
    assert advance(node(), formed, at(0))[0].authority == Authority(
        tag="A",
        term=4,
        elected_ns=0,
        voters=frozenset("ABC"),
        applied_index=8,
        peers=Map({"B": voted, "C": PeerState(silent_from_ns=4000 * MS)}),
        members=frozenset("BC"),
        void_wait_ns=VOID_WAIT_MS * MS,
        silence_ns=4000 * MS,
        stalled_since_ns=0,
    )
    unformed = view("Leader", voters="AB", votes={"B": 0}, timings=None)
    assert advance(node(), unformed, at(0))[0].authority == Authority(
        tag="A",
        term=1,
        elected_ns=0,
        voters=frozenset("AB"),
        applied_index=10,
        peers=Map({"B": PeerState(silent_from_ns=0, echo_ns=0)}),
        members=frozenset("B"),
        void_wait_ns=0,
        silence_ns=0,
        stalled_since_ns=None,
    )


@pytest.mark.parametrize("role", ["Follower", "Candidate"])
def test_a_deposed_leader_has_no_authority_and_judges_nobody(role: str) -> None:
    lease = through(elected(), 0, 6000, "B", "C")
    assert silent_tags(lease, view("Leader"), at(6000)) == {"D", "E"}
    deposed, down = led(lease, 6000, role=role, term=2)
    assert (deposed.authority, down) == (None, None)
    assert silent_tags(deposed, view(role, term=2), at(6000)) == frozenset()
    assert not is_over(deposed, "D", Incarnation(1, 5), at(6000))
    assert beats(deposed, view(role, term=2), at(6000)) == {}
    assert deposed.holder == lease.holder, "its lease runs out by itself"


def test_a_vote_stamp_from_the_future_or_from_before_a_stand_still_does_not_count() -> None:
    _, down = advance(node(), view("Leader", votes={"B": 0, "C": 301 * MS}), at(300))
    assert down is not None
    lease, _ = advance(node(), view(), at(100))
    lease, _ = advance(lease, view(), at(200, wall_ms=5000))
    _, down = advance(lease, view("Leader", votes={"B": 199 * MS, "C": 199 * MS}), at(300, wall_ms=5100))
    assert down is not None


def test_an_older_echo_does_not_shorten_authority() -> None:
    lease = elected()
    for sent_ms, echo_ms in ((500, 400), (600, 300)):
        for tag in "BC":
            lease, _ = on_report(lease, tag, report(sent_ms, own(echo_ms)), view("Leader"), at(sent_ms))
    assert led(lease, 700)[0].holder.until_ns == 2200 * MS


def test_authority_is_what_a_majority_of_voters_echoed_plus_l() -> None:
    lease = elected()
    lease = answered(lease, 500, "D")
    assert led(lease, 600)[0].holder.until_ns == 1800 * MS, "A, D: no majority beyond the votes"
    lease = answered(lease, 700, "E")
    assert led(lease, 800)[0].holder.until_ns == 2300 * MS


def test_without_authority_the_leader_steps_down_and_sends_nothing() -> None:
    lease, down = led(elected(), 1800)
    assert down == StepDown(None, "no majority of voters has answered for the length of a lease")
    assert beats(lease, view("Leader"), at(1800)) == {}
    assert not lease.holder.held
    again, down = led(lease, 1900, votes={"B": 0, "C": 0})
    assert down is not None
    assert beats(again, view("Leader"), at(1900)) == {}


def test_a_leader_that_is_not_yet_established_has_no_lease_and_echoes_nobody() -> None:
    lease = elected(role="LeaderElect")
    assert not lease.holder.held
    assert role_of(lease, view("LeaderElect")) == "Candidate"
    lease = answered(lease, 100, *OTHERS, role="LeaderElect")
    assert echo_to(lease, "B", 110, "LeaderElect") is None
    lease, _ = led(lease, 120)
    assert echo_to(lease, "B", 120) == theirs(100)
    assert lease.holder.until_ns == 1900 * MS


def test_one_node_of_two_keeps_its_authority_only_while_it_hears_the_other() -> None:
    lease = elected(voters="AB", votes={"B": 0})
    lease = answered(lease, 100, "B", voters="AB", peers=frozenset("B"))
    assert led(lease, 1899, voters="AB")[1] is None
    assert led(lease, 1900, voters="AB")[1] is not None


def test_a_second_voter_ends_the_lease_without_end_but_not_the_session() -> None:
    lease, _ = advance(node(), view("Leader", voters="A"), at(0))
    lease, down = led(lease, 5000, voters="AB")
    assert down is None
    assert (lease.holder.until_ns, lease.holder.session) == ((5000 + 1800) * MS, 1)
    assert led(lease, 6800, voters="AB")[1] is not None


def test_a_watcher_that_becomes_the_second_voter_counts_as_heard_too() -> None:
    lease, _ = advance(node(), view("Leader", voters="A", peers=frozenset("B")), at(0))
    lease, down = led(lease, 5000, voters="AB")
    assert (lease.holder.until_ns, down) == (6800 * MS, None)


def test_a_leader_outside_the_voters_needs_a_majority_without_itself() -> None:
    _, down = advance(node(), view("Leader", voters="BC", votes={"B": 0}), at(0))
    assert down is not None
    _, down = advance(node(), view("Leader", voters="", votes={}), at(0))
    assert down is not None


def test_a_watchers_answer_gives_no_authority() -> None:
    lease = elected(peers=frozenset("BCDEW"))
    lease = answered(lease, 1000, "W", "B", peers=frozenset("BCDEW"))
    assert led(lease, 1100, peers=frozenset("BCDEW"))[0].holder.until_ns == 1800 * MS
    assert led(lease, 1800, peers=frozenset("BCDEW"))[1] is not None


@pytest.mark.parametrize(
    ("name", "echo"),
    [
        ("another process", theirs(500)),
        ("a stamp not yet taken", own(501)),
        ("none", None),
    ],
)
def test_an_echo_that_is_not_the_leaders_own_gives_no_authority(name: str, echo: object) -> None:
    lease = elected()
    for tag in OTHERS:
        lease, _ = on_report(lease, tag, report(500, echo), view("Leader"), at(500))  # type: ignore[arg-type]
    assert led(lease, 1800)[1] is not None, name


def test_a_higher_term_in_a_report_ends_the_leadership() -> None:
    lease, down = on_report(elected(), "B", report(10, term=4), view("Leader"), at(10))
    assert down is not None
    assert down.term == 4
    assert beats(lease, view("Leader"), at(10)) == {}


def test_a_report_of_a_lower_term_or_of_a_stranger_or_to_a_follower_counts_for_nothing() -> None:
    lease = elected(term=2)
    for tag, term in (("B", 1), ("X", 2)):
        after, down = on_report(lease, tag, report(10, own(10), term=term), view("Leader", term=2), at(10))
        assert down is None
        assert after.authority == lease.authority
    after, down = on_report(node(), "B", report(10), view(), at(10))
    assert (after.authority, down) == (None, None)


def test_a_beat_of_an_older_leader_does_not_disturb_this_one() -> None:
    lease, answer, down = on_beat(elected(term=3), beat(None, term=2), view("Leader", term=3), at(10))
    assert (answer.term, answer.echo, down) == (3, None, None)
    assert lease.authority is not None


def test_a_leader_whose_own_apply_stands_still_for_longer_than_l_steps_down() -> None:
    lease = elected()
    for ms in range(0, 1900, 100):
        lease = answered(lease, ms, *OTHERS, commit_index=11, leader_applied=10)
        lease, down = led(lease, ms, commit_index=11)
        assert down is None
    _, down = led(lease, 1801, commit_index=11)
    assert down == StepDown(None, "this node has applied nothing for the length of a lease")
    assert led(lease, 1801, commit_index=12, applied_index=11)[1] is None, "it goes on applying"
    assert led(lease, 1801)[1] is None, "there is nothing to apply"


def test_a_stand_still_of_the_machine_costs_the_leader_its_authority() -> None:
    lease = answered(elected(), 100, *OTHERS)
    lease, down = advance(lease, view("Leader"), at(200, wall_ms=1000))
    assert down is not None
    assert not lease.holder.held


def test_a_new_term_is_a_new_leadership() -> None:
    lease, down = led(elected(), 1000, term=3, votes={"D": 900 * MS, "E": 900 * MS})
    assert down is None
    assert lease.authority is not None
    assert lease.authority.elected_ns == 1000 * MS
    assert lease.holder.until_ns == 2700 * MS


def test_before_the_cluster_is_formed_a_missing_lease_is_held_against_nobody() -> None:
    lease, _ = advance(node(), view("Leader", timings=None, votes={"B": 0, "C": 0}), at(0))
    lease = through(lease, 0, 9000, *OTHERS, timings=None, has_lease=False)
    assert echo_to(lease, "B", 9000, timings=None) == theirs(9000)


def test_before_the_cluster_is_formed_a_leader_gathers_answers_and_judges_nothing() -> None:
    lease, down = advance(node(), view("Leader", timings=None, votes={"B": 0, "C": 0}), at(0))
    lease = answered(lease, 9000, *OTHERS, timings=None)
    assert beats(lease, view("Leader", timings=None), at(9000))["B"].timings is None
    assert (lease.holder.held, down) == (False, None)
    lease, down = led(lease, 9100)
    assert (lease.holder.until_ns, down) == (10_800 * MS, None)


# ---- silence and echo


def through(lease: LeaseState, first_ms: int, last_ms: int, *tags: str, **given: Any) -> LeaseState:
    """The leader with answers of those nodes every 200 ms."""
    for ms in range(first_ms, last_ms + 1, 200):
        lease = answered(lease, ms, *tags, **given)
    return lease


def test_the_wait_after_an_election_is_two_leases_and_a_stop_with_drift_and_margin() -> None:
    assert void_wait_ns(TIMINGS) == VOID_WAIT_MS * MS


def test_nobody_is_silent_before_the_wait_after_the_election_is_over() -> None:
    lease = through(elected(), 0, 5000, "B", "C")
    assert silent_tags(lease, view("Leader"), at(VOID_WAIT_MS - 1)) == frozenset()
    assert silent_tags(lease, view("Leader"), at(VOID_WAIT_MS)) == {"D", "E"}


def test_shorter_timings_do_not_shorten_the_wait_after_the_election() -> None:
    """A leader of before granted by the longer ones."""
    lease = through(elected(), 0, 1000, *OTHERS)
    lease, _ = led(lease, 1100, timings=SHORT)
    assert not is_silent(lease, "X", at(VOID_WAIT_MS - 1))
    assert is_silent(lease, "X", at(VOID_WAIT_MS))


def test_silence_counts_from_the_newest_accepted_stamp() -> None:
    lease = through(elected(), 0, 6000, *OTHERS)
    lease = through(lease, 6200, 10_000, "B", "C", "D")
    assert not is_silent(lease, "E", at(9999))
    assert is_silent(lease, "E", at(10_000))
    assert silent_tags(lease, view("Leader"), at(10_000)) == {"E"}


def test_a_long_r_is_waited_for_after_an_election_too() -> None:
    timings = Timings(heartbeat_ms=200, lease_ms=1800, task_stop_timeout_ms=1000, time_before_moving_to_rehab_ms=60_000)
    lease = elected(timings=timings)
    assert not is_silent(lease, "E", at(59_999))
    assert is_silent(lease, "E", at(60_000))
    assert is_silent(lease, "X", at(60_000)), "a node this leader never met"
    assert not is_silent(lease, "X", at(59_999))


def test_a_node_that_does_not_lead_knows_nothing_of_silence() -> None:
    assert not is_silent(node(), "B", at(10**9))
    assert silent_tags(node(), view(), at(10**9)) == frozenset()
    assert not is_silent(elected(), "A", at(10**6)), "nor is a leader silent to itself"


def test_a_node_that_joins_late_has_r_to_be_heard() -> None:
    lease = through(elected(), 0, 9000, "B", "C", "D", "E")
    lease = answered(lease, 9000, "B", peers=frozenset("BCDEF"))
    assert not is_silent(lease, "F", at(12_999))
    assert is_silent(lease, "F", at(13_000))


def test_a_removed_node_falls_silent_although_it_is_in_no_group() -> None:
    lease = through(elected(), 0, 6000, *OTHERS)
    four = frozenset("BCD")
    lease = through(lease, 6200, 9800, "B", "C", "D", peers=four, voters=frozenset("ABCD"))
    lease, _ = on_report(lease, "E", report(9000), view("Leader", voters="ABCD"), at(9000))
    assert "E" not in beats(lease, view("Leader", voters="ABCD"), at(9000))
    assert not is_silent(lease, "E", at(9999))
    assert "E" in silent_tags(lease, view("Leader", voters="ABCD"), at(10_000))


def test_a_tag_that_leaves_and_joins_again_with_a_new_disk_is_heard_at_once() -> None:
    lease = through(elected(), 0, 6000, *OTHERS)
    lease = answered(lease, 6200, "E", stamp=theirs(6200, boot=9), incarnations=started(E=(9, 5)))
    lease, _ = led(lease, 6300, voters="ABCD")
    lease, _ = led(lease, 6400)
    assert echo_to(lease, "E", 6400, incarnations=started(E=(0, 0))) is None
    new = started(E=(1, 8))
    after = answered(lease, 6500, "E", stamp=theirs(1, boot=1, nonce=8), incarnations=new)
    assert echo_to(after, "E", 6500, incarnations=new) == theirs(1, boot=1, nonce=8)
    assert not is_over(after, "E", Incarnation(9, 5), at(10_199)), "the former one's lease is remembered"
    assert is_over(after, "E", Incarnation(9, 5), at(10_200))


def test_what_a_tag_echoed_before_it_left_gives_no_authority_and_its_silence_begins_anew() -> None:
    lease = through(elected(), 0, 6000, *OTHERS)
    lease, _ = led(lease, 6_100, voters="ABC")
    lease, _ = led(lease, 6_200)
    assert lease.authority is not None
    assert [lease.authority.peers[tag].echo_ns is None for tag in OTHERS] == [False, False, True, True]
    assert not is_silent(lease, "E", at(10_199))
    assert is_silent(lease, "E", at(10_200))


def test_shorter_timings_do_not_cut_short_what_longer_ones_granted() -> None:
    lease = through(elected(), 0, 6000, *OTHERS)
    lease, _ = led(lease, 6001, timings=SHORT)
    lease = answered(lease, 6002, "E", timings=SHORT)
    assert not is_silent(lease, "E", at(10_001))
    assert is_silent(lease, "E", at(10_002))


def test_an_old_or_repeated_report_changes_nothing() -> None:
    lease = answered(elected(), 500, "B")
    for sent in (500, 400):
        after, _ = on_report(lease, "B", report(sent, own(600)), view("Leader"), at(700))
        assert after.authority == lease.authority


def test_of_a_node_only_the_process_that_the_record_has_is_echoed() -> None:
    second = started(B=(2, 6))
    lease = answered(elected(), 500, "B", stamp=theirs(500, boot=2, nonce=6), incarnations=second)
    assert echo_to(lease, "B", 500, incarnations=second) == theirs(500, boot=2, nonce=6)
    for stamp in (theirs(900, boot=1), theirs(900, boot=2, nonce=9)):
        said = report(0, own(900), stamp=stamp)
        after, _ = on_report(lease, "B", said, view("Leader", incarnations=second), at(1000))
        assert after.authority == lease.authority, "an earlier start and a copy are not heard at all"
    third, later = started(B=(3, 7)), theirs(1, boot=3, nonce=7)
    after, _ = on_report(lease, "B", report(0, stamp=later), view("Leader", incarnations=second), at(1000))
    assert echo_to(after, "B", 1000, incarnations=second) == theirs(500, boot=2, nonce=6), "it has not announced itself"
    assert echo_to(after, "B", 1000, incarnations=third) is None, "the former one has been gone past"
    after, _ = on_report(after, "B", report(0, stamp=later), view("Leader", incarnations=third), at(1000))
    assert echo_to(after, "B", 1000, incarnations=third) == later


def test_a_node_that_the_record_does_not_have_counts_as_a_voter_from_its_first_start_on() -> None:
    lease = elected()
    for tag in OTHERS:
        lease, _ = on_report(lease, tag, report(900, own(900)), view("Leader", incarnations={}), at(1000))
    assert led(lease, 1000)[0].holder.until_ns == 2700 * MS


def test_a_node_that_this_leader_has_not_met_is_echoed_nothing() -> None:
    seven = view("Leader", peers=frozenset("BCDEF"))
    assert beats(elected(), seven, at(10))["F"] == Beat(term=1, stamp=own(10), echo=None, timings=TIMINGS)


def test_a_node_that_was_started_again_counts_as_a_voter_before_it_has_announced_itself() -> None:
    """Or nobody could lead for long after all were started again: an announcement needs a leader."""
    lease = through(elected(), 0, 800, *OTHERS)
    for tag in OTHERS:
        lease, _ = on_report(lease, tag, report(0, own(900), stamp=theirs(1, boot=2)), view("Leader"), at(1000))
    assert led(lease, 1000)[0].holder.until_ns == 2700 * MS
    assert echo_to(lease, "B", 1000) == theirs(800)


def test_what_the_former_process_of_a_voter_echoed_counts_on() -> None:
    lease = through(elected(), 0, 1000, "B", "C")
    said, new = report(0, stamp=theirs(1, boot=2, nonce=6)), view("Leader", incarnations=started(B=(2, 6)))
    lease, _ = on_report(lease, "B", said, new, at(1100))
    assert led(lease, 1200)[0].holder.until_ns == 2800 * MS


def test_a_voter_that_is_no_peer_has_echoed_nothing() -> None:
    known = view("Leader", voters="ABC", peers=frozenset("B"), votes={"B": 0})
    lease, down = advance(node(), known, at(10))
    assert (lease.holder.until_ns, down) == (1800 * MS, None)


def test_each_process_of_a_node_is_silent_for_itself() -> None:
    first, second = Incarnation(1, 5), Incarnation(2, 6)
    lease = through(elected(), 0, 6000, *OTHERS)
    new = started(E=second)
    for ms in range(6200, 12_001, 200):
        lease = answered(lease, ms, "B", "C", "D", incarnations=new)
        lease = answered(lease, ms, "E", stamp=theirs(ms, boot=2, nonce=6), incarnations=new)
        assert not is_silent(lease, "E", at(ms))
        assert not is_over(lease, "E", second, at(ms))
        assert is_over(lease, "E", first, at(ms)) == (ms >= 10_000), "R after it was last heard"
    assert is_over(lease, "E", Incarnation(1, 99), at(12_000)), "a process that this leader never heard"
    assert not is_over(node(), "E", first, at(12_000)), "a node that does not lead knows nothing"


def test_no_process_is_over_before_the_wait_after_the_election_is() -> None:
    """It may have a lease of an earlier leader, of which this one has heard nothing."""
    lease = through(elected(), 0, 200, *OTHERS)
    lease = through(lease, 400, 5000, "B", "C", "D")
    assert lease.authority is not None
    assert lease.authority.peers["E"].leases_until_ns[Incarnation(1, 5)] < (VOID_WAIT_MS - 1) * MS
    assert not is_over(lease, "E", Incarnation(1, 5), at(VOID_WAIT_MS - 1))
    assert is_over(lease, "E", Incarnation(1, 5), at(VOID_WAIT_MS))


def test_a_node_that_is_started_again_and_again_delays_the_end_of_no_former_process() -> None:
    lease = through(elected(), 0, 6000, *OTHERS)
    for boot, ms in enumerate(range(6200, 12_001, 1000), start=2):
        new = started(E=(boot, boot))
        lease = answered(lease, ms, "E", stamp=theirs(ms, boot=boot, nonce=boot), incarnations=new)
        lease = through(lease, ms, ms + 800, "B", "C", "D", incarnations=new)
    assert is_over(lease, "E", Incarnation(1, 5), at(10_000))
    assert lease.authority is not None
    known = lease.authority.peers["E"].leases_until_ns
    assert set(known) == {Incarnation(boot, boot) for boot in range(4, 8)}, "those that have passed are forgotten"


def test_what_was_before_this_process_on_its_own_node_is_over_after_the_wait_and_the_leader_itself_never() -> None:
    lease = through(elected(), 0, 6000, *OTHERS)
    former = Incarnation(BOOT - 1, 1)
    assert not is_over(lease, "A", former, at(VOID_WAIT_MS - 1))
    assert is_over(lease, "A", former, at(VOID_WAIT_MS))
    assert not is_over(lease, "A", Incarnation(BOOT, NONCE), at(10**6))
    assert is_over(lease, "E", Incarnation(BOOT, NONCE), at(10**6)), "the same numbers on another node"


def test_how_far_a_former_process_had_come_says_nothing_of_the_next() -> None:
    lease = through(elected(), 0, 3000, *OTHERS, commit_index=11)
    new, later = started(B=(2, 6)), theirs(1, boot=2, nonce=6)
    assert echo_to(lease, "B", 3000) == theirs(1800), "it applies nothing"
    lease = answered(lease, 3200, "B", commit_index=11, stamp=later, incarnations=new)
    assert echo_to(lease, "B", 3200, incarnations=new) == later


def test_a_node_that_is_heard_but_applies_nothing_is_echoed_no_longer_and_falls_silent() -> None:
    lease = through(elected(), 0, 6000, *OTHERS)
    lease = through(lease, 6200, 8000, *OTHERS, commit_index=11)
    assert echo_to(lease, "B", 8000) == theirs(8000), "behind for no longer than L"
    lease = through(lease, 8200, 12_000, *OTHERS, commit_index=11)
    assert echo_to(lease, "B", 12_000) == theirs(8000)
    assert is_silent(lease, "B", at(12_000))
    lease = answered(lease, 12_200, "B", commit_index=20, applied_index=11)
    assert echo_to(lease, "B", 12_200) == theirs(12_200), "it applies again"
    assert not is_silent(lease, "B", at(12_200))


def test_a_node_that_is_behind_but_goes_on_applying_is_echoed() -> None:
    lease = elected()
    for turn in range(40):
        lease = answered(lease, turn * 200, *OTHERS, commit_index=1000, applied_index=10 + turn)
        lease, _ = led(lease, turn * 200, commit_index=10 + turn, applied_index=10 + turn)
    assert echo_to(lease, "B", 8000) == theirs(39 * 200)


def test_a_node_that_takes_no_lease_for_r_falls_silent_and_gets_another_chance_later() -> None:
    lease = through(elected(), 0, 3800, *OTHERS, has_lease=False)
    assert echo_to(lease, "B", 3800) == theirs(3800)
    lease = through(lease, 4000, 7800, *OTHERS, has_lease=False)
    assert echo_to(lease, "B", 7800) == theirs(3800)
    assert is_silent(lease, "B", at(7800))
    lease = through(lease, 8000, 11_600, *OTHERS, has_lease=False)
    assert is_silent(lease, "B", at(11_600)), "it has been silent for as long as a void may take"
    lease = answered(lease, 11_800, "B", has_lease=False)
    assert echo_to(lease, "B", 11_800) == theirs(11_800)
    lease = answered(lease, 12_000, "B", has_lease=False)
    assert echo_to(lease, "B", 12_000) == theirs(12_000), "the chance lasts for R"
    lease = answered(lease, 12_200, "B", has_lease=True)
    assert not is_silent(lease, "B", at(16_199))


def test_r_without_a_lease_counts_from_the_first_report_that_says_so() -> None:
    lease = through(elected(), 0, 1000, *OTHERS)
    lease = through(lease, 1200, 5000, *OTHERS, has_lease=False)
    assert echo_to(lease, "B", 5000) == theirs(5000)
    lease = answered(lease, 5200, "B", has_lease=False)
    assert echo_to(lease, "B", 5200) == theirs(5000)


def test_a_leader_that_is_not_yet_established_does_not_hold_a_missing_lease_against_a_node() -> None:
    lease = elected(role="LeaderElect")
    lease = through(lease, 0, 6000, *OTHERS, role="LeaderElect", has_lease=False)
    lease = answered(lease, 6200, "B", has_lease=False)
    assert echo_to(lease, "B", 6200) == theirs(6200)


def test_a_report_of_a_node_whose_raft_knows_an_older_commit_still_breaks_its_silence() -> None:
    lease = answered(elected(), 100, "B", commit_index=500)
    assert echo_to(lease, "B", 100) == theirs(100)


@given(data=st.data())
def test_authority_only_grows_in_one_term_and_never_past_the_majoritys_newest_echo(data: st.DataObject) -> None:
    lease, now_ms, before_ns = elected(), 0, 0
    newest = {"A": 0, "B": 0, "C": 0, "D": -(10**9), "E": -(10**9)}
    for _ in range(data.draw(st.integers(1, 40))):
        now_ms += data.draw(st.integers(0, 400))
        tag = data.draw(st.sampled_from(OTHERS))
        sent_ms = data.draw(st.integers(max(0, now_ms - 1000), now_ms))
        assert lease.authority is not None
        # A second report with one stamp is a repeat, which counts for nothing.
        fresh = lease.authority.peers[tag].stamp != theirs(now_ms)
        lease, down = on_report(lease, tag, report(now_ms, own(sent_ms)), view("Leader"), at(now_ms))
        if (
            fresh
            and down is None
            and lease.authority is not None
            and lease.authority.peers[tag].stamp == theirs(now_ms)
        ):
            newest[tag] = max(newest[tag], sent_ms)
        newest["A"] = now_ms
        lease, down = led(lease, now_ms)
        allowed_ns = (sorted(newest.values())[2] + 1800) * MS
        if down is not None:
            assert allowed_ns <= now_ms * MS
            return
        assert before_ns <= lease.holder.until_ns <= allowed_ns
        before_ns = lease.holder.until_ns


@given(
    ms=st.integers(-(10**6), 10**6),
    role=st.sampled_from(["Follower", "Candidate", "LeaderElect", "Leader"]),
    term=st.integers(0, 3),
    echo=st.none() | st.builds(own, st.integers(-(10**6), 10**6)),
    voters=st.frozensets(st.sampled_from("ABCX")),
    applied=st.integers(0, 20),
)
def test_the_lease_is_total(ms: int, role: str, term: int, echo: object, voters: frozenset[str], applied: int) -> None:
    seen = view(role, term=term, voters=voters, applied_index=applied)
    lease = new_lease("A", BOOT, NONCE)
    lease, _, _ = on_beat(lease, Beat(term=1, stamp=theirs(1), echo=echo, timings=TIMINGS), seen, at(ms))  # type: ignore[arg-type]
    for tag in "BX":
        lease, _ = on_report(lease, tag, report(ms, echo, applied_index=applied), seen, at(ms))  # type: ignore[arg-type]
    assert set(beats(lease, seen, at(ms))) <= seen.peers
    assert role_of(lease, seen) in ("Candidate", "Follower", "LeaderElect", "Leader")
    if lease.holder.held and voters != {"A"}:
        assert lease.holder.until_ns < FOREVER_NS


def test_a_nonce_tells_two_processes_of_one_start_apart() -> None:
    other = new_lease("A", BOOT, NONCE + 1)
    assert not on_beat(other, beat(own(0)), view(), at(10))[0].holder.held
