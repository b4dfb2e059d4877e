"""An event loop on which time passes only when nobody has anything left to do.

All nodes of a simulated world share it. Whatever a node schedules carries its process in a context variable: the
callbacks of a paused process are kept until it is thawed, those of a dead one never run, and a process counts its
waits by the rate of its own clock. Threads do not exist: work for an executor is done at once.
"""

import asyncio
import contextvars
import heapq
from asyncio.events import Handle, TimerHandle
from asyncio.futures import Future
from collections.abc import Callable
from typing import Any

NS_PER_S = 1_000_000_000


class Stuck(Exception):
    """Nothing is left that could ever happen."""


class Process:
    """One incarnation of a node. `rate`: how many of its seconds pass in a true one."""

    def __init__(self, name: str, rate: float = 1.0) -> None:
        self.name = name
        self.rate = rate
        self.alive = True
        self.paused = False
        self.parked: list[Handle] = []
        self.world: Any = None
        self.tasks: list[asyncio.Task[Any]] = []
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("PROCESS", default=None)


class _Timer(TimerHandle):
    """A timer that is made quickly: worlds make thousands a second."""

    __slots__ = ()

    def __init__(
        self, when: float, callback: Callable[..., Any], args: Any, loop: Any, context: contextvars.Context | None
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop, self._callback, self._args = loop, callback, args
        self._when, self._scheduled, self._cancelled = when, True, False
        self._repr = self._source_traceback = None


class VirtualLoop(asyncio.base_events.BaseEventLoop):
    """The loop; `time` is the true time of the world in seconds."""

    _ready: Any
    _stopping: bool
    _scheduled: list[tuple[float, int, TimerHandle]]  # compared without asking the handles

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._timers = 0
        self.steps = 0
        self.unhandled: list[str] = []
        self.set_task_factory(_in_process)
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """The true time, in seconds."""
        return self._now_s

    def now_ns(self) -> int:
        """The true time, in nanoseconds."""
        return round(self._now_s * NS_PER_S)

    def call_at(  # type: ignore[override]  # plainer than typeshed's
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> TimerHandle:
        """As asyncio's, in the time of whoever calls."""
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is not None:
            when = self._now_s + (when - self._now_s) / process.rate
        return self.call_at_true(when, callback, *args, context=context)

    def call_at_true(
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> TimerHandle:
        """Calls back at that true time, whatever anybody's clock says."""
        timer = _Timer(when, callback, args, self, context)
        self._timers += 1
        heapq.heappush(self._scheduled, (when, self._timers, timer))
        return timer

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Future[Any]:  # type: ignore[override]
        """Does the work now."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def thaw(self, process: Process) -> None:
        """The paused process goes on with all that waits for it."""
        process.paused = False
        self._ready.extend(process.parked)
        process.parked.clear()

    def _run_once(self) -> None:
        while not self._stopping:
            self._turn()

    def _turn(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        if not ready:
            while scheduled and scheduled[0][2]._cancelled:
                heapq.heappop(scheduled)
            if not scheduled:
                raise Stuck("nothing is left to happen")
            self._now_s = max(self._now_s, scheduled[0][0])
        while scheduled and scheduled[0][0] <= self._now_s:
            ready.append(heapq.heappop(scheduled)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is not None:
                if not process.alive:
                    continue
                if process.paused:
                    process.parked.append(handle)
                    continue
            self.steps += 1
            try:
                handle._context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"{handle} raised", "exception": error})

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.unhandled.append(f"{context.get('message')}: {error!r}")

    def _write_to_self(self) -> None:
        """Nobody sleeps, so nobody must be woken."""


def _in_process(loop: asyncio.AbstractEventLoop, coroutine: Any, **how: Any) -> asyncio.Task[Any]:
    """Makes a task and keeps it with its process: what a dead process was doing is never cleaned up by anybody."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **how)
    context = how.get("context")
    process = PROCESS.get() if context is None else context.get(PROCESS)
    if process is not None:
        process.tasks.append(task)
    return task
