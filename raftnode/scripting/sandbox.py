"""Where scripts run: a few worker processes, one a core, shared by all tasks of a node.

Each sandbox has an engine of its own in them (a V8 isolate: 10 ms and less than a megabyte), so that nothing a script
leaves behind reaches another task. A process works on one call at a time, and whoever asks first is served first. One
whose script exceeds a limit is ended and replaced; other sandboxes only load their scripts again. So a script must not
rest on what an earlier call of it has left.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from collections import OrderedDict
from typing import Literal, cast

import structlog

from raftnode.foundation.decoding import from_python_json
from raftnode.scripting import javascript, worker
from raftnode.scripting.javascript import Program, SandboxFailed, ScriptEnded, ScriptLimits

log = structlog.get_logger(__name__)

IDLE_S = 30.0
"""A process that no task has used for so long is ended."""
_ENDED_BY_V8 = {-signal.SIGTRAP, -signal.SIGABRT, -signal.SIGILL, -signal.SIGSEGV}
"""V8 ends its process by a trap or an abort when memory runs out, and differently on different processors."""
_owners = itertools.count(1)


class Sandbox:
    """One task's way to the engines. Calls wait for one another; a cancelled one ends the process that works on it.

    `close` may be called at any time, also to free the memory of an idle sandbox: the next call starts again.
    """

    def __init__(self, engines: "ScriptWorkers") -> None:
        self._engines = engines
        self._owner = next(_owners)
        self._lock = asyncio.Lock()

    async def call(self, program: Program, argument: bytes) -> bytes:
        """The program's function applied to a JSON value; its result as JSON.

        Raises ScriptError when a script does not compile or throws, ScriptEnded when it exceeds a limit,
        SandboxFailed when there is no engine.
        """
        async with self._lock:
            return await self._engines.call(self._owner, program, argument)

    async def close(self) -> None:
        """Give up the sandbox's engine."""
        async with self._lock:
            self._engines.forget(self._owner)


class ScriptWorkers:
    """The worker processes of a node. `processes_max` 0: one a core."""

    def __init__(self, limits: ScriptLimits, processes_max: int = 0) -> None:
        self.limits = limits
        self.workers: list[_Worker] = []
        self._free: list[_Worker] = []
        self._turns = asyncio.Semaphore(processes_max or len(os.sched_getaffinity(0)))
        self._ending: set[asyncio.Task[None]] = set()

    async def call(self, owner: int, program: Program, argument: bytes) -> bytes:
        """See `Sandbox.call`. The time limit begins when it is this call's turn."""
        async with self._turns:
            taken = self._take(owner)
            try:
                return await taken.call(owner, program, argument)
            finally:
                self._give_back(taken)

    def forget(self, owner: int) -> None:
        """Nobody calls for that owner any more: its engines go."""
        for one in self.workers:
            one.forget(owner)

    async def close(self) -> None:
        """End every process that works on nothing, and wait until they are gone."""
        for one in list(self._free):
            self._end(one)
        if self._ending:
            await asyncio.wait(self._ending)

    def _take(self, owner: int) -> "_Worker":
        """A free process, rather one that has the owner's engine, then one that has few; a new one when none is."""
        if not self._free:
            self.workers.append(_Worker(self.limits))
            return self.workers[-1]
        best = min(self._free, key=lambda one: (owner not in one.engines, len(one.engines)))
        self._free.remove(best)
        return best

    def _give_back(self, taken: "_Worker") -> None:
        if not taken.alive:
            self.workers.remove(taken)
            return
        loop = asyncio.get_running_loop()
        taken.idle_since_s = loop.time()
        self._free.append(taken)
        loop.call_later(IDLE_S, self._end_idle)

    def _end_idle(self) -> None:
        until_s = asyncio.get_running_loop().time() - IDLE_S
        for one in [one for one in self._free if one.idle_since_s <= until_s]:
            self._end(one)

    def _end(self, one: "_Worker") -> None:
        self._free.remove(one)
        self.workers.remove(one)
        ending = asyncio.create_task(one.end())
        self._ending.add(ending)
        ending.add_done_callback(self._ended)

    def _ended(self, ending: asyncio.Task[None]) -> None:
        self._ending.discard(ending)
        if not ending.cancelled() and (error := ending.exception()) is not None:
            log.error("A JavaScript worker could not be ended.", exc_info=error)


