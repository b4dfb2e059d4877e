"""Which task held the loop of a process that was killed for it: real processes, really killed."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from raftnode.record.commands import BlameTask
from tasks.runtime.stall_tracker import SIGNAL, FileStallTracker, StallTracker, open_stall_tracker
from tests.unit.tasks.conftest import until

PROCESS = """
import asyncio, re, sys, time
from pathlib import Path
from tasks.runtime.stall_tracker import FileStallTracker

async def body():
    await asyncio.sleep(0.05)
    {does}

async def main():
    stall_tracker = FileStallTracker(Path(sys.argv[1]))
    task = asyncio.create_task(run(stall_tracker))
    while True:
        stall_tracker.arm(0.3)
        await asyncio.sleep(0.05)

async def run(stall_tracker):
    await stall_tracker.track("db/Kind/t", 7, body())

asyncio.run(main())
"""


async def body_of(does: str, directory: Path) -> asyncio.subprocess.Process:
    program = PROCESS.format(does=does)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(directory))
    await until((directory / "on_loop").exists)
    return process


@pytest.mark.parametrize("does", ["time.sleep(3600)", "re.match('(a+)+$', 'a' * 60 + 'b')"], ids=["blocks", "spins"])
async def test_a_body_that_held_the_loop_when_its_process_was_killed_is_named(tmp_path: Path, does: str) -> None:
    process = await body_of(does, tmp_path)
    try:
        await until(lambda: (tmp_path / "held_at").stat().st_size > 0)
    finally:
        process.kill()
        await process.wait()
    stall_tracker = FileStallTracker(tmp_path)
    assert [(one.key, one.epoch) for one in stall_tracker.unreported] == [("db/Kind/t", 7)]
    assert "in body" in stall_tracker.unreported[0].stack
    assert stall_tracker.is_unreported("db/Kind/t")
    assert not stall_tracker.is_unreported("db/Kind/other")
    stall_tracker.close()
    # A process that could not report leaves it to the next one.
    stall_tracker = FileStallTracker(tmp_path)
    told: list[BlameTask] = []

    async def propose(command: BlameTask) -> None:
        told.append(command)

    assert await stall_tracker.report("A", propose) == ["db/Kind/t"]
    assert [(one.key, one.epoch, one.tag) for one in told] == [("db/Kind/t", 7, "A")]
    assert not stall_tracker.is_unreported("db/Kind/t")
    stall_tracker.close()
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []


def test_a_list_that_cannot_be_read_is_said_and_hides_nothing_newer(tmp_path: Path) -> None:
    (tmp_path / "on_loop").write_bytes(b"7 db/Kind/t\0")
    (tmp_path / "held_at").write_bytes(b"Thread\n  File x in body\n")
    (tmp_path / "blamed.json").write_bytes(b"[{")
    with capture_logs() as logs:
        stall_tracker = FileStallTracker(tmp_path)
    assert [(one.key, one.epoch) for one in stall_tracker.unreported] == [("db/Kind/t", 7)]
    assert [line["file"] for line in logs] == [str(tmp_path / "blamed.json")]
    stall_tracker.close()


async def test_a_process_that_is_killed_while_its_loop_turns_blames_nobody(tmp_path: Path) -> None:
    process = await body_of("await asyncio.sleep(3600)", tmp_path)
    process.kill()
    await process.wait()
    stall_tracker = FileStallTracker(tmp_path)
    assert stall_tracker.unreported == []
    stall_tracker.close()


BUSY = """
import sys, threading, time
from pathlib import Path
from tasks.runtime.stall_tracker import FileStallTracker

def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)

def busy():
    while True:
        deep(50)

threading.Thread(target=busy, daemon=True).start()
stall_tracker, seen, end_s = FileStallTracker(Path(sys.argv[1])), 0, time.monotonic() + 3
stack = Path(sys.argv[1]) / "held_at"
while time.monotonic() < end_s:
    stall_tracker.arm(0.0003)
    for _ in range(100):
        deep(80)
    seen += stack.stat().st_size > 0
stall_tracker.disarm()
stall_tracker.close()
print(seen)
"""


async def test_a_process_that_is_only_slow_is_written_down_again_and_again_and_goes_on(tmp_path: Path) -> None:
    """Its frames change while they are looked at: a thread that looked at them would crash it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BUSY, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    assert int(printed) >= 20


async def test_while_nothing_runs_nothing_is_written_down_and_a_late_signal_ends_nobody(tmp_path: Path) -> None:
    stall_tracker = FileStallTracker(tmp_path)
    stall_tracker.arm(0.02)
    stall_tracker.disarm()
    time.sleep(0.05)  # noqa: ASYNC251  the loop is held on purpose
    assert (tmp_path / "held_at").stat().st_size == 0
    stall_tracker.arm(0.02)
    time.sleep(0.05)  # noqa: ASYNC251
    assert "test_stall_tracker.py" in (tmp_path / "held_at").read_text()
    stall_tracker.arm(3600)
    assert (tmp_path / "held_at").stat().st_size == 0
    stall_tracker.close()
    os.kill(os.getpid(), SIGNAL)


async def test_a_body_is_driven_as_if_nothing_stood_between(tmp_path: Path) -> None:
    stall_tracker = FileStallTracker(tmp_path)
    log: list[str] = []

    async def body() -> None:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, "value")
        log.append(await future)
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            log.append("timeout")
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        log.append("waiting")
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")

    async def run() -> None:
        await stall_tracker.track("k", 1, body())

    task = asyncio.create_task(run())
    await until(lambda: log == ["value", "timeout", "waiting"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log[-1] == "cancelled"

    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await stall_tracker.track("k", 1, fails())
    stall_tracker.close()


async def test_a_body_that_holds_the_loop_and_lets_it_go_is_named_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.runtime.stall_tracker.HELD_S", 0.0)
    stall_tracker = FileStallTracker(tmp_path)
    with capture_logs() as logs:
        await stall_tracker.track("db/Kind/t", 7, asyncio.sleep(0))
    stall_tracker.close()
    assert logs[0]["task"] == "db/Kind/t"
    assert "held the event loop" in logs[0]["event"]


async def test_a_disk_that_takes_no_file_costs_the_name_and_not_the_node(tmp_path: Path) -> None:
    stall_tracker = open_stall_tracker(tmp_path / "gone")
    assert type(stall_tracker) is StallTracker
    stall_tracker.arm(1)
    stall_tracker.disarm()
    assert not stall_tracker.is_unreported("k")
    await stall_tracker.track("k", 1, asyncio.sleep(0))
    stall_tracker.close()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (b"garbage\0", b""),
        (b"\xff\xfe 12\0", b""),
        (b" key\0", b""),
        (b"12\0", b""),
        (b"12 key", b""),
        (b"9" * 4000 + b" key\0", b""),
        (b"9999999999999999999 key\0", b""),
        (b"\0" * 4096, b"\x00"),
        (b"\0" * 4096, b'[{"key":"a","epoch":99999999999999999999999,"stack":""}]'),
    ],
)
def test_files_that_are_not_as_they_were_written_accuse_nobody_and_keep_no_node_from_starting(
    tmp_path: Path, name: bytes, kept: bytes
) -> None:
    (tmp_path / "on_loop").write_bytes(name)
    (tmp_path / "held_at").write_bytes(b"Thread\n  File x\n")
    if kept:
        (tmp_path / "blamed.json").write_bytes(kept)
    stall_tracker = open_stall_tracker(tmp_path)
    assert isinstance(stall_tracker, FileStallTracker)
    assert stall_tracker.unreported == []
    stall_tracker.close()
