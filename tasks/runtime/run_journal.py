"""The journal of bodies: who ran what, from when to when, on the machine's common clock.

One JSON object a line in `<data>/runs.jsonl`. A body acts only between two calls to its context; each call closes one
interval (`active`, with `from_ns` and `to_ns` of CLOCK_BOOTTIME, the same in every process of the machine) and opens
the next. `start` and `end` frame a run. Time in which the whole process stood still is no activity: `frozen` says so.
Lines are written through and not synced: they must survive the process, not the machine.
"""

import asyncio
import contextlib
import errno
import os
import time
from collections import deque
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from raftnode.foundation import timestamps

log = structlog.get_logger(__name__)

FILE_NAME = "runs.jsonl"
BYTES_MAX = 16 << 20
FREEZES_MAX = 100
FROZEN_NS_MIN = 300_000_000
"""A beat that comes this much late, while the process used next to no processor time, tells of a freeze."""

Event = Literal["start", "active", "frozen", "end"]


def machine_ns() -> int:
    """CLOCK_BOOTTIME, the clock that all processes of the machine share."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class RunJournal:
    """Appends lines; at `bytes_max` the file becomes `runs.jsonl.1`, replacing the one before."""

    def __init__(self, directory: Path, node: str, *, bytes_max: int = BYTES_MAX) -> None:
        self._path = directory / FILE_NAME
        self._node = node
        self._bytes_max = bytes_max
        self._file: FileIO | None = self._open()
        self._lost = 0
        self._waiting: list[bytes] = []

    def write(self, task: str, epoch: int, event: Event, from_ns: int, to_ns: int, *, soon: bool = False) -> None:
        """Append one line; with `soon`, together with others in the event loop's next turn, for what is over: whoever
        reads the journal takes a run without an end for one that goes on."""
        if self._file is None:
            return
        line = {"task": task, "epoch": epoch, "node": self._node, "event": event, "from_ns": from_ns, "to_ns": to_ns}
        line["at"] = timestamps.now()
        self._waiting.append(msgspec.json.encode(line) + b"\n")
        if not soon:
            self.flush()
        elif len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits. A disk that refuses costs the lines and not the tasks; the log says so, once."""
        lines, self._waiting = self._waiting, []
        if self._file is None or not lines:
            return
        try:
            self._append(self._file, b"".join(lines))
            if self._file.tell() > self._bytes_max:
                self._file = self._rolled(self._file)
        except OSError as error:
            if not self._lost:
                log.warning(
                    "The journal of runs loses lines; the tasks go on.", file=str(self._path), reason=str(error)
                )
            self._lost += len(lines)
            return
        if self._lost:
            log.info("The journal of runs is written again.", file=str(self._path), lines_lost=self._lost)
            self._lost = 0

    def close(self) -> None:
        """Let go of the file."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    @staticmethod
    def _append(file: FileIO, data: bytes) -> None:
        """All of the line or nothing: half of one would spoil the next."""
        begin = file.seek(0, os.SEEK_END)
        if file.write(data) != len(data):
            file.truncate(begin)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _rolled(self, full: FileIO) -> FileIO:
        with contextlib.suppress(FileNotFoundError):  # somebody has deleted it, and a new one begins either way
            self._path.replace(self._path.with_name(FILE_NAME + ".1"))
        fresh = self._open()
        full.close()
        return fresh

    def _open(self) -> FileIO:
        return self._path.open("ab", buffering=0)


class FreezeDetector:
    """Tells freezes from work: the owner calls `beat` often; a long gap without processor time was a freeze."""

    def __init__(self, clock: Callable[[], int] = machine_ns, used: Callable[[], int] = time.process_time_ns) -> None:
        self._clock, self._used = clock, used
        self._at_ns, self._used_ns = clock(), used()
        self._frozen: deque[tuple[int, int]] = deque(maxlen=FREEZES_MAX)

    def beat(self) -> None:
        """The process is alive now."""
        at_ns, used_ns = self._clock(), self._used()
        gap_ns = at_ns - self._at_ns
        if gap_ns >= FROZEN_NS_MIN and used_ns - self._used_ns < gap_ns // 10:
            self._frozen.append((self._at_ns, at_ns))
        self._at_ns, self._used_ns = at_ns, used_ns

    def frozen_within(self, from_ns: int, to_ns: int) -> list[tuple[int, int]]:
        """The freezes that lie in the interval, in order, cut to it."""
        self.beat()
        within = ((max(a, from_ns), min(b, to_ns)) for a, b in self._frozen)
        return [(a, b) for a, b in within if a < b]
