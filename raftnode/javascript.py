"""The one JavaScript sandbox: a batch of work per call, off the event loop, with limits that hold.

The engine is V8 (mini-racer) in a worker process, started at the first call and again after a script had to be
ended; `javascript_worker` says why it is a process. Scripts have the language and nothing else: no timers, no
buffers (they escape the engine's memory limit), no `eval` or `Function` from strings, no files, no network.
"""

import asyncio
import contextlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import msgspec
import structlog
import xxhash

from raftnode import javascript_worker as worker
from raftnode.decoding import from_python_json

log = structlog.get_logger(__name__)

SCRIPT_BYTES_MAX = 256 * 1024
START_TIMEOUT_S = 30.0
_WORKER = Path(worker.__file__)
_NOT_STARTED = "the JavaScript engine did not start; see whether `python -c 'import py_mini_racer'` works here"
_ENDED_BY_V8 = {-signal.SIGTRAP, -signal.SIGABRT, -signal.SIGILL, -signal.SIGSEGV}
"""V8 ends its process by a trap or an abort when memory runs out, and differently on different processors."""


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

    def __init__(self, script: str, limit: Literal["time", "memory", "result"], message: str) -> None:
        self.limit = limit
        super().__init__(script, message)


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

    def raise_error(self, answer: Mapping[str, Any]) -> None:
        """Raises ScriptError if that is what the worker has answered."""
        if "error" in answer:
            raise ScriptError(self.names.get(answer["script"], self.blame), answer["error"], answer["line"])


def url_of(name: str) -> str:
    """The form in which a script's name stands in stack traces."""
    return quote(name, safe="")


class Sandbox:
    """Runs programs in one worker process. Calls wait for one another; a cancelled call ends the worker.

    `close` may be called at any time, also to free the memory of an idle sandbox: the next call starts anew.
    """

    def __init__(self, limits: ScriptLimits) -> None:
        self.limits = limits
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._loaded: set[str] = set()

    async def call(self, program: Program, argument: bytes) -> bytes:
        """The program's function applied to a JSON value; its result as JSON.

        Raises ScriptError when a script does not compile or throws, ScriptEnded when it exceeds a limit,
        SandboxFailed when there is no engine.
        """
        async with self._lock:
            process = await self._started()
            try:
                async with asyncio.timeout(self.limits.time_ms_max / 1000):
                    if program.id not in self._loaded:
                        load = {"op": "load", "program": program.id, "scripts": program.wire}
                        await self._exchange(process, load, b"", program)
                        self._loaded.add(program.id)
                    return await self._exchange(process, {"op": "call", "program": program.id}, argument, program)
            except TimeoutError:
                await self._end()
                message = f"did not end within {self.limits.time_ms_max} ms and was ended"
                raise ScriptEnded(program.blame, "time", message) from None
            except (asyncio.IncompleteReadError, ConnectionError):
                raise await self._why_gone(process, program) from None
            except (ScriptEnded, asyncio.CancelledError):
                await self._end()
                raise

    async def close(self) -> None:
        """End the worker and wait until it is gone."""
        async with self._lock:
            await self._end()

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        await self._end()
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", str(_WORKER), str(self.limits.memory_bytes_max),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._answer(process, None)
        except (TimeoutError, asyncio.IncompleteReadError):
            await self._end()
            raise SandboxFailed(_NOT_STARTED) from None
        except asyncio.CancelledError:
            await self._end()
            raise
        log.debug("a JavaScript worker was started for the scripts of a task", pid=process.pid)
        return process

    async def _exchange(
        self, process: asyncio.subprocess.Process, header: Mapping[str, Any], payload: bytes, program: Program
    ) -> bytes:
        assert process.stdin is not None
        text = json.dumps(header).encode()
        process.stdin.writelines([worker.FRAME.pack(len(text), len(payload)), text, payload])
        await process.stdin.drain()
        return await self._answer(process, program)

    async def _answer(self, process: asyncio.subprocess.Process, program: Program | None) -> bytes:
        assert process.stdout is not None
        header_bytes, result_bytes = worker.FRAME.unpack(await process.stdout.readexactly(worker.FRAME.size))
        blame = program.blame if program else ""
        if result_bytes > (limit := self.limits.result_bytes_max):
            message = f"returned {result_bytes} bytes; the limit is {limit} bytes; return less for each document"
            raise ScriptEnded(blame, "result", message)
        answer = from_python_json(await process.stdout.readexactly(header_bytes))
        if program is not None:
            program.raise_error(answer)
        return await process.stdout.readexactly(result_bytes)

    async def _why_gone(self, process: asyncio.subprocess.Process, program: Program) -> Exception:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                await process.wait()
        await self._end()
        if process.returncode in _ENDED_BY_V8:
            message = f"needed more than {self.limits.memory_bytes_max >> 20} MiB of memory and was ended"
            return ScriptEnded(program.blame, "memory", message)
        ended = f"the JavaScript worker was ended from outside (code {process.returncode})"
        return SandboxFailed(f"{ended}; has the machine run out of memory?")

    async def _end(self) -> None:
        """Kill the worker, if there is one, and wait until the system has reaped it."""
        process, self._process = self._process, None
        self._loaded.clear()
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        # asyncio counts a process as gone only when its pipes are, and a pipe that nobody reads stays.
        assert process.stdout is not None
        await process.stdout.read()
        await process.wait()


def check(program: Program, limits: ScriptLimits) -> None:
    """Compile a program's scripts in a worker of their own, and wait for it: not for an event loop's thread.

    Raises ScriptError when one does not compile, SandboxFailed when there is no engine.
    """
    text = json.dumps({"op": "load", "program": program.id, "scripts": program.wire}).encode()
    ended = subprocess.run(
        [sys.executable, "-P", str(_WORKER), str(limits.memory_bytes_max)],
        input=worker.FRAME.pack(len(text), 0) + text,
        capture_output=True,
        timeout=START_TIMEOUT_S,
        check=False,
    )
    answers = io.BytesIO(ended.stdout)
    if worker.read(answers) is None:
        raise SandboxFailed(_NOT_STARTED)
    frame = worker.read(answers)
    if frame is None:
        raise ScriptEnded(program.blame, "memory", "could not be compiled within the memory limit")
    program.raise_error(frame[0])


class SandboxFailed(Exception):
    """The engine does not start or was ended from outside: no fault of a script. Trying again may help."""
