"""What a recovery by hand may lose, and what it may not.

Forced from one survivor, an acknowledged command may be lost only if no survivor has it in its log; the one with the
highest term, and then the highest index, is recovered. From a saved snapshot, only if it was acknowledged after the
save was asked for (with `local`: if the node that gave it had not applied it). With the lost nodes of a forced recovery
go databases that only they had a copy of. All else of the record must be in the new one as it was in the survivor's or
the saved one, but for what a new beginning changes by its nature: the nodes, who has copies, who holds claims, the
index, the generation, the decisions; and from a snapshot also the cluster's id, progress and the requests remembered.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from raftnode.cluster.replica import Replica
from raftnode.consensus.engine.members import application_part
from raftnode.consensus.storage import offline
from raftnode.consensus.storage.journal import Journal
from raftnode.consensus.storage.offline import LastEntry
from raftnode.consensus.storage.snapshot import SnapshotStore
from raftnode.record.model import CommandResult, Database, Record
from tests.simulation.checkers import digest
from tests.simulation.node import Machine

Breach = Callable[[str], None]

SEGMENT_BYTES_MAX = 1 << 20
BEGINS_ANEW = frozenset({"index", "generation", "nodes", "databases", "claims", "held", "observer"})
ANOTHER_CLUSTER = frozenset({"cluster_id", "requests", "request_order", "request_first", "request_next"})
OF_COPIES = frozenset({"etag", "topology", "deletion_in_progress"})


@dataclass
class DiskLog:
    """What a stopped node has on its disk, read by the journal itself: all up to `base`, and the commands behind it."""

    base: int
    commands: dict[int, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, machine: Machine) -> "DiskLog":
        """Reads a copy; the disk stays as it is."""
        disk, directory = deepcopy(machine.disk), machine.directory
        snapshots = SnapshotStore(disk, directory)
        log = cls(snapshots.describe().index if snapshots.exists() else 1)
        journal = Journal(disk, directory, segment_bytes_max=SEGMENT_BYTES_MAX)
        for command, index, _ in journal.entries:
            body = application_part(command)
            if body is not None:
                log.commands[index] = digest(body)
        journal.close()
        return log

    def has(self, index: int, command: bytes) -> bool:
        """Whether that acknowledged command is in it. What a snapshot holds was committed, so that it is the same."""
        return index <= self.base or self.commands.get(index) == command


class WatchedReplica(Replica):
    """What the product reads out of a stopped node's directory; remembers which commands it applied."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._reached = machine.reached
        self.base = 0
        self.commands: dict[int, bytes] = {}
        self.strayed = False

    def restore(self, chunks: Iterable[bytes]) -> None:
        super().restore(chunks)
        self.base = self.record.index

    def apply(self, index: int, term: int, command: bytes) -> CommandResult:
        result = super().apply(index, term, command)
        self.commands[index] = digest(command)
        self.strayed |= index == self._reached.index and self.record != self._reached
        return result


@dataclass
class StoppedNode:
    """A node that was stopped for good, as the product reads it and as its journal does."""

    machine: Machine
    log: DiskLog
    last: LastEntry
    read: WatchedReplica

    @classmethod
    def of(cls, machine: Machine) -> "StoppedNode":
        """Raises ConsensusFailed when it cannot be recovered."""
        read = WatchedReplica(machine)
        last = offline.replay(machine.directory, read, deepcopy(machine.disk))
        return cls(machine, DiskLog.of(machine), last, read)


def lost_by_force(
    acknowledged: Mapping[int, bytes], chosen: StoppedNode, survivors: Sequence[StoppedNode], breach: Breach
) -> int:
    """How many acknowledged commands are lost as they may be; tells of those that may not, and of a record that the
    survivor had applied and that was read otherwise."""
    read, reached = chosen.read, chosen.machine.reached
    if read.strayed or read.record.index < reached.index:
        breach(f"LOST the record that {chosen.machine.tag} had applied at {reached.index}")
    lost = 0
    for index, command in acknowledged.items():
        if index <= read.base or read.commands.get(index) == command:
            continue
        having = [survivor.machine.tag for survivor in survivors if survivor.log.has(index, command)]
        if having:
            breach(f"LOST the acknowledged command at {index}, though {', '.join(having)} survived with it")
        lost += 1
    return lost


def changed(before: Record, after: Record, *, another_cluster: bool) -> list[str]:
    """What is not as it was, and should be."""
    may = BEGINS_ANEW | (ANOTHER_CLUSTER if another_cluster else frozenset())
    wrong = [name for name in Record.__struct_fields__ if name not in may and _differs(before, after, name)]
    may = OF_COPIES | ({"progress"} if another_cluster else frozenset())
    (tag,) = after.nodes
    for folded, was in before.databases.items():
        now = after.databases.get(folded)
        if now is not None:
            fields = (name for name in Database.__struct_fields__ if name not in may and _differs(was, now, name))
            wrong += [f"{name} of {folded}" for name in fields]
        elif another_cluster or was.topology.state_of(tag) is not None:
            wrong.append(folded)
    for key, claim in before.claims.items():
        kept = after.claims.get(key)
        gone = another_cluster or key.partition("/")[0] not in after.databases
        if kept is None and not gone:
            wrong.append(f"the claim of {key}")
        if kept is not None and (kept.state == "Held" or kept.epoch != claim.epoch):
            wrong.append(f"the claim of {key}, which is {kept.state} with epoch {kept.epoch}")
    return wrong


def _differs(before: object, after: object, name: str) -> bool:
    return bool(getattr(before, name) != getattr(after, name))
