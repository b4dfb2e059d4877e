"""What refers to itself and is needed no more goes, however long it has lived, without a look at all of the memory."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from raftnode.foundation import garbage_collection
from raftnode.foundation.garbage_collection import GarbageCollector


class Circle:
    """Refers to itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.disable()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)
    gc.enable()
    gc.collect()


def grown_old(count: int) -> list[Circle]:
    """Objects that have outlived the collections of the young."""
    circles = [Circle() for _ in range(count)]
    gc.collect(0)
    gc.collect(1)
    return circles


def test_garbage_that_has_become_old_goes_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_collection, "OLD_MIN", 100)
    kept = GarbageCollector(lambda: None)
    kept.collect_all()
    circles = grown_old(200)
    gone = weakref.ref(circles[0])
    del circles
    gc.collect(1)
    assert gone() is not None, "the young are looked at, and it is old"
    kept.collect_old()
    assert gone() is None
    assert len(gc.get_objects(generation=2)) < 100


def test_little_that_is_old_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_collection, "OLD_MIN", 1_000_000)
    kept = GarbageCollector(lambda: None)
    kept.collect_all()
    gone = weakref.ref(grown_old(1)[0])
    kept.collect_old()
    assert gone() is not None


def test_what_lives_on_is_frozen_and_not_visited_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_collection, "OLD_MIN", 100)
    kept = GarbageCollector(lambda: None)
    kept.collect_all()
    before = gc.get_freeze_count()
    circles = grown_old(200)
    kept.collect_old()
    assert gc.get_freeze_count() >= before + 200
    assert kept.frozen >= gc.get_freeze_count()
    assert gc.get_objects(generation=2) == []
    gone = weakref.ref(circles[0])
    del circles
    kept.collect_old()
    assert gone() is not None, "frozen"
    kept.collect_all()
    assert gone() is None


def test_much_that_comes_at_once_is_frozen_without_a_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_collection, "OLD_MIN", 100)
    monkeypatch.setattr(garbage_collection, "COLLECTED_MAX", 150)
    kept = GarbageCollector(lambda: None)
    kept.collect_all()
    gone = weakref.ref(grown_old(200)[0])
    kept.collect_old()
    assert gone() is not None
    assert gc.get_objects(generation=2) == []


async def test_all_is_collected_once_much_was_frozen_just_after_a_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_collection, "PERIOD_S", 0.01)
    monkeypatch.setattr(garbage_collection, "OLD_MIN", 100)
    monkeypatch.setattr(garbage_collection, "GROWTH_MIN", 100)
    left = iter([900, 700, 500])
    asked: list[int] = []

    def lease_left_ms() -> int:
        asked.append(next(left, 1000))
        return asked[-1]

    kept = GarbageCollector(lease_left_ms)
    running = asyncio.create_task(kept.run())
    try:
        await asyncio.sleep(0)
        circles = grown_old(200)
        async with asyncio.timeout(20):
            while gc.get_objects(generation=2):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            gone = weakref.ref(circles[0])
            del circles
            assert asked == [], "it has not doubled"
            kept.full_at = 0
            while gone() is not None:  # noqa: ASYNC110 (the collector tells nobody)
                await asyncio.sleep(0.01)
        assert asked[:4] == [900, 700, 500, 1000]
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_collecting_what_is_old_does_not_visit_what_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_collection, "PERIOD_S", 0.001)
    looks, counts = 0, 0
    count_all = gc.get_freeze_count

    class Looking(GarbageCollector):
        def collect_old(self) -> None:
            nonlocal looks
            looks += 1
            super().collect_old()

    def counting() -> int:
        nonlocal counts
        counts += 1
        return count_all()

    monkeypatch.setattr(gc, "get_freeze_count", counting)
    running = asyncio.create_task(Looking(lambda: None).run())
    try:
        async with asyncio.timeout(20):
            while looks < 10:  # noqa: ASYNC110 (the collector tells nobody)
                await asyncio.sleep(0.001)
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert counts == 1, "once, when all was looked at; the interpreter goes through every object for it"


@pytest.mark.parametrize("left_ms", [None, 0])
async def test_without_a_lease_that_ends_nothing_is_waited_for(left_ms: int | None) -> None:
    async with asyncio.timeout(1):
        await GarbageCollector(lambda: left_ms)._renewed()
