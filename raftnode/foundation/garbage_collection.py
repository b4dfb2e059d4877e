"""When the interpreter collects cyclic garbage, so that a collection never holds the event loop for long.

A full collection goes through every object of the process. With 5,000 tasks that takes a third of a second, enough to
lose the lease, or to be killed for stopping too slowly. So objects that have lived for long are set aside
(`gc.freeze`), and a collection goes through the others only; that takes milliseconds. A full collection comes once an
hour, or when what is set aside has doubled, and just after the lease was renewed. Young objects are collected as usual.
"""

import asyncio
import gc
from collections.abc import Callable

YOUNG_MAX = 10_000
MIDDLE_MAX = 20
NEVER = 1_000_000
LOOK_S = 5.0
OLD_MIN = 20_000
"""Fewer objects than this that have outlived two collections are not worth a look."""
LOOKED_AT_MAX = 100_000
"""About 10 ms. More than this at once, as when thousands of tasks start, are set aside unseen."""
SET_ASIDE_MIN = 1_000_000
"""Fewer objects than this, besides those there were, are no reason to look at all before the hour is over."""
FULL_S = 3600.0
RENEWAL_POLL_S = 0.01
RENEWAL_WAIT_S = 2.0


class GarbageCollector:
    """Decides when this process collects. `lease_left_ms` gives what is left of the lease in ms: None if it never ends,
    0 if there is none.

    `run` must be running, once all that stays has been made. `set_aside` is how many objects are, at most, and
    `full_at` how many may be before all are looked at.
    """

    def __init__(self, lease_left_ms: Callable[[], int | None]) -> None:
        self._lease_left_ms = lease_left_ms
        self.set_aside = self.full_at = 0

    async def run(self) -> None:
        """Until cancelled."""
        gc.set_threshold(YOUNG_MAX, MIDDLE_MAX, NEVER)
        self.all()
        clock = asyncio.get_running_loop().time
        full_s = clock() + FULL_S
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()
            if self.set_aside > self.full_at or clock() > full_s:
                await self._renewed()
                self.all()
                full_s = clock() + FULL_S

    def look(self) -> None:
        """Collect what has become old since the last look, and set aside what stays, if it is much."""
        old = len(gc.get_objects(generation=2))
        if old < OLD_MIN:
            return
        if old <= LOOKED_AT_MAX:
            gc.collect()
            old = len(gc.get_objects(generation=2))
        if old >= OLD_MIN:
            # Counted here: the interpreter counts what is set aside by going through all of it.
            self.set_aside += len(gc.get_objects())
            gc.freeze()

    def all(self) -> None:
        """Collect everything, and set aside what stays."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self.set_aside = gc.get_freeze_count()
        self.full_at = 2 * self.set_aside + SET_ASIDE_MIN

    async def _renewed(self) -> None:
        """Wait until the lease has just been renewed, if there is one that ends."""
        before = self._lease_left_ms()
        try:
            async with asyncio.timeout(RENEWAL_WAIT_S):
                while before and (left := self._lease_left_ms()) and left <= before:
                    before = left
                    await asyncio.sleep(RENEWAL_POLL_S)
        except TimeoutError:
            return
