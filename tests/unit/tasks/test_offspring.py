"""Subprocesses of bodies on real processes: whatever a node has started ends with it, grandchildren too."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.offspring import offspring
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
from tasks.offspring import offspring
async def main():
    async with offspring("sh", "-c", sys.argv[1]):
        await asyncio.sleep(3600)
asyncio.run(main())
"""


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


@pytest.mark.parametrize("where", [CONTAINED, ADOPTED], ids=["namespace", "adopted"])
async def test_a_node_that_is_killed_takes_everything_it_has_started_with_it(
    seconds: str, where: tuple[str, ...]
) -> None:
    if where and (await asyncio.to_thread(subprocess.run, [*where, "true"], check=False)).returncode:
        pytest.skip("this machine grants no user namespace, in which to refuse others")
    assert shutil.which("setsid")
    node = await asyncio.create_subprocess_exec(*where, sys.executable, "-c", NODE, HIDING.format(seconds))
    try:
        await until(lambda: len(sleeping(seconds)) == 3)
    finally:
        node.kill()
        await node.wait()
    await until(lambda: sleeping(seconds) == [])
