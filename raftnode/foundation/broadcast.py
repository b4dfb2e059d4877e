"""Waking all tasks that wait for something to change.

Unlike an `asyncio.Event` it has no state: who waits is woken by the next broadcast, never by an earlier one. So look
first and then wait, with no other `await` in between, and look again when woken:

    while not condition():
        await changed.wait()
"""

import asyncio


class Broadcast:
    """Any number of tasks of one event loop may wait, each with a timeout of its own if it wants one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify_all(self) -> None:
        """Wakes every task that waits now."""
        self._event.set()
        self._event.clear()

    async def wait(self) -> None:
        """Returns after the next `notify_all`."""
        await self._event.wait()
