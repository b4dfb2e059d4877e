"""The wall clock of a node's process, set from outside."""

from pathlib import Path

from tests.harness.cluster import Cluster

PATCH = """
import time

def moved(read, unit):
    def wall():
        with open({file!r}) as file:
            return read() + int(file.read()) * unit
    return wall

time.time = moved(time.time, 1)
time.time_ns = moved(time.time_ns, 10**9)
"""
"""Run by the interpreter before anything else. The usual preloaded library, libfaketime, would move the kernel's timers
on all other clocks too, among them the one that ends a process whose tasks outlive their lease."""


class WallClock:
    """The wall clock of one node's process, set from outside. The clocks that only ever grow stay the machine's."""

    def __init__(self, cluster: Cluster, tag: str, directory: Path) -> None:
        self._file = directory / "offset"
        directory.mkdir()
        self.set_sec(0)
        (directory / "sitecustomize.py").write_text(PATCH.format(file=str(self._file)))
        node = cluster.nodes[tag]
        node.prefix = (*node.prefix, "env", f"PYTHONPATH={directory}")

    def set_sec(self, ahead_sec: int) -> None:
        """Sets it to so many seconds ahead of the machine's; negative: behind."""
        new = self._file.with_suffix(".new")
        new.write_text(str(ahead_sec))
        new.replace(self._file)
