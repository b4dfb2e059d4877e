"""The last resort: the kernel kills this process when its tasks have outlived their lease.

A POSIX timer on CLOCK_BOOTTIME sends SIGKILL. It needs neither the event loop nor the interpreter lock,
goes off in a stopped process and right after a suspend, and the kernel then closes the sockets and lets go
of the file locks. A child process does not inherit it. Linux only.
"""

import ctypes
import os
import signal
import sys
import time
from typing import Protocol

from raftnode.foundation.ports import Clock
from raftnode.lease import FOREVER_NS

_TIMER_ABSTIME = 1
_SIGEV_SIGNAL = 0
_SIGEVENT_BYTES = 64
_NS_PER_S = 1_000_000_000


class WatchdogUnavailable(Exception):
    """This platform cannot kill a hung process in time, so no task may run on it."""


class _Sigevent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_byte * (_SIGEVENT_BYTES - ctypes.sizeof(ctypes.c_void_p) - 2 * ctypes.sizeof(ctypes.c_int))),
    )


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class SignalTimer:
    """A timer of the kernel that sends this process a signal. Raises WatchdogUnavailable where there is none."""

    def __init__(self, number: int) -> None:
        if not sys.platform.startswith("linux"):
            raise WatchdogUnavailable(f"raftnode runs on Linux only: {sys.platform} has no timer that kills a process.")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _Sigevent(signo=number, notify=_SIGEV_SIGNAL)
        self._call("timer_create", time.CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(self._timer))

    @staticmethod
    def now_ns() -> int:
        """CLOCK_BOOTTIME, by which the timer goes."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def signal_at(self, boottime_ns: int) -> None:
        """Sends the signal when CLOCK_BOOTTIME gets there, at once if it is past. Replaces an earlier time."""
        seconds, nanoseconds = divmod(max(1, boottime_ns), _NS_PER_S)
        self._set(_Timespec(seconds, nanoseconds))

    def disarm(self) -> None:
        """Sends nothing until a time is set again."""
        self._set(_Timespec(0, 0))

    def close(self) -> None:
        """Disarms the timer and gives it back."""
        self._call("timer_delete", self._timer)

    def _set(self, value: _Timespec) -> None:
        spec = _Itimerspec(_Timespec(0, 0), value)
        self._call("timer_settime", self._timer, _TIMER_ABSTIME, ctypes.byref(spec), None)

    def _call(self, name: str, *arguments: object) -> None:
        try:
            function = getattr(self._libc, name)
        except AttributeError as error:
            raise WatchdogUnavailable(f"The C library has no {name}.") from error
        if function(*arguments) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise WatchdogUnavailable(f"{name} failed: {reason}. The kernel must offer timers on CLOCK_BOOTTIME.")


class KillTimer(SignalTimer):
    """The one that kills. Raises WatchdogUnavailable where a kernel does not kill this process."""

    def __init__(self) -> None:
        if os.getpid() == 1:
            raise WatchdogUnavailable(
                "raftnode may not be the first process of a container: the kernel lets nothing in there kill that one."
                " Start it under an init: docker run --init, `init: true` in a compose file, or tini as entry point."
            )
        super().__init__(signal.SIGKILL)

    def kill_at(self, boottime_ns: int) -> None:
        """Kills the process when CLOCK_BOOTTIME gets there, at once if it is past. Replaces an earlier time."""
        self.signal_at(boottime_ns)


class Timer(Protocol):
    """What kills the process, and the clock it goes by; see `KillTimer`."""

    def now_ns(self) -> int: ...
    def kill_at(self, boottime_ns: int) -> None: ...
    def disarm(self) -> None: ...


class Watchdog:
    """Keeps the timer at the end of the lease plus the time to stop, while any task body runs.

    `lease_until` is for every renewal, `bodies_running` for every start (before it) and every end (after it).
    """

    def __init__(self, timer: Timer, clock: Clock) -> None:
        self._timer = timer
        self._clock = clock
        self._deadline_ns: int | None = None
        self._bodies = 0

    def lease_until(self, until_ns: int, stop_ns: int) -> None:
        """The lease ends at that upper-bound reading; bodies have `stop_ns` more. A lease without end kills
        nobody."""
        self._deadline_ns = None if until_ns == FOREVER_NS else until_ns + stop_ns
        self._set()

    def bodies_running(self, count: int) -> None:
        """How many task bodies have not yet ended, threads and subprocesses included."""
        before, self._bodies = self._bodies, count
        if (before == 0) != (count == 0):
            self._set()

    def _set(self) -> None:
        if self._bodies == 0 or self._deadline_ns is None:
            self._timer.disarm()
            return
        # A freeze between the two readings makes the time left look shorter, never longer.
        boottime_ns = self._timer.now_ns()
        self._timer.kill_at(boottime_ns + self._deadline_ns - self._clock.elapsed_upper_ns())
