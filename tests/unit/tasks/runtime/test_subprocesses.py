"""Subprocesses of bodies on real processes: whatever a node has started ends with it, grandchildren too."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tasks.runtime.subprocesses import offspring
from tests.unit.tasks.conftest import until

CONTAINED = ()
ADOPTED = ("unshare", "--user", "--map-root-user", "sh", "-c",
    'echo 0 > /proc/sys/user/max_pid_namespaces; echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"', "sh",
)  # fmt: skip
"""Runs a command where the kernel grants no namespaces."""

HIDING = "(setsid sh -c 'sleep {0} & setsid sleep {0}' &) ; sleep {0}"
"""A command with descendants that leave its session and lose their parents."""

NODE = """
import asyncio, sys
from tasks.runtime.subprocesses import offspring
async def main():
    async with offspring("sh", "-c", sys.argv[1]):
        await asyncio.sleep(3600)
asyncio.run(main())
"""

SIGNALLING = """
import asyncio, signal, sys
from tasks.runtime.subprocesses import offspring
async def main():
    async with offspring("sh", "-c", sys.argv[1]) as process:
        await asyncio.to_thread(sys.stdin.readline)
        process.{}
        print(await process.wait(), flush=True)
        await asyncio.sleep(3600)
asyncio.run(main())
"""
"""Signals to its subprocess when it is told to, and tells what that has exited with."""


@pytest.fixture
def seconds() -> Iterator[str]:
    """So long the processes of this test sleep, and nobody else's."""
    seconds = f"3600.{uuid.uuid4().int % 10**12:012}"
    yield seconds
    for pid in sleeping(seconds):
        os.kill(pid, signal.SIGKILL)


def sleeping(seconds: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == f"sleep\0{seconds}\0".encode():
                found.append(int(entry.name))
    return found


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_a_command_gets_its_input_and_gives_its_output_and_its_status() -> None:
    async with offspring("sh", "-c", "cat; exit 3", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE) as p:
        output, _ = await p.communicate(b"in")
        assert (output, p.returncode) == (b"in", 3)
    async with offspring("no-such-command", stderr=asyncio.subprocess.PIPE) as process:
        assert await process.wait() == 127
        assert process.stderr is not None
        assert b"no-such-command cannot be started: No such file" in await process.stderr.read()


async def test_a_signal_reaches_the_command() -> None:
    script = "trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 0.01; done"
    async with offspring("sh", "-c", script, stdout=asyncio.subprocess.PIPE) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        process.terminate()
        assert await process.stdout.read() == b"told\n"
        assert await process.wait() == 5


async def test_leaving_the_block_ends_all_that_was_started_also_what_nobody_reads(seconds: str) -> None:
    async with offspring("sh", "-c", f"yes & {HIDING.format(seconds)}", stdout=asyncio.subprocess.PIPE):
        await until(lambda: len(sleeping(seconds)) == 3)
    assert sleeping(seconds) == []


async def test_a_body_that_is_cancelled_twice_ends_after_what_it_has_started(seconds: str) -> None:
    async def body() -> None:
        async with offspring("sh", "-c", HIDING.format(seconds)):
            await asyncio.sleep(3600)

    task = asyncio.create_task(body())
    await until(lambda: len(sleeping(seconds)) == 3)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sleeping(seconds) == []


EVERYWHERE = pytest.mark.parametrize("where", [CONTAINED, ADOPTED], ids=["namespace", "adopted"])


@contextlib.asynccontextmanager
async def node(where: tuple[str, ...], seconds: str, script: str = NODE) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with a subprocess as a body starts it, which hides two others."""
    if where and (await asyncio.to_thread(subprocess.run, [*where, "true"], check=False)).returncode:
        pytest.skip("this machine grants no user namespace, in which to refuse others")
    assert shutil.which("setsid")
    process = await asyncio.create_subprocess_exec(
        *where, sys.executable, "-c", script, HIDING.format(seconds),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        await until(lambda: len(sleeping(seconds)) == 3)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@EVERYWHERE
async def test_a_node_that_is_killed_takes_everything_it_has_started_with_it(
    seconds: str, where: tuple[str, ...]
) -> None:
    async with node(where, seconds) as process:
        process.kill()
    await until(lambda: sleeping(seconds) == [])


@EVERYWHERE
async def test_a_node_that_is_killed_while_its_process_group_is_stopped_leaves_nothing(
    seconds: str, where: tuple[str, ...]
) -> None:
    """What is to end the command must not be stopped with the node, or with a terminal's Ctrl-Z."""
    async with node(where, seconds) as process:
        os.killpg(process.pid, signal.SIGSTOP)
        process.kill()
    await until(lambda: sleeping(seconds) == [])


@EVERYWHERE
@pytest.mark.parametrize("name", ["kill", "SIGKILL", "SIGHUP", "SIGUSR1", "SIGTERM", "SIGXCPU", "SIGRTMIN"])
async def test_whatever_ends_the_command_all_is_gone_when_it_is_waited_for(
    seconds: str, where: tuple[str, ...], name: str
) -> None:
    async with node(
        where, seconds, SIGNALLING.format("kill()" if name == "kill" else f"send_signal(signal.{name})")
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"now\n")
        assert int(await process.stdout.readline()) > 128
        assert sleeping(seconds) == []


@EVERYWHERE
async def test_a_leash_that_is_stopped_still_ends_everything(seconds: str, where: tuple[str, ...]) -> None:
    async with node(where, seconds, SIGNALLING.format("kill()")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        (leash,) = children(process.pid)
        os.kill(leash, signal.SIGSTOP)
        process.stdin.write(b"now\n")
        assert int(await process.stdout.readline()) > 128
        assert sleeping(seconds) == []


async def test_a_signal_that_would_stop_the_leash_is_refused() -> None:
    async with offspring("sleep", "60") as process:
        with pytest.raises(ValueError, match="Signal 19 cannot be sent"):
            process.send_signal(signal.SIGSTOP)
