"""The real clock, against clocks that a suspend and a slew have bent."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.foundation.ports import Clock, Random, SystemClock, SystemRandom


class Machine:
    """The two clocks of a machine, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = {time.CLOCK_BOOTTIME: 10**15, time.CLOCK_MONOTONIC_RAW: 10**12}
        monkeypatch.setattr(time, "clock_gettime_ns", self.now.__getitem__)

    def go(self, boottime_ns: int, raw_ns: int) -> None:
        self.now[time.CLOCK_BOOTTIME] += boottime_ns
        self.now[time.CLOCK_MONOTONIC_RAW] += raw_ns


def test_both_readings_start_together_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch)
    clock = SystemClock()
    assert (clock.hold_ns(), clock.judge_ns()) == (0, 0)


def test_a_suspend_counts_for_the_holder_and_not_for_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    clock = SystemClock()
    machine.go(boottime_ns=3_600_000_000_000, raw_ns=5)
    assert clock.hold_ns() == 3_600_000_000_000
    assert clock.judge_ns() == 5


def test_a_slew_after_a_suspend_still_counts_for_the_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    clock = SystemClock()
    machine.go(boottime_ns=1_000_000, raw_ns=0)
    before = clock.hold_ns()
    machine.go(boottime_ns=990, raw_ns=1_000)
    assert clock.hold_ns() - before == 1_000


@given(steps=st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12))))
def test_over_every_span_the_holder_counts_the_most_and_the_judge_the_least(
    steps: list[tuple[int, int]],
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        machine = Machine(monkeypatch)
        clock = SystemClock()
        hold_ns, judge_ns = clock.hold_ns(), clock.judge_ns()
        for boottime_ns, raw_ns in steps:
            machine.go(boottime_ns, raw_ns)
            hold_ns, hold_before_ns = clock.hold_ns(), hold_ns
            judge_ns, judge_before_ns = clock.judge_ns(), judge_ns
            assert hold_ns - hold_before_ns >= max(boottime_ns, raw_ns)
            assert 0 <= judge_ns - judge_before_ns <= min(boottime_ns, raw_ns)


def test_the_real_ones_satisfy_the_protocols() -> None:
    clock: Clock = SystemClock()
    chance: Random = SystemRandom()
    assert clock.hold_ns() <= clock.hold_ns()
    assert clock.judge_ns() <= clock.judge_ns()
    assert abs(clock.wall_ms() - time.time() * 1000) < 60_000
    assert 0 <= chance.random() < 1
