"""The kernel's timer, on real processes that hang, stop, or behave."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftnode.foundation.ports import SystemClock
from raftnode.lease import FOREVER_NS
from raftnode.liveness.kill_timer import KillTimer, Watchdog, WatchdogUnavailable
from tests.harness.cluster import kill_pending
from tests.harness.runs import machine_ns

CHILD = """
import os, re, signal, sys, time
from raftnode.foundation.ports import SystemClock
from raftnode.liveness.kill_timer import KillTimer, Watchdog
MS = 1_000_000
clock = SystemClock()
watchdog = Watchdog(KillTimer(), clock)
def lease(ms, stop=50): watchdog.lease_until(clock.elapsed_upper_ns() + ms * MS, stop * MS)
def say(word): print(word, flush=True)
"""


class Child:
    def __init__(self, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD + code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )

    def says(self, word: str) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline().strip() == word

    def ended(self) -> int:
        return self.process.wait(timeout=30)


@pytest.fixture
def children() -> Iterator[list[Child]]:
    made: list[Child] = []
    yield made
    for child in made:
        child.process.kill()
        child.process.wait()
        for pipe in (child.process.stdin, child.process.stdout):
            assert pipe
            pipe.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, to be frozen."""
    image, directory = tmp_path / "image", tmp_path / "disk"
    directory.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    mount = f"mkfs.ext4 -q {image} && mount -o loop {image} {directory}"
    if subprocess.run(["sh", "-c", mount], capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


def test_a_process_that_hangs_with_the_interpreter_lock_held_is_killed(children: list[Child]) -> None:
    hang = Child("lease(100); watchdog.bodies_running(1); say('ready'); re.match('(a+)+$', 'a' * 60 + 'b')")
    children.append(hang)
    hang.says("ready")
    assert hang.ended() == -signal.SIGKILL


def test_a_stopped_process_is_killed(children: list[Child]) -> None:
    stopped = Child("lease(1000); watchdog.bodies_running(1); say('ready'); sys.stdin.read()")
    children.append(stopped)
    stopped.says("ready")
    os.kill(stopped.process.pid, signal.SIGSTOP)
    assert stopped.ended() == -signal.SIGKILL


def test_a_process_that_waits_for_a_disk_does_nothing_more_once_its_deadline_is_past(
    children: list[Child], disk: Path
) -> None:
    writing = Child(
        f"""
shown, file = open({str(disk)!r} + ".shown", "wb", 0), open({str(disk / "file")!r}, "wb", 0)
lease(300); watchdog.bodies_running(1); say('ready')
for number in range(10**9): shown.write(b"%20d" % time.clock_gettime_ns(time.CLOCK_BOOTTIME)); file.write(b"x")
"""
    )
    children.append(writing)
    writing.says("ready")
    subprocess.run(["fsfreeze", "--freeze", disk], check=True)
    try:
        while not kill_pending(writing.process.pid):
            assert writing.process.poll() is None, "it waits in the kernel, and the signal with it"
            time.sleep(0.01)
        pending_ns = machine_ns()
        time.sleep(0.2)
        assert writing.process.poll() is None
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", disk], check=True)
    assert writing.ended() == -signal.SIGKILL
    assert int(Path(f"{disk}.shown").read_bytes()[-20:]) < pending_ns


def test_a_deadline_that_is_past_kills_at_once(children: list[Child]) -> None:
    late = Child("lease(-100, stop=0); say('ready'); watchdog.bodies_running(1); sys.stdin.read()")
    children.append(late)
    late.says("ready")
    assert late.ended() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("every body has ended", "lease(50); watchdog.bodies_running(1); watchdog.bodies_running(0)"),
        ("no body has begun", "lease(50)"),
        (
            "the lease is renewed",
            "watchdog.bodies_running(1); [(lease(700), time.sleep(.02)) for _ in range(50)]; lease(60_000)",
        ),
        ("the lease has no end", "lease(50); watchdog.bodies_running(1); watchdog.lease_until(1 << 62, 0)"),
        ("the timer is given back", "lease(50); watchdog.bodies_running(1); watchdog._timer.close()"),
    ],
)
def test_a_process_lives_when(name: str, code: str, children: list[Child]) -> None:
    child = Child(f"{code}; time.sleep(.4); say('alive')")
    children.append(child)
    child.says("alive")
    assert child.ended() == 0, name


def test_a_child_of_the_process_does_not_inherit_the_timer(children: list[Child]) -> None:
    code = """
pid = os.fork()
if pid == 0:
    time.sleep(.5); say('survived'); os._exit(0)
lease(100); watchdog.bodies_running(1); sys.stdin.read()
"""
    child = Child(code)
    children.append(child)
    assert child.ended() == -signal.SIGKILL
    child.says("survived")


def test_the_kernel_frees_the_killed_processs_file_lock(children: list[Child], tmp_path: object) -> None:
    lock = f"{tmp_path}/lock"
    code = (
        f"import fcntl; f = open({lock!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); lease(100); watchdog.bodies_running(1)"
    )
    child = Child(code + "; say('ready'); sys.stdin.read()")
    children.append(child)
    child.says("ready")
    child.ended()
    free = Child(f"import fcntl; f = open({lock!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB); say('free')")
    children.append(free)
    free.says("free")


def test_another_platform_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(WatchdogUnavailable, match="Linux only"):
        KillTimer()


def test_a_kernel_that_refuses_is_reported_with_its_reason() -> None:
    timer = KillTimer()
    timer.close()
    with pytest.raises(WatchdogUnavailable, match="timer_settime failed: Invalid argument"):
        timer.disarm()
    with pytest.raises(WatchdogUnavailable, match="has no timer_of_dreams"):
        timer._call("timer_of_dreams")


def test_the_timer_follows_the_bodies_and_the_lease() -> None:
    set_to: list[int | None] = []

    class Recorder(KillTimer):
        def kill_at(self, boottime_ns: int) -> None:
            set_to.append(boottime_ns)

        def disarm(self) -> None:
            set_to.append(None)

    watchdog = Watchdog(Recorder(), SystemClock())
    watchdog.lease_until(10**18, 5)
    watchdog.bodies_running(1)
    watchdog.bodies_running(2)
    watchdog.bodies_running(2)
    watchdog.lease_until(2 * 10**18, 5)
    watchdog.bodies_running(0)
    watchdog.lease_until(FOREVER_NS, 5)
    armed = [at is not None for at in set_to]
    assert armed == [False, True, True, False, False]
    assert (set_to[2] or 0) - (set_to[1] or 0) > 9 * 10**17


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a process namespace")
def test_the_first_process_of_a_container_is_refused_as_the_kernel_would_not_kill_it() -> None:
    program = """
from raftnode.liveness.kill_timer import KillTimer, WatchdogUnavailable
try:
    KillTimer()
except WatchdogUnavailable as refused:
    print(refused)
"""
    done = subprocess.run(
        ["unshare", "--pid", "--fork", sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "under an init" in done.stdout
