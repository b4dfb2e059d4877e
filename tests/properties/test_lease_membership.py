"""Nodes that join, leave and join again under one tag: the newcomer is heard, and the former one's silence stays."""

from hypothesis import given
from hypothesis import strategies as st

from raftnode.lease import Incarnation, Report, advance, beats, is_over, is_silent, on_report
from tests.unit.lease.world import TIMINGS, at, elected, own, started, theirs, view

STEP_MS = 300
R_MS = TIMINGS.time_before_moving_to_rehab_ms
BOOTS = st.integers(1, 5)
STEPS = st.lists(st.one_of(st.just("leave"), st.just("join"), BOOTS), max_size=25)


@given(STEPS)
def test_the_incarnation_of_the_record_is_echoed_and_silence_is_never_shortened(steps: list[object]) -> None:
    """A number is a report of node E's start of that number, which has announced itself if none later has; the leader
    hears B, C and D all along."""
    lease, here, newest, now_ms = elected(), True, 0, 0
    echoed_ms: dict[int, int] = {}
    for step in steps:
        now_ms += STEP_MS
        here = (here or step == "join") and step != "leave"
        newest = 0 if not here else max(newest, step) if isinstance(step, int) else newest
        seen = view("Leader", voters="ABCDE" if here else "ABCD", incarnations=started(E=(newest, newest)))
        lease, _ = advance(lease, seen, at(now_ms))
        for tag in "BCD":
            heard = Report(term=1, stamp=theirs(now_ms), echo=own(now_ms), has_lease=True, applied_index=10)
            lease, down = on_report(lease, tag, heard, seen, at(now_ms))
            assert down is None
        if isinstance(step, int):
            stamp = theirs(now_ms, boot=step, nonce=step)
            said = Report(term=1, stamp=stamp, echo=None, has_lease=True, applied_index=10)
            lease, _ = on_report(lease, "E", said, seen, at(now_ms))
            if here and step == newest:
                echoed_ms[step] = now_ms
                assert beats(lease, seen, at(now_ms))["E"].echo == stamp
        if here:
            echo = beats(lease, seen, at(now_ms))["E"].echo
            assert echo is None or echo.incarnation == (newest, newest)
            assert newest or echo is None
        for boot, ms in echoed_ms.items():
            assert not is_over(lease, "E", Incarnation(boot, boot), at(ms + R_MS - 1))
        if echoed_ms:
            assert not is_silent(lease, "E", at(max(echoed_ms.values()) + R_MS - 1))
