"""The daemon and the simulator are put together in one place: what the simulator finds is found in what runs."""

import ast
from pathlib import Path

from raftnode import assembly

ROOT = Path(assembly.__file__).parents[1]
PARTS = {"Forming", "Health", "Heartbeat", "Observer", "Raft", "Supervisor", "Watchdog"}


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