class _Worker:
    """One process. `engines` are the programs that it has loaded, by owner, the one used last at the end."""

    def __init__(self, limits: ScriptLimits) -> None:
        self.engines: OrderedDict[int, set[str]] = OrderedDict()
        self.idle_since_s = 0.0
        self.process: asyncio.subprocess.Process | None = None
        self._limits = limits
        self._drop: list[int] = []

    @property
    def alive(self) -> bool:
        """Whether the process has been started and has not ended."""
        return self.process is not None and self.process.returncode is None

    def forget(self, owner: int) -> None:
        """Have the owner's engine go, with the next call."""
        if self.engines.pop(owner, None) is not None:
            self._drop.append(owner)

    async def call(self, owner: int, program: Program, argument: bytes) -> bytes:
        """See `Sandbox.call`. After anything but an answer the process has ended when this raises."""
        process = await self._started()
        try:
            async with asyncio.timeout(self._limits.time_ms_max / 1000):
                loaded = self._engine(owner)
                if program.id not in loaded:
                    await self._exchange(process, owner, "load", b"", program)
                    loaded.add(program.id)
                return await self._exchange(process, owner, "call", argument, program)
        except TimeoutError:
            await self.end()
            message = f"did not end within {self._limits.time_ms_max} ms and was ended"
            raise ScriptEnded(program.blame, message) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._why_gone(process, program) from None
        except (ScriptEnded, asyncio.CancelledError):
            await self.end()
            raise

    def _engine(self, owner: int) -> set[str]:
        """What the owner's engine has loaded; there may be a new one, at the cost of the one unused for longest."""
        loaded = self.engines.setdefault(owner, set())
        self.engines.move_to_end(owner)
        if len(self.engines) > worker.ENGINES_MAX:
            self.forget(next(iter(self.engines)))
        return loaded

    async def end(self) -> None:
        """Kill the process, if there is one, and wait until the system has reaped it."""
        process, self.process = self.process, None
        self.engines.clear()
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        # asyncio counts a process as gone only when its pipes are, and a pipe that nobody reads stays.
        assert process.stdout is not None
        await process.stdout.read()
        await process.wait()

    async def _started(self) -> asyncio.subprocess.Process:
        if self.process is not None and self.process.returncode is None:
            return self.process
        await self.end()
        self.process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", str(javascript.WORKER), str(self._limits.memory_bytes_max),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(javascript.START_TIMEOUT_S):
                await self._answer(process, None)
        except (TimeoutError, asyncio.IncompleteReadError):
            await self.end()
            raise SandboxFailed(javascript.NOT_STARTED) from None
        except asyncio.CancelledError:
            await self.end()
            raise
        log.debug("A JavaScript worker was started for the scripts of tasks.", pid=process.pid)
        return process

    async def _exchange(
        self,
        process: asyncio.subprocess.Process,
        owner: int,
        op: Literal["load", "call"],
        payload: bytes,
        program: Program,
    ) -> bytes:
        assert process.stdin is not None
        drop, self._drop = self._drop, []
        request: worker.WorkerRequest = {"op": op, "program": program.id, "engine": owner, "drop": drop}
        if op == "load":
            request["scripts"] = program.wire
        text = json.dumps(request).encode()
        process.stdin.writelines([worker.FRAME.pack(len(text), len(payload)), text, payload])
        await process.stdin.drain()
        reply, result = await self._answer(process, program)
        if reply.get("full"):  # what it kept was too much: the worker has dropped it
            self.engines.pop(owner, None)
        program.raise_error(reply)
        return result

    async def _answer(
        self, process: asyncio.subprocess.Process, program: Program | None
    ) -> tuple[worker.WorkerReply, bytes]:
        assert process.stdout is not None
        header_bytes, result_bytes = worker.FRAME.unpack(await process.stdout.readexactly(worker.FRAME.size))
        if result_bytes > (limit := self._limits.result_bytes_max):
            message = f"returned {result_bytes} bytes; the limit is {limit} bytes; return less for each document"
            raise ScriptEnded(program.blame if program else "", message)
        reply = cast(worker.WorkerReply, from_python_json(await process.stdout.readexactly(header_bytes)))
        return reply, await process.stdout.readexactly(result_bytes)

    async def _why_gone(self, process: asyncio.subprocess.Process, program: Program) -> Exception:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(javascript.START_TIMEOUT_S):
                await process.wait()
        await self.end()
        if process.returncode in _ENDED_BY_V8:
            message = f"needed more than {self._limits.memory_bytes_max >> 20} MiB of memory and was ended"
            return ScriptEnded(program.blame, message)
        ended = f"the JavaScript worker was ended from outside (code {process.returncode})"
        return SandboxFailed(f"{ended}; has the machine run out of memory?")
