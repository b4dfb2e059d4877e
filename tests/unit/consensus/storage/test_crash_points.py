"""Whatever takes more than one step on the disk: the power fails before each of them in turn, and the node starts."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.simulation.disk import MemoryDisk, PowerLost
from tests.unit.consensus import simulated
from tests.unit.consensus.simulated import RaftWorld, SimulatedNode

STEPS_MAX = 40
SETTINGS: dict[str, Any] = {"snapshot_bytes_min": 1_500, "segment_bytes_max": 500, "trailing_entries": 3}
Begin = Callable[[RaftWorld], tuple[SimulatedNode, Callable[[], bool]]]


@pytest.fixture(autouse=True)
def disks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every node has a disk whose power fails after so many steps. Tracebacks of that are not drawn: it takes long."""
    monkeypatch.setattr(simulated, "CrashDisk", MemoryDisk)
    with capture_logs():
        yield


def written(world: RaftWorld, count: int, size: int = 100) -> None:
    leader = world.leader()
    for number in range(count):
        world.propose(leader, b"%d " % number + bytes(size))
        if number % 5 == 0:
            world.round()
    world.settle()


def wipe(world: RaftWorld) -> tuple[SimulatedNode, Callable[[], bool]]:
    """A node that has a snapshot and a cut journal learns that its log is not the cluster's."""
    written(world, 30)
    former = world.leader()
    term = former.engine.status.term
    former.engine.step_down(None)
    world.run_until(
        lambda: any(node.engine.status.role == "Leader" and node.engine.status.term > term for node in world.alive)
    )
    written(world, 5)
    leader = world.leader()
    liar = next(node for node in world.alive if node is not leader)
    world.disconnect_all(liar.tag)
    journal = liar.engine._journal
    first = next(index for _, index, at in journal.entries if at == leader.engine.status.term)
    last = journal.last_index
    journal.truncate(first)
    for index in range(first, last + 1):
        journal.append((b"\x00a lie", index, term))
    journal.sync()
    liar.machine.applied = [entry for entry in liar.machine.applied if entry[0] < first]
    assert liar.engine.status.snapshot_index > 0
    assert journal.first_index > 1
    world.propose(leader, b"one more")
    return liar, lambda: liar.wipes != [] and liar.engine.status.applied_index == leader.engine.status.applied_index


def install(world: RaftWorld) -> tuple[SimulatedNode, Callable[[], bool]]:
    """A follower that was away for long takes the leader's snapshot, over a journal of its own."""
    written(world, 10)
    leader = world.leader()
    late = next(node for node in world.alive if node is not leader)
    world.disconnect_all(late.tag)
    for number in range(40):
        world.propose(leader, b"%d " % number + bytes(100))
        if number % 5 == 0:
            world.round()
    assert leader.engine._journal.first_index > late.engine.status.last_index
    return late, lambda: late.engine.status.applied_index == leader.engine.status.applied_index


def cut(world: RaftWorld) -> tuple[SimulatedNode, Callable[[], bool]]:
    """The leader writes a snapshot and cuts its journal."""
    written(world, 8)
    leader = world.leader()
    leader.engine.snapshot()
    return leader, lambda: leader.engine.status.snapshot_index > 0


def conflict(world: RaftWorld) -> tuple[SimulatedNode, Callable[[], bool]]:
    """A deposed leader's entries, over several segments, give way to its successor's."""
    written(world, 5)
    former = world.leader()
    world.disconnect_all(former.tag)
    for number in range(12):
        world.propose(former, b"never committed %d" % number + bytes(100))
        former.engine.tick()
    world.run_until(lambda: any(node.engine.status.role == "Leader" for node in world.alive if node is not former))
    leader = next(node for node in world.alive if node is not former and node.engine.status.role == "Leader")
    world.propose(leader, b"kept")
    world.round()
    return former, lambda: former.engine.status.applied_index == leader.engine.status.applied_index


@pytest.mark.parametrize("begin", [wipe, install, cut, conflict], ids=lambda begin: begin.__name__)
def test_a_node_starts_wherever_the_power_failed(begin: Begin) -> None:
    struck = 0
    for steps in range(STEPS_MAX):
        world = RaftWorld("ABC", seed=steps, **SETTINGS)
        node, done = begin(world)
        assert isinstance(node.disk, MemoryDisk)
        node.disk.steps_left = steps
        world.connect_all()
        world.run_until(lambda: node.failures != [] or done())  # noqa: B023
        struck += node.failures != []
        node.crash()
        node.start()
        world.connect_all()
        world.settle()
        written(world, 3)
        assert {tuple(other.machine.commands) for other in world.alive} == {tuple(node.machine.commands)}
        assert all(other.failures == [] for other in world.alive if other is not node)
    assert struck > 3, "the power failed on the way"


def test_a_first_start_is_begun_again_wherever_the_power_failed() -> None:
    struck = 0
    for steps in range(20):
        world = RaftWorld("ABC", seed=steps, **SETTINGS)
        written(world, 3)
        node = world["C"]
        node.crash()
        node.disk = disk = MemoryDisk()  # type: ignore[assignment]
        disk.steps_left = steps
        try:
            node.start()
        except PowerLost:
            struck += 1
        node.crash()
        node.start()
        world.connect_all()
        world.settle()
    assert struck > 3, "the power failed on the way"
