"""What a node is short of by its own measure."""

from pathlib import Path

import pytest

from raftnode.liveness.resources import READ_AGAIN_S, Memory

MIB = 1024 * 1024


class KernelFiles:
    """The kernel's files, as a test writes them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now_s = 0.0
        self.memory = Memory(100 * MIB, meminfo=directory / "meminfo", cgroup=directory, clock=lambda: self.now_s)

    def has(self, available_mib: int) -> "KernelFiles":
        self.now_s += READ_AGAIN_S
        (self.directory / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:  {available_mib * 1024} kB\n")
        return self

    def container(self, limit: str, used_mib: int, cached_mib: int) -> "KernelFiles":
        self.now_s += READ_AGAIN_S
        (self.directory / "memory.max").write_text(f"{limit}\n")
        (self.directory / "memory.current").write_text(f"{used_mib * MIB}\n")
        (self.directory / "memory.stat").write_text(f"anon 1\ninactive_file {cached_mib * MIB}\n")
        return self


@pytest.fixture
def machine(tmp_path: Path) -> KernelFiles:
    return KernelFiles(tmp_path)


def test_a_machine_whose_memory_runs_out_says_so_until_there_is_twice_the_limit_again(machine: KernelFiles) -> None:
    shown = [machine.has(mib).memory.flags() for mib in (100, 99, 150, 199, 200, 150)]
    short = ("EarlyOutOfMemory",)
    assert shown == [(), short, short, short, (), ()]


def test_a_container_counts_its_own_limit_and_cached_files_as_free(machine: KernelFiles) -> None:
    machine.has(10_000)
    assert machine.container(str(500 * MIB), 450, 60).memory.flags() == ()
    assert machine.container(str(500 * MIB), 450, 40).memory.flags() == ("EarlyOutOfMemory",)
    assert machine.container("max", 450, 0).memory.flags() == ()


def test_a_system_that_says_nothing_is_short_of_nothing(machine: KernelFiles) -> None:
    assert machine.memory.flags() == ()
    (machine.directory / "meminfo").write_text("MemAvailable:\n")
    assert machine.memory.flags() == ()


def test_a_limit_of_zero_switches_it_off(machine: KernelFiles) -> None:
    machine.has(0)
    assert Memory(0, meminfo=machine.directory / "meminfo", cgroup=machine.directory).flags() == ()
    assert machine.memory.flags() == ("EarlyOutOfMemory",)


def test_reports_that_follow_each_other_ask_the_system_once(machine: KernelFiles) -> None:
    assert machine.has(50).memory.flags() == ("EarlyOutOfMemory",)
    machine.has(1000)
    machine.now_s -= 0.1
    assert machine.memory.flags() == ("EarlyOutOfMemory",), "it was asked just now"
    machine.now_s += 0.1
    assert machine.memory.flags() == ()
