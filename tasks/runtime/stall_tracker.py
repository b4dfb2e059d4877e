"""Which body held the event loop when its node was ended for it, found when the node starts again.

While a body of a task is on the loop, its name stands in a page of memory that is mapped to a file: a kill leaves it
there, and it costs next to nothing. When the loop has not turned for long, a timer of the kernel sends a signal. Its
handler (`faulthandler`) needs neither the loop nor the interpreter lock: it writes down where the main thread stands.
It runs in that thread, as the frames of a thread that goes on cannot be looked at from another one: now and then that
crashes the process. A name and a stack in the files of a process that did not end in order are what the next one
reports.
"""

import faulthandler
import mmap
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import structlog
from msgspec import Meta

from raftnode.foundation import atomic_files
from raftnode.foundation.decoding import DECODE_ERRORS, from_json
from raftnode.liveness.kill_timer import SignalTimer, WatchdogUnavailable
from raftnode.record.commands import BlameTask

log = structlog.get_logger(__name__)

PAGE_BYTES = 4096
EPOCH_MAX = 2**63 - 1
STACK_LINES_MAX = 4
_NAME = re.compile(rb"(\d{1,19}) ([^\0]+)\0")
SIGNAL = signal.SIGRTMIN
"""Nobody else's; its handler is the interpreter's own, and Python code never runs in it."""
HELD_S = 0.2
"""A body that takes longer than this for a single step is named in the log."""


class StalledRun(msgspec.Struct, frozen=True):
    """A run that ended its node: its claim key and epoch, and the innermost lines of where it stood."""

    key: str
    epoch: Annotated[int, Meta(ge=0, le=EPOCH_MAX)]
    stack: str


class StallTracker:
    """Tracks nothing: for processes without a kill timer, and for simulated ones."""

    def track(self, key: str, epoch: int, body: Coroutine[Any, Any, None]) -> Awaitable[None]:
        """The body of a run, with its name written down while it is on the loop."""
        return body

    def arm(self, within_s: float) -> None:
        """The loop turns; if it does not for so long, or a little less, where the process stands is written down."""

    def disarm(self) -> None:
        """Nothing runs whose name could be written down."""

    def is_unreported(self, key: str) -> bool:
        """Whether a run of that task has ended a process before, and the cluster does not know yet."""
        return False

    async def report(self, tag: str, propose: Callable[[BlameTask], Awaitable[object]]) -> list[str]:
        """Has the cluster know; the keys of the tasks."""
        return []

    def close(self) -> None:
        """The process ends in order: nothing is left to report."""


def open_stall_tracker(directory: Path) -> StallTracker:
    """What finds out, by files in that directory; on a disk that takes none, a node does without."""
    try:
        return FileStallTracker(directory)
    except (OSError, WatchdogUnavailable) as error:
        log.warning("A task that ends this node will not be named: its files cannot be made.", reason=str(error))
        return StallTracker()


