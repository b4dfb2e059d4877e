"""Calls of one function that never run within each other."""

import asyncio
from collections.abc import Callable


class Turns:
    """Calls `turn` as often as it is asked for. What asks for one from within a turn has it called again afterwards;
    when that is over and `left` says that there is more to do, the event loop has a turn at everything else first."""

    def __init__(self, turn: Callable[[], None], left: Callable[[], bool]) -> None:
        self._turn, self._left = turn, left
        self._asked = self._running = self._soon = False

    def now(self) -> None:
        """A turn at once, or after the one that goes on."""
        self._asked = True
        if self._running:
            return
        self._running, self._soon = True, False
        try:
            while self._asked:
                self._asked = False
                self._turn()
        finally:
            self._running = False
        if self._left():
            self.soon()

    def soon(self) -> None:
        """One turn for all who ask before the event loop comes to it."""
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self.now)
