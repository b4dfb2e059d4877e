"""What the daemon takes from the world outside, as Protocols, so that tests and the simulator can put their
own in place.

`SystemClock` and `SystemRandom` are the real ones.
"""

import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

NS_PER_MS = 1_000_000


class Clock(Protocol):
    """Elapsed time in two readings, and the wall's. Readings are integer nanoseconds of this process alone.

    `elapsed_upper_ns` and `elapsed_lower_ns` count different things: never compare or subtract one from the other.
    """

    def elapsed_upper_ns(self) -> int:
        """Elapsed time for whoever holds something: stamps, lease ends, the times vote requests were sent.
        Over any span it grows at least as much as the real clocks do, so that what is held is given up
        rather early."""

    def elapsed_lower_ns(self) -> int:
        """Elapsed time for whoever judges another: silence, the time since an election. Over any span it
        grows at most as much as the real clocks do, so that a judgement comes rather late."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970 by the wall clock, which may jump. For people, and for the lease's wall
        guard."""


class Random(Protocol):
    """A source of chance; `random.Random` is one."""

    def random(self) -> float:
        """A number in [0, 1)."""


class Network(Protocol):
    """Messages between the cluster's nodes: bounded, ordered per peer, may be lost, never duplicated
    knowingly."""

    def send(self, tag: str, channel: str, payload: bytes) -> bool:
        """Hand over a message without waiting. False: it was dropped, as the peer is not connected or too
        slow."""

    def on_message(self, channel: str, handler: Callable[[str, bytes], None]) -> None:
        """Have `handler(tag, payload)` called for every message of that channel."""


class SystemClock:
    """The machine's clocks, which start together at zero when this is made.

    CLOCK_BOOTTIME goes on while the machine is suspended but is slewed by time synchronisation;
    CLOCK_MONOTONIC_RAW is never slewed but stands still in a suspend. Each reading adds the larger of the
    two steps since the reading before to `elapsed_upper_ns` and the smaller one to `elapsed_lower_ns`, so both bounds
    hold over every span and not only since the start.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._boottime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._raw_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        self._upper_ns = 0
        self._lower_ns = 0

    def elapsed_upper_ns(self) -> int:
        """See `Clock.elapsed_upper_ns`. Safe to call from any thread."""
        with self._lock:
            self._read()
            return self._upper_ns

    def elapsed_lower_ns(self) -> int:
        """See `Clock.elapsed_lower_ns`. Safe to call from any thread."""
        with self._lock:
            self._read()
            return self._lower_ns

    def wall_ms(self) -> int:
        """See `Clock.wall_ms`."""
        return time.time_ns() // NS_PER_MS

    def _read(self) -> None:
        boottime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        raw_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        steps = (boottime_ns - self._boottime_ns, raw_ns - self._raw_ns)
        self._boottime_ns, self._raw_ns = boottime_ns, raw_ns
        self._upper_ns += max(steps)
        self._lower_ns += max(0, min(steps))


SystemRandom = random.SystemRandom
