"""What must be true of a history, however it came about: no overlap, nothing lost, nothing twice, nothing stuck.

Pure functions over what the lab has seen; each breach is one sentence.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Instant:
    """A task ran on a node, under an epoch, at that nanosecond of the machine's common clock."""

    at_ns: int
    task: str
    node: str
    epoch: int


def overlaps(instants: Iterable[Instant], tolerant: Collection[str] = ()) -> list[str]:
    """Runs that have begun before the one before them was over, and epochs that did not grow. Of the `tolerant` tasks
    an earlier run may still go on; no epoch may run on two nodes."""
    spans: dict[tuple[str, int], tuple[Instant, Instant]] = {}
    for instant in instants:
        key = instant.task, instant.epoch
        first, last = spans.get(key, (instant, instant))
        spans[key] = min(first, instant), max(last, instant)
    found = []
    before: tuple[Instant, Instant] | None = None
    for key in sorted(spans):
        first, last = spans[key]
        if first.node != last.node:
            found.append(f"epoch {first.epoch} of {first.task} ran on {first.node} and on {last.node}")
        alone = first.task not in tolerant
        if alone and before is not None and before[0].task == first.task and first.at_ns <= before[1].at_ns:
            late_ms = (before[1].at_ns - first.at_ns) / 1e6
            found.append(
                f"{first.task}: epoch {first.epoch} on {first.node} began {late_ms:.1f} ms before epoch "
                f"{before[1].epoch} on {before[1].node} had ended"
            )
        before = first, last
    return found


def lost(acknowledged: Iterable[int], present: Iterable[int], what: str) -> list[str]:
    """What was acknowledged and is not there."""
    missing = sorted(set(acknowledged) - set(present))
    return [f"{len(missing)} acknowledged {what} are not there: {_some(missing)}"] if missing else []


def doubled(rows: Iterable[int], what: str) -> list[str]:
    """What is there more than once."""
    twice = sorted(value for value, count in Counter(rows).items() if count > 1)
    return [f"{len(twice)} {what} are there more than once: {_some(twice)}"] if twice else []


def went_back(acknowledged: Mapping[str, int], present: Mapping[str, int]) -> list[str]:
    """Values that were only ever raised, and stand below what was acknowledged."""
    return [
        f"{name} stands at {present.get(name)}, and {value} was acknowledged"
        for name, value in sorted(acknowledged.items())
        if present.get(name, -1) < value
    ]


def _some(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:10])) + (" ..." if len(values) > 10 else "")
