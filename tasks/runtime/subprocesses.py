"""Subprocesses of task bodies, which end with the body and with the node, together with all that they have started."""

import asyncio
import os
import sys
from asyncio.subprocess import Process, SubprocessStreamProtocol
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import SIGCONT, SIGKILL

from tasks.runtime import leash

_LEASH = Path(leash.__file__)
_STREAM_LIMIT_BYTES = 1 << 16


class LeashedProcess(Process):
    """The command as its leash shows it. A signal to the leash would not be one to the command, and a leash that is
    killed or stopped lets go of what it holds: so `kill` has the leash end everything, and what the leash cannot pass
    on is refused."""

    pipe: int | None = None

    def send_signal(self, signal: int) -> None:
        """Sends it to the command. Raises ValueError for one that cannot be passed on."""
        if signal == SIGKILL:
            self.kill()
        elif signal in leash.PASSED_ON:
            super().send_signal(signal)
        else:
            raise ValueError(
                f"Signal {signal} cannot be sent to a task's subprocess: use kill(), or a signal like SIGTERM, SIGINT, "
                "SIGHUP, SIGUSR1, SIGTSTP or SIGCONT."
            )

    def kill(self) -> None:
        """Kills the command, with all that it has started. `wait` returns when all of it is gone."""
        pipe, self.pipe = self.pipe, None
        if pipe is not None:
            os.close(pipe)
            with suppress(ProcessLookupError):
                super().send_signal(SIGCONT)  # somebody may have stopped the leash, which would end nothing


@asynccontextmanager
async def offspring(
    *command: str,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[LeashedProcess]:
    """The command as a process; see `TaskContext.subprocess`. On the event loop of the main thread."""
    # The leash reads; nothing is ever written, and the end of the writing end is the end of everything.
    its, ours = os.pipe()
    loop = asyncio.get_running_loop()
    try:
        # In a session of its own: what stops or ends the node's process group must not stop what ends the command.
        transport, protocol = await loop.subprocess_exec(
            lambda: SubprocessStreamProtocol(limit=_STREAM_LIMIT_BYTES, loop=loop),
            sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), str(its), *command,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
            stdout=stdout, stderr=stderr, cwd=cwd, env=env, pass_fds=(its,), start_new_session=True,
        )  # fmt: skip
        process = LeashedProcess(transport, protocol, loop)
        process.pipe = ours
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(its)
    try:
        yield process
    finally:
        process.kill()
        await _gone(process)


async def _gone(process: Process) -> None:
    """Whoever is cancelled again meanwhile still waits: the body must not end before what it has started has."""
    waiting = asyncio.ensure_future(_reaped(process))
    cancelled = False
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            cancelled = True
    waiting.result()
    if cancelled:
        raise asyncio.CancelledError


async def _reaped(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    # asyncio counts a process as gone only when its pipes are, and a pipe that nobody reads stays.
    for pipe in (process.stdout, process.stderr):
        while pipe is not None and await pipe.read(1 << 16):
            pass
    await process.wait()
