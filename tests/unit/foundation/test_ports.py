"""The real clock, against clocks that a suspend and a slew have bent."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.foundation.ports import Clock, Random, SystemClock, SystemRandom


class MachineClocks:
    """The two clocks of a machine, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = {time.CLOCK_BOOTTIME: 10**15, time.CLOCK_MONOTONIC_RAW: 10**12}
        monkeypatch.setattr(time, "clock_gettime_ns", self.now.__getitem__)

    def go(self, boottime_ns: int, raw_ns: int) -> None:
        self.now[time.CLOCK_BOOTTIME] += boottime_ns
        self.now[time.CLOCK_MONOTONIC_RAW] += raw_ns


def test_both_readings_start_together_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    MachineClocks(monkeypatch)
    clock = SystemClock()
    assert (clock.elapsed_upper_ns(), clock.elapsed_lower_ns()) == (0, 0)


def test_a_suspend_counts_for_the_holder_and_not_for_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = MachineClocks(monkeypatch)
    clock = SystemClock()
    machine.go(boottime_ns=3_600_000_000_000, raw_ns=5)
    assert clock.elapsed_upper_ns() == 3_600_000_000_000
    assert clock.elapsed_lower_ns() == 5


def test_a_slew_after_a_suspend_still_counts_for_the_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = MachineClocks(monkeypatch)
    clock = SystemClock()
    machine.go(boottime_ns=1_000_000, raw_ns=0)
    before = clock.elapsed_upper_ns()
    machine.go(boottime_ns=990, raw_ns=1_000)
    assert clock.elapsed_upper_ns() - before == 1_000


@given(steps=st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12))))
def test_over_every_span_the_holder_counts_the_most_and_the_judge_the_least(
    steps: list[tuple[int, int]],
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        machine = MachineClocks(monkeypatch)
        clock = SystemClock()
        elapsed_upper_ns, elapsed_lower_ns = clock.elapsed_upper_ns(), clock.elapsed_lower_ns()
        for boottime_ns, raw_ns in steps:
            machine.go(boottime_ns, raw_ns)
            elapsed_upper_ns, hold_before_ns = clock.elapsed_upper_ns(), elapsed_upper_ns
            elapsed_lower_ns, judge_before_ns = clock.elapsed_lower_ns(), elapsed_lower_ns
            assert elapsed_upper_ns - hold_before_ns >= max(boottime_ns, raw_ns)
            assert 0 <= elapsed_lower_ns - judge_before_ns <= min(boottime_ns, raw_ns)


def test_the_real_ones_satisfy_the_protocols() -> None:
    clock: Clock = SystemClock()
    chance: Random = SystemRandom()
    assert clock.elapsed_upper_ns() <= clock.elapsed_upper_ns()
    assert clock.elapsed_lower_ns() <= clock.elapsed_lower_ns()
    assert abs(clock.wall_ms() - time.time() * 1000) < 60_000
    assert 0 <= chance.random() < 1
