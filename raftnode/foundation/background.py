"""Background tasks. None ends unseen: it is begun again (`kept`), or whoever is responsible is told (`watched`).

Besides these a task may belong to a TaskGroup, which ends with it, or be awaited where it is made.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from raftnode.foundation.backoff import backoff

log = structlog.get_logger(__name__)

PAUSE_MIN_S = 0.1
PAUSE_MAX_S = 10.0
CALM_S = 60.0
"""After so long without a failure the pause is the shortest again."""


class TaskEnded(Exception):
    """A task that must not end has ended."""


def watched(
    work: Coroutine[Any, Any, None],
    name: str,
    failed: Callable[[Exception], None],
    *,
    may_end: bool = False,
    expected: tuple[type[Exception], ...] = (),
) -> "asyncio.Task[None]":
    """The work as a task. When it raises, or ends though it may not, and nobody has cancelled it, `failed` is told: it
    ends what cannot go on without the task. All but what is `expected` is logged as a defect."""

    def over(task: asyncio.Task[None]) -> None:
        error: BaseException | None = None
        if not task.cancelled():
            error = task.exception()
        elif task.cancelling():
            return
        if error is None:
            if may_end and not task.cancelled():
                return
            error = TaskEnded(f"the {name} ended by itself")
        if not isinstance(error, expected):
            log.error("A background task has failed.", task=name, exc_info=error)
        failed(error if isinstance(error, Exception) else TaskEnded(f"the {name} ended: {error!r}"))

    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(over)
    return task


def kept(work: Callable[[], Awaitable[None]], name: str) -> "asyncio.Task[None]":
    """A task that does the work until it is cancelled: when that raises or returns, it says so and begins again after a
    pause, which grows."""
    return asyncio.get_running_loop().create_task(_again_and_again(work, name), name=name)


async def _again_and_again(work: Callable[[], Awaitable[None]], name: str) -> None:
    failures = 0
    loop = asyncio.get_running_loop()
    while True:
        began_s, error = loop.time(), None
        try:
            await work()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        except Exception as failure:
            error = failure
        failures = 1 if loop.time() - began_s > CALM_S else failures + 1
        pause_s = backoff(failures, PAUSE_MIN_S, PAUSE_MAX_S)
        log.error("A background task has ended and is started again.", task=name, after_s=pause_s, exc_info=error)
        await asyncio.sleep(pause_s)


async def set_or_after(event: asyncio.Event, seconds: float | None) -> None:
    """Returns when the event is set, by somebody or by this call after so long, if that is not None. Loops that wait
    again and again for either pay half of what a timeout costs, which has to cancel and to raise."""
    if seconds is None:
        await event.wait()
        return
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
