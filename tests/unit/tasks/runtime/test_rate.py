"""How fast a run is, by a clock that the test sets."""

import pytest

from tasks.runtime.rate import SAMPLE_S, WINDOW_S, Rate


class SteppedClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


def test_it_is_what_was_counted_within_the_window(clock: SteppedClock) -> None:
    rate = Rate(clock)
    assert rate.per_s(1000) == 0
    for second in range(1, 31):
        clock.now_s += 1
        rate.saw(1000 + 100 * second)
    assert rate.per_s(4000) == pytest.approx(100)
    clock.now_s += WINDOW_S
    assert rate.per_s(4000) == 0


def test_a_first_batch_does_not_look_infinitely_fast(clock: SteppedClock) -> None:
    rate = Rate(clock)
    rate.saw(0)
    assert rate.per_s(50) == 50 / SAMPLE_S


def test_a_task_that_begins_again_counts_from_there(clock: SteppedClock) -> None:
    rate = Rate(clock)
    rate.saw(5000)
    clock.now_s += 1
    rate.saw(10)
    clock.now_s += 1
    assert rate.per_s(30) == pytest.approx(20)
