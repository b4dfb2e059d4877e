"""What this node is short of, by its own measure: memory, of the machine or of the container it runs in, and files.

Processor credits are known to the cloud alone, and the store leaves dirty pages to the kernel, which bounds them: for
these an operator or a monitor sets the node's flag.
"""

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from raftnode.record.model import ResourceFlag

CLEARED_AT = 2
"""So many times the limit must be there again before the flag goes: memory that hovers around it moves nothing."""

READ_AGAIN_S = 1.0
"""A node reports several times a second; the system is asked no more often than this."""

DESCRIPTORS_KEPT = 256
"""So many file descriptors stay for the journal, the databases and the other nodes, however many clients there are."""


def descriptors_max() -> int:
    """How many file descriptors this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def descriptors_used() -> int:
    """How many it has."""
    return len(os.listdir("/proc/self/fd"))


class Memory:
    """The flag of a node whose memory is about to run out. Nothing is read where `available_bytes_min` is 0."""

    def __init__(
        self,
        available_bytes_min: int,
        *,
        meminfo: Path = Path("/proc/meminfo"),
        cgroup: Path = Path("/sys/fs/cgroup"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._min, self._meminfo, self._cgroup, self._clock = available_bytes_min, meminfo, cgroup, clock
        self._short = False
        self._read_again_s = clock()

    def flags(self) -> tuple[ResourceFlag, ...]:
        """EarlyOutOfMemory or nothing. A system that does not say what it has is not short of it."""
        now_s = self._clock()
        if self._min and now_s >= self._read_again_s:
            self._read_again_s = now_s + READ_AGAIN_S
            available = self._available_bytes()
            limit = self._min * CLEARED_AT if self._short else self._min
            self._short = available is not None and available < limit
        return ("EarlyOutOfMemory",) if self._short else ()

    def _available_bytes(self) -> int | None:
        known = [left for left in (self._of_machine(), self._of_container()) if left is not None]
        return min(known, default=None)

    def _of_machine(self) -> int | None:
        kib = _field(self._meminfo, "MemAvailable:")
        return None if kib is None else kib * 1024

    def _of_container(self) -> int | None:
        """What the limit of the control group (version 2) leaves; cached files count as free."""
        limit, used = _number(self._cgroup / "memory.max"), _number(self._cgroup / "memory.current")
        if limit is None or used is None:
            return None
        return limit - used + (_field(self._cgroup / "memory.stat", "inactive_file") or 0)


def _field(file: Path, name: str) -> int | None:
    lines = _read(file).splitlines()
    words = next((line.split() for line in lines if line.startswith(f"{name} ")), [])
    return int(words[1]) if len(words) > 1 and words[1].isdecimal() else None


def _number(file: Path) -> int | None:
    text = _read(file).strip()
    return int(text) if text.isdecimal() else None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""  # not every kernel has it; see `Memory.flags`
