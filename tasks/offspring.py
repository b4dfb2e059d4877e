"""Subprocesses of task bodies, which end with the body and with the node, together with all that they have started."""

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tasks import leash

_LEASH = Path(leash.__file__)


@asynccontextmanager
async def offspring(
    *command: str,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Process]:
    """The command as a process; see `TaskContext.subprocess`. On the event loop of the main thread."""
    # The leash reads; nothing is ever written, and the end of the writing end is the end of everything.
    its, ours = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), str(its), *command,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
            stdout=stdout, stderr=stderr, cwd=cwd, env=env, pass_fds=(its,),
        )  # fmt: skip
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(its)
    try:
        yield process
    finally:
        os.close(ours)
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
