"""Waits grow with each failure up to a limit, and are spread when there is chance."""

from random import Random

from raftnode.foundation.backoff import backoff


def test_each_failure_doubles_the_wait_up_to_the_longest() -> None:
    assert [backoff(failures, 50, 500) for failures in range(1, 7)] == [50, 100, 200, 400, 500, 500]


def test_very_many_failures_are_no_trouble() -> None:
    assert backoff(10**9, 0.05, 2.0) == 2.0


def test_with_chance_it_is_between_half_and_all_of_that() -> None:
    random = Random(1)
    waits = [backoff(3, 50, 500, random) for _ in range(1000)]
    assert 100 <= min(waits) < 105
    assert 195 < max(waits) <= 200
