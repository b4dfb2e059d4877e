"""When the interpreter collects cyclic garbage, so that a collection never holds the event loop for long.

A full collection visits every object of the process. With 5,000 tasks that takes a third of a second: long enough to
lose the lease, or to be killed because tasks do not stop in time. Therefore long-lived objects are frozen
(`gc.freeze`), and a collection visits only the others, which takes milliseconds. A full collection runs once an hour,
or when the number of frozen objects has doubled, and just after the lease was renewed. Young objects are collected as
usual.
"""

import asyncio
import gc
from collections.abc import Callable

YOUNG_MAX = 10_000
MIDDLE_MAX = 20
NEVER = 1_000_000
PERIOD_S = 5.0
OLD_MIN = 20_000
"""With fewer objects than this in the oldest generation, nothing is done."""
COLLECTED_MAX = 100_000
"""It takes about 10 ms to collect so many. More, as when thousands of tasks start, are frozen without a collection."""
GROWTH_MIN = 1_000_000
"""Growth by fewer objects than this is no reason for a full collection before the hour is over."""
FULL_S = 3600.0
RENEWAL_POLL_S = 0.01
RENEWAL_WAIT_S = 2.0


class GarbageCollector:
    """Decides when this process collects. `lease_left_ms` gives what is left of the lease in ms: None if it never ends,
    0 if there is none.

    Start `run` after everything that stays has been created. `frozen` is the number of frozen objects, at most; above
    `full_at` of them, a full collection runs.
    """

    def __init__(self, lease_left_ms: Callable[[], int | None]) -> None:
        self._lease_left_ms = lease_left_ms
        self.frozen = self.full_at = 0

    async def run(self) -> None:
        """Until cancelled."""
        gc.set_threshold(YOUNG_MAX, MIDDLE_MAX, NEVER)
        self.collect_all()
        clock = asyncio.get_running_loop().time
        full_s = clock() + FULL_S
        while True:
            await asyncio.sleep(PERIOD_S)
            self.collect_old()
            if self.frozen > self.full_at or clock() > full_s:
                await self._renewed()
                self.collect_all()
                full_s = clock() + FULL_S

    def collect_old(self) -> None:
        """Collects the objects that have become old since the last time, and freezes what stays, if that is much."""
        old = len(gc.get_objects(generation=2))
        if old < OLD_MIN:
            return
        if old <= COLLECTED_MAX:
            gc.collect()
            old = len(gc.get_objects(generation=2))
        if old >= OLD_MIN:
            # Counted here, because `gc.get_freeze_count` visits all of them.
            self.frozen += len(gc.get_objects())
            gc.freeze()

    def collect_all(self) -> None:
        """Collects everything, and freezes what stays."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self.frozen = gc.get_freeze_count()
        self.full_at = 2 * self.frozen + GROWTH_MIN

    async def _renewed(self) -> None:
        """Waits until the lease has just been renewed, if there is one that ends; for RENEWAL_WAIT_S at most."""
        before = self._lease_left_ms()
        try:
            async with asyncio.timeout(RENEWAL_WAIT_S):
                while before and (left := self._lease_left_ms()) and left <= before:
                    before = left
                    await asyncio.sleep(RENEWAL_POLL_S)
        except TimeoutError:
            return
