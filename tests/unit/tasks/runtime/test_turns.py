"""Turns never run within each other, and none that was asked for is left out."""

import asyncio

import pytest

from tasks.runtime.turns import Turns


class Counted:
    """Each turn does one of `work`, which may ask for more."""

    def __init__(self, left: int = 0) -> None:
        self.left, self.depth, self.done = left, 0, 0
        self.asks_again = 0
        self.turns = Turns(self.turn, lambda: self.left > 0)

    def turn(self) -> None:
        assert self.depth == 0, "a turn within a turn"
        self.depth += 1
        self.done += 1
        self.left = max(0, self.left - 1)
        if self.asks_again:
            self.asks_again -= 1
            self.turns.now()
        self.depth -= 1


def test_who_asks_within_a_turn_has_another_one_afterwards() -> None:
    counted = Counted()
    counted.asks_again = 2
    counted.turns.now()
    assert counted.done == 3


async def test_what_is_left_waits_until_the_loop_has_had_a_turn() -> None:
    counted = Counted(left=3)
    counted.turns.now()
    assert counted.done == 1
    await asyncio.sleep(0)
    assert counted.done == 2
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (counted.done, counted.left) == (3, 0)


async def test_many_who_ask_for_a_turn_soon_have_one() -> None:
    counted = Counted()
    for _ in range(5):
        counted.turns.soon()
    assert counted.done == 0
    await asyncio.sleep(0)
    assert counted.done == 1
    counted.turns.soon()
    await asyncio.sleep(0)
    assert counted.done == 2


async def test_a_turn_that_fails_does_not_stop_the_next() -> None:
    failing = [True]

    def turn() -> None:
        if failing[0]:
            raise RuntimeError("no")
        done.append(1)

    done: list[int] = []
    turns = Turns(turn, lambda: False)
    with pytest.raises(RuntimeError):
        turns.now()
    failing[0] = False
    turns.now()
    assert done == [1]
