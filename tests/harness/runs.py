"""Who ran what, from when to when: the nodes' journals of runs merged, and the proof that no two runs overlap.

A node writes an interval when it ends. A process that is killed leaves its last interval unwritten, so the harness,
which saw the process die or freeze, closes it: nothing that a body may have done is left out.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Span:
    """From when to when, in nanoseconds of the machine's common clock; `to_ns` is None while it lasts."""

    from_ns: int
    to_ns: int | None

    def until(self, now_ns: int) -> int:
        """Its end, or now."""
        return now_ns if self.to_ns is None else self.to_ns


@dataclass(frozen=True, order=True)
class Interval:
    """A stretch of time in which a body may have acted."""

    from_ns: int
    to_ns: int
    task: str
    node: str
    epoch: int

    def __str__(self) -> str:
        return f"{self.task} on {self.node}, epoch {self.epoch}: {self.from_ns} to {self.to_ns}"


@dataclass
class Witness:
    """What the harness saw of each node's processes: their lives that are over, and when they stood still."""

    lives: dict[str, list[Span]] = field(default_factory=dict)
    freezes: dict[str, list[Span]] = field(default_factory=dict)


def machine_ns() -> int:
    """The clock that all processes of the machine share, and that the journals of runs use."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def read(directories: Mapping[str, Path], witness: Witness) -> dict[str, list[Interval]]:
    """The intervals of each task, in order of time, from the data directories of the nodes (by tag)."""
    now_ns = machine_ns()
    by_task: dict[str, list[Interval]] = defaultdict(list)
    for tag, directory in directories.items():
        lines = list(_lines(directory))
        still = [(s.from_ns, s.until(now_ns)) for s in witness.freezes.get(tag, [])]
        still += [(line["from_ns"], line["to_ns"]) for line in lines if line["event"] == "frozen"]
        lives = witness.lives.get(tag, [])
        for interval in _of_node(tag, lines, lives, now_ns):
            by_task[interval.task] += _without(interval, still)
    return {task: sorted(intervals) for task, intervals in by_task.items()}


def assert_no_overlap(by_task: Mapping[str, list[Interval]], tasks: Iterable[str]) -> None:
    """Fails when two runs of one task acted at the same time, and when a named task (a part of its key) never ran."""
    for task in tasks:
        assert any(task.lower() in key.lower() for key in by_task), f"{task} never ran; these did: {sorted(by_task)}"
    for intervals in by_task.values():
        for earlier, later in pairwise(_merged(intervals)):
            assert earlier.to_ns <= later.from_ns, f"two runs at once:\n  {earlier}\n  {later}"


def _merged(intervals: list[Interval]) -> list[Interval]:
    """Neighbours of one run joined, so that comparing neighbours compares every two runs that could meet."""
    merged: list[Interval] = []
    for one in intervals:
        last = merged[-1] if merged else None
        if last and (last.node, last.epoch) == (one.node, one.epoch):
            merged[-1] = Interval(last.from_ns, max(last.to_ns, one.to_ns), one.task, one.node, one.epoch)
        else:
            merged.append(one)
    return merged


def _of_node(tag: str, lines: Iterable[dict[str, Any]], lives: Iterable[Span], now_ns: int) -> Iterator[Interval]:
    newest: dict[tuple[str, int], int] = {}
    for line in lines:
        run = (line["task"], line["epoch"])
        if line["event"] == "active":
            yield Interval(line["from_ns"], line["to_ns"], line["task"], tag, line["epoch"])
        if line["event"] == "end":
            newest.pop(run, None)
        elif line["event"] in ("start", "active"):
            newest[run] = line["to_ns"]
    for (task, epoch), from_ns in newest.items():
        died_ns = min((life.until(now_ns) for life in lives if life.until(now_ns) >= from_ns), default=now_ns)
        yield Interval(from_ns, died_ns, task, tag, epoch)


def _without(interval: Interval, still: Iterable[tuple[int, int]]) -> list[Interval]:
    """The interval without the time in which the process stood still."""
    pieces = [(interval.from_ns, interval.to_ns)]
    for from_ns, to_ns in still:
        pieces = [
            piece
            for a, b in pieces
            for piece in ([(a, b)] if to_ns <= a or from_ns >= b else [(a, from_ns), (to_ns, b)])
            if piece[0] < piece[1]
        ]
    return [Interval(a, b, interval.task, interval.node, interval.epoch) for a, b in pieces]


def _lines(directory: Path) -> Iterator[dict[str, Any]]:
    for file in (directory / "runs.jsonl.1", directory / "runs.jsonl"):
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        for line in text.splitlines(keepends=True):
            # Only a line that a killed process left half-written has no end.
            if line.endswith("\n"):
                yield json.loads(line)
