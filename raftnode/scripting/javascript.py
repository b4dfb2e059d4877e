"""JavaScript: a batch of work per call, off the event loop, with limits that hold. `sandbox` runs it.

The engine is V8 (mini-racer) in worker processes; `worker` says why they are processes. Scripts have the
language and nothing else: no timers, no buffers (they escape the engine's memory limit), no `eval` or `Function` from
strings, no files, no network.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import cast
from urllib.parse import quote

import msgspec
import structlog
import xxhash

from raftnode.scripting import worker

log = structlog.get_logger(__name__)

SCRIPT_BYTES_MAX = 256 * 1024
START_TIMEOUT_S = 30.0
CHECKER_IDLE_S = 10.0
"""The process for compile checks is ended when there has been none for so long."""
WORKER = Path(worker.__file__)
NOT_STARTED = "the JavaScript engine did not start; see whether `python -c 'import py_mini_racer'` works here"


class ScriptLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one call may use: wall time of the whole call, the heap of all scripts, the result as JSON."""

    time_ms_max: int = 10_000
    memory_bytes_max: int = 128 << 20
    result_bytes_max: int = 64 << 20


class ScriptError(Exception):
    """A script was refused or failed. `script` is its name, `line` counts from 1, None when unknown."""

    def __init__(self, script: str, message: str, line: int | None = None) -> None:
        self.script, self.message, self.line = script, message, line
        super().__init__(f"script '{script}'{f', line {line}' if line else ''}: {message}")


class ScriptEnded(ScriptError):
    """A script was ended because it exceeded a limit. The next call works."""


class Script(msgspec.Struct, frozen=True):
    """A named piece of JavaScript; the name stands in its errors."""

    name: str
    text: str


class Program:
    """Scripts evaluated once per worker, in order, in sloppy mode and one global scope. The last one must be an
    expression: a function of one argument. Errors are reported under the name of `blame` when they name no script."""

    def __init__(self, *scripts: Script, blame: str) -> None:
        for script in scripts:
            if (size := len(script.text.encode())) > SCRIPT_BYTES_MAX:
                raise ScriptError(script.name, f"is {size} bytes long; the limit is {SCRIPT_BYTES_MAX} bytes")
        self.blame = blame
        self.names = {url_of(script.name): script.name for script in scripts}
        self.wire = [[url_of(script.name), script.text] for script in scripts]
        self.id = xxhash.xxh3_64_hexdigest(json.dumps(self.wire).encode())

    def raise_error(self, answer: worker.WorkerReply) -> None:
        """Raises ScriptError if that is what the worker has answered."""
        if "error" in answer:
            raise ScriptError(self.names.get(answer["script"], self.blame), answer["error"], answer["line"])


def url_of(name: str) -> str:
    """The form in which a script's name stands in stack traces."""
    return quote(name, safe="")


class _Checker:
    """The worker process for compile checks, one after the other, from any thread. It is kept for a while, as starting
    one takes longer than most checks; each check has an engine of its own in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._memory_bytes_max = 0
        self._checks = 0
        self._idle = threading.Timer(CHECKER_IDLE_S, self._end_idle, (0,))

    def check(self, program: Program, limits: ScriptLimits) -> None:
        """See `check`."""
        with self._lock:
            kept = self._process
            answer = self._answer(program, limits)
            if answer is None and kept is not None:  # it may have ended before this check
                answer = self._answer(program, limits)
            if answer is None:
                raise ScriptEnded(program.blame, "could not be compiled within the memory and time allowed")
            program.raise_error(answer)

    def _answer(self, program: Program, limits: ScriptLimits) -> worker.WorkerReply | None:
        """What the worker says; None if it has ended."""
        process = self._started(limits)
        assert process.stdin is not None
        assert process.stdout is not None
        self._checks += 1
        self._idle.cancel()
        request: worker.WorkerRequest = {
            "op": "load",
            "program": program.id,
            "scripts": program.wire,
            "engine": self._checks,
            "drop": [self._checks - 1],
        }
        late = threading.Timer(START_TIMEOUT_S, process.kill)
        late.start()
        try:
            worker.write(process.stdin, request, b"")
            frame = worker.read(process.stdout)
        except OSError:
            frame = None
        finally:
            late.cancel()
        if frame is None:
            self._end()
            return None
        self._idle = threading.Timer(CHECKER_IDLE_S, self._end_idle, (self._checks,))
        self._idle.daemon = True
        self._idle.start()
        return cast(worker.WorkerReply, frame[0])

    def _started(self, limits: ScriptLimits) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._memory_bytes_max == limits.memory_bytes_max:
            return self._process
        self._end()
        process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), str(limits.memory_bytes_max)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._process, self._memory_bytes_max = process, limits.memory_bytes_max
        assert process.stdout is not None
        late = threading.Timer(START_TIMEOUT_S, process.kill)
        late.start()
        greeting = worker.read(process.stdout)
        late.cancel()
        if greeting is None:
            self._end()
            raise SandboxFailed(NOT_STARTED)
        return process

    def _end_idle(self, checks: int) -> None:
        """End the worker unless there has been another check by then."""
        with self._lock:
            if self._checks == checks:
                self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


_checker = _Checker()


def check(program: Program, limits: ScriptLimits) -> None:
    """Compile a program's scripts, and wait for it: not for an event loop's thread.

    Raises ScriptError when one does not compile, SandboxFailed when there is no engine.
    """
    _checker.check(program, limits)


class SandboxFailed(Exception):
    """The engine does not start or was ended from outside: no fault of a script. Trying again may help."""
