"""The daemon and the simulator are put together in one place: what the simulator finds is found in what runs."""

import ast
from pathlib import Path

from raftnode import assembly
from raftnode.assembly import Assembly
from raftnode.record.commands import encode
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.node import ProcessClock
from tests.simulation.world import World

ROOT = Path(assembly.__file__).parents[1]
PARTS = {"Announcer", "Health", "Heartbeat", "Observer", "Raft", "Supervisor", "Watchdog"}


def makes(file: Path) -> set[str]:
    """The parts that the file calls into being."""
    calls = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    return {call.func.id for call in calls if isinstance(call.func, ast.Name)} & PARTS


def test_only_the_assembly_makes_a_nodes_parts() -> None:
    files = [file for package in ("raftnode", "tests/simulation") for file in (ROOT / package).rglob("*.py")]
    # The record has an Observer of its own: what it remembers of the observer's decisions.
    files = [file for file in files if not file.is_relative_to(ROOT / "raftnode" / "record")]
    makers = {file.relative_to(ROOT).as_posix(): made for file in files if (made := makes(file))}
    assert makers == {"raftnode/assembly.py": PARTS}


def test_the_lease_is_checked_at_each_change_of_the_cluster_without_waiting_for_a_beat(tmp_path: Path) -> None:
    """A node that leaves and joins again between two beats must be seen to leave."""
    world = World(1, VirtualLoop(), tmp_path)
    machine, process = world.machines["A"], Process("A")
    machine.clock = ProcessClock(machine)
    parts = Assembly(setup := machine._setup(), machine._ports(process, setup))
    told: list[str] = []
    parts.heartbeat.subscribe(lambda: told.append(parts.heartbeat.role))
    parts.replica.apply(1, 1, encode(machine._form()))
    assert told == []
    parts.replica.after_tick()
    assert told == ["Candidate"]
    world.loop.close()
