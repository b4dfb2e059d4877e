"""What must be true of a simulated world whatever happens in it. Each breach is kept as one sentence with its time."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from raftnode.record.model import Record
from tests.simulation.body import TolerantSink
from tests.simulation.loop import Process

RECORD_EVERY = 16
"""Records are compared at every so many indexes."""


@dataclass
class BodyRun:
    """One life of a body, in true seconds."""

    key: str
    epoch: int
    node: str
    process: Process
    from_s: float
    to_s: float | None = None
    tolerant: bool = False
    overtaken: bool = False


class BodyChecker:
    """Who ran what from when to when: no two bodies of a task at once, no epoch twice at different nodes.

    A body that tolerates partitions may still run when the next begins. `went_on` are the epochs of those that have
    ended, each with its claim key and process: the cluster is to be told of them.
    """

    def __init__(self, time: Callable[[], float], breach: Callable[[str], None]) -> None:
        self._time, self._breach = time, breach
        self.running: dict[str, list[BodyRun]] = {}
        self.ended = 0
        self.epochs: dict[str, tuple[int, object]] = {}
        self.went_on: dict[int, tuple[str, Process]] = {}
        self.floor = 0
        """The highest epoch from before a recovery by hand."""

    def begin(self, key: str, epoch: int, process: Process, owner: object, *, tolerant: bool = False) -> BodyRun:
        """A body begins to act, or the same one tries again. `owner`: what stands for its one claim."""
        run = BodyRun(key, epoch, process.name, process, self._time(), tolerant=tolerant)
        others = self.running.setdefault(key, [])
        for other in others:
            if other.tolerant and other.epoch < epoch:
                other.overtaken = True
                continue
            self._breach(
                f"OVERLAP {key}: epoch {epoch} begins on {run.node} while epoch {other.epoch} runs on {other.node}"
            )
        if epoch <= self.floor:
            self._breach(f"EPOCH {key}: {epoch} begins on {run.node}, not above {self.floor} from before the recovery")
        newest, before = self.epochs.get(key, (0, owner))
        if epoch < newest or (epoch == newest and before is not owner):
            self._breach(f"EPOCH {key}: {epoch} begins on {run.node} after {newest} has run")
        self.epochs[key] = (epoch, owner)
        others.append(run)
        return run

    def end(self, run: BodyRun, process: Process) -> None:
        """The body has ended; a dead process ends nothing."""
        if process.alive and run in self.running.get(run.key, []):
            self.running[run.key].remove(run)
            self.ended += 1
            if run.overtaken:
                self.went_on[run.epoch] = (run.key, process)

    def untold(self, record: Record) -> str:
        """A run that went on beside its successor, of which the record does not know though its process has lived long
        enough to say so; empty if there is none."""
        for epoch, (key, process) in sorted(self.went_on.items()):
            claim = record.claims.get(key)
            void = claim is not None and any((run.epoch, run.state) == (epoch, "Void") for run in claim.runs)
            if process.alive and void:
                return f"nobody was told that epoch {epoch} of {key} went on on {process.name}"
        return ""

    def died(self, process: Process) -> None:
        """With a process all of its bodies end."""
        for runs in self.running.values():
            gone = [run for run in runs if run.process is process]
            for run in gone:
                runs.remove(run)
            self.ended += len(gone)

    def of(self, key: str) -> list[BodyRun]:
        """The bodies of a task that run now."""
        return self.running.get(key, [])


class Logs:
    """What was applied where: the same entry and the same record at each index on all nodes, and what grows grows.
    `began`: the record that this cluster's log goes on from."""

    def __init__(self, breach: Callable[[str], None], began: Record | None = None) -> None:
        self._breach = breach
        self.began = began or Record()
        self.places: dict[int, tuple[int, bytes]] = {}
        self.records: dict[int, Record] = {}
        self.acknowledged: dict[int, bytes] = {}
        self.leaders: dict[int, str] = {}
        self.newest: Record = self.began

    def applied(self, node: str, index: int, term: int, command: bytes, before: Record, after: Record) -> None:
        """A node has applied an entry."""
        if before.index == self.began.index and before != self.began:
            self._breach(f"RECORD {node} goes on from another record at {before.index} than the cluster began with")
        place = (term, digest(command))
        known = self.places.setdefault(index, place)
        if known != place:
            self._breach(f"DIVERGED {node} applies another entry at {index} than a node before it")
        if index % RECORD_EVERY == 0 and self.records.setdefault(index, after) != after:
            self._breach(f"RECORD {node} has another record at {index} than a node before it")
        if index > self.newest.index:
            self._grows(self.newest, after)
            self.newest = after

    def answered(self, index: int, command: bytes) -> None:
        """Whoever proposed the command was told that it is done."""
        self.acknowledged[index] = digest(command)

    def leads(self, node: str, term: int) -> None:
        """A node leads a term."""
        first = self.leaders.setdefault(term, node)
        if first != node:
            self._breach(f"LEADERS {first} and {node} both lead term {term}")

    def check_acknowledged(self) -> None:
        """At the end: all that was acknowledged stands in the log where it was said to."""
        for index, told in self.acknowledged.items():
            place = self.places.get(index)
            if place is None or place[1] != told:
                self._breach(f"LOST the acknowledged command at {index}")

    def _grows(self, before: Record, after: Record) -> None:
        if after.claims is not before.claims:
            for key, claim in after.claims.items():
                old = before.claims.get(key)
                if old is not None and old.epoch > claim.epoch:
                    self._breach(f"EPOCH the claim of {key} went back from {old.epoch} to {claim.epoch}")
        for name, database in after.databases.items():
            older = before.databases.get(name)
            if older is None or older.progress is database.progress:
                continue
            for id, made in database.progress.items():
                was = older.progress.get(id)
                if was is not None and _rank(made) < _rank(was):
                    self._breach(f"PROGRESS of {name}/{id} went back from {_rank(was)} to {_rank(made)}")


def check_sinks(sinks: dict[str, Any], breach: Callable[[str], None]) -> None:
    """Every step came exactly once, in order, and epochs only grew; where runs may overlap, those of each run."""
    for name, sink in sorted(sinks.items()):
        if isinstance(sink, TolerantSink):
            _check_each_run(name, sink, breach)
            continue
        before = (0, 0)
        for epoch, step in sink.written:
            if step != before[1] + 1:
                breach(f"SINK {name}: step {step} of epoch {epoch} follows step {before[1]} of epoch {before[0]}")
            if epoch < before[0]:
                breach(f"SINK {name}: the stale epoch {epoch} writes after {before[0]}")
            before = (epoch, step)


def _check_each_run(name: str, sink: TolerantSink, breach: Callable[[str], None]) -> None:
    last: dict[int, int] = {}
    for epoch, step in sink.written:
        if step != last.get(epoch, step - 1) + 1:
            breach(f"SINK {name}: step {step} of epoch {epoch} follows step {last[epoch]}")
        last[epoch] = step


def _rank(progress: Any) -> tuple[int, int, int]:
    return progress.generation, progress.epoch, progress.processed


def digest(command: bytes) -> bytes:
    """What tells commands apart."""
    return blake2b(command, digest_size=16).digest()