class FileStallTracker(StallTracker):
    """The files of one process, and the unreported that the processes before have left."""

    def __init__(self, directory: Path) -> None:
        self._name, self._stack = directory / "on_loop", directory / "held_at"
        self._kept = directory / "blamed.json"
        self.unreported = self._read()
        if self.unreported:
            self._keep()
        self._stack_file = self._stack.open("w+b", buffering=0)
        with self._name.open("w+b") as file:
            # Written, not only made so long: on a full disk the first use of a page without a place ends the process.
            file.write(bytes(PAGE_BYTES))
            file.flush()
            self._page = mmap.mmap(file.fileno(), PAGE_BYTES)
        self._timer = SignalTimer(SIGNAL)
        if signal.getsignal(SIGNAL) is not signal.SIG_IGN:
            # What the end of the handler leaves: a signal that comes too late must not end the process.
            signal.signal(SIGNAL, signal.SIG_IGN)
        faulthandler.register(SIGNAL, file=self._stack_file, all_threads=False)

    def _read(self) -> list[StalledRun]:
        kept = self._read_kept()
        try:
            name, stack = self._name.read_bytes(), self._stack.read_text(errors="replace")
        except FileNotFoundError:
            return kept  # the last process has ended in order
        named = _NAME.match(name)
        if named is None or int(named[1]) > EPOCH_MAX or not stack.strip():
            return kept  # nobody was on the loop, or the page is not what was written there
        # The newest stack comes last, and in it the innermost call first.
        lines = [line.strip() for line in stack.rstrip().rsplit("\n\n", 1)[-1].splitlines()[1 : STACK_LINES_MAX + 1]]
        return [*kept, StalledRun(named[2].decode(errors="replace"), int(named[1]), "; ".join(lines))]

    def _read_kept(self) -> list[StalledRun]:
        """What earlier processes could not report."""
        try:
            return from_json(self._kept.read_bytes(), list[StalledRun])
        except FileNotFoundError:
            return []
        except DECODE_ERRORS as error:
            log.warning(
                "Which tasks have ended this node before cannot be read: they are not held back for it.",
                file=str(self._kept), reason=str(error),
            )  # fmt: skip
            return []

    def _keep(self) -> None:
        """The next process, if this one ends as well before it could report, must find them all."""
        atomic_files.write(self._kept, msgspec.json.encode(self.unreported))

    def is_unreported(self, key: str) -> bool:
        return any(one.key == key for one in self.unreported)

    async def report(self, tag: str, propose: Callable[[BlameTask], Awaitable[object]]) -> list[str]:
        for one in self.unreported:
            log.error("A task has ended this node: it held the loop.", task=one.key, epoch=one.epoch, at=one.stack)
            await propose(BlameTask(key=one.key, epoch=one.epoch, tag=tag, reason=one.stack))
        told, self.unreported = [one.key for one in self.unreported], []
        self._kept.unlink(missing_ok=True)
        return told

    def track(self, key: str, epoch: int, body: Coroutine[Any, Any, None]) -> Awaitable[None]:
        return _Named(body, f"{epoch} {key}".encode()[: PAGE_BYTES - 1] + b"\0", self._page, key, epoch)

    def arm(self, within_s: float) -> None:
        if os.fstat(self._stack_file.fileno()).st_size:
            self._stack_file.seek(0)
            self._stack_file.truncate()
        self._timer.signal_at(self._timer.now_ns() + int(within_s * 1e9))

    def disarm(self) -> None:
        self._timer.disarm()

    def close(self) -> None:
        self._timer.close()
        faulthandler.unregister(SIGNAL)
        self._stack_file.close()
        self._page.close()
        self._name.unlink(missing_ok=True)
        self._stack.unlink(missing_ok=True)


class _Named:
    """Drives a coroutine step by step."""

    def __init__(self, body: Coroutine[Any, Any, None], name: bytes, page: mmap.mmap, key: str, epoch: int) -> None:
        self._body, self._name, self._page, self._key, self._epoch = body, name, page, key, epoch

    def __await__(self) -> Generator[Any, Any, None]:
        value: Any = None
        error: BaseException | None = None
        try:
            while True:
                try:
                    awaited = self._step(value, error)
                except StopIteration:
                    return
                value = error = None
                try:
                    value = yield awaited
                except GeneratorExit:
                    raise
                except BaseException as thrown:
                    error = thrown
        finally:
            self._body.close()

    def _step(self, value: Any, error: BaseException | None) -> Any:
        began_s = time.monotonic()
        self._page[: len(self._name)] = self._name
        try:
            return self._body.send(value) if error is None else self._body.throw(error)
        finally:
            self._page[0] = 0
            held_s = time.monotonic() - began_s
            if held_s > HELD_S:
                log.warning(
                    "A task held the event loop; what blocks belongs in a thread.",
                    task=self._key, epoch=self._epoch, held_s=round(held_s, 3),
                )  # fmt: skip
