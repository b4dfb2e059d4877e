"""The ways to recover by hand, each in a world of its own: by force from a survivor, and from a saved snapshot."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from raftnode.cluster import recovery
from raftnode.cluster.replica import Replica
from raftnode.consensus.model import ConsensusFailed, StorageDamaged
from raftnode.consensus.storage import offline
from raftnode.consensus.storage.offline import LastEntry
from raftnode.record.model import ClusterNode, Record
from raftnode.web.errors import ApiError
from raftnode.web.routes import snapshots
from tests.simulation.checkers import Logs
from tests.simulation.disk import MemoryDisk
from tests.simulation.losses import StoppedNode, changed, lost_by_force
from tests.simulation.node import Machine, address, url
from tests.simulation.recoveries import Recovered, revived
from tests.simulation.world import ACT_EVERY_S, POLL_S

ACT_OFTEN_S = (0.05, 0.3)
MINUTE_S = 60.0
"""The next recovery of the same cluster comes in another minute at the earliest: so its generation is another one."""
SAVE_EVERY_S = (0.5, 4.0)


class Forced(Recovered):
    """A majority is lost for good, and one survivor goes on."""

    name = "force"
    before: Logs
    survivors: list[StoppedNode]

    async def begins_anew(self) -> Machine | None:
        while not (sound := [node for node in self.machines.values() if node.reached.nodes and not node.flipped]):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        kept = self.chance.sample(sound, min(len(sound), self.chance.choice((1, 2, 2))))
        lost = [machine for machine in self.machines.values() if machine not in kept]
        self.note(f"all but {''.join(machine.tag for machine in kept)} will be lost")
        if self.chance.random() < 0.7:
            self.again(ACT_OFTEN_S, self.operators.act, self.loop.time() + 4)
            self.network.cut_ways({(a.tag, b.tag) for a in lost for b in kept})
            self.network.cut_ways({(b.tag, a.tag) for a in lost for b in kept})
            await asyncio.sleep(self.chance.uniform(0.2, 4))
        for machine in lost:
            self.off_for_good(machine)
            machine.disk = MemoryDisk()
        await asyncio.sleep(self.chance.uniform(0, 6))
        self.everybody_off()
        survivors = [survivor for machine in kept if (survivor := self._read(machine)) is not None]
        if not survivors:
            self.breach(f"STUCK none of {''.join(machine.tag for machine in kept)} can be recovered")
            return None
        self.before, self.survivors = self.logs, survivors
        return self.goes_on(the_best(survivors), survivors)

    def goes_on(self, chosen: StoppedNode, survivors: Sequence[StoppedNode]) -> Machine:
        """Begins anew with the chosen one."""
        acknowledged = self.before.acknowledged
        self.acknowledged_before = len(acknowledged)
        self.lost = lost_by_force(acknowledged, chosen, survivors, self.breach)
        machine = revived(chosen.machine)
        return self.begun(machine, self._by_force(machine, chosen))

    def _read(self, machine: Machine) -> StoppedNode | None:
        try:
            survivor = StoppedNode.of(machine)
        except ConsensusFailed as error:
            self.note(f"{machine.tag} cannot be recovered: {error}")
            return None
        self.note(f"the log of {machine.tag} ends in term {survivor.last.term} at {survivor.last.index}")
        return survivor if machine.tag in survivor.read.record.nodes else None

    def _by_force(self, machine: Machine, chosen: StoppedNode) -> Record:
        """Writes the new beginning, again if the power fails; then there is the old log or the new beginning."""
        last, old = chosen.last, chosen.read.record
        while True:
            begun, record = recovery.begun_by_force(recovery.Survivor(machine.tag, last, old), self.now())
            if self.written(machine, begun, record):
                break
            try:
                now = StoppedNode.of(machine)
            except ConsensusFailed as error:
                self.breach(f"TORN {machine.tag} cannot be recovered any more: {error}")
                return record
            if now.read.record not in (old, record):
                self.breach(f"TORN {machine.tag} is at {now.last}, and has neither the record of {last} nor of {begun}")
            last, old = now.last, now.read.record
        for what in changed(chosen.read.record, record, another_cluster=False):
            self.breach(f"LOST {what} of the survivor's record")
        return record


class Reconsidered(Forced):
    """The cluster that one survivor began is given up, with all that it did, and begun again from the other one."""

    name = "reconsider"

    async def begins_anew(self) -> Machine | None:
        first = await super().begins_anew()
        if first is None:
            return None
        others = [survivor for survivor in self.survivors if survivor.machine.tag != first.tag]
        if not others:
            return first
        self.marks_stale(first)
        first.start()
        self.again(ACT_OFTEN_S, self.operators.act, self.loop.time() + 6)
        await asyncio.sleep(self.chance.uniform(1, 6))
        self.everybody_off()
        await asyncio.sleep(MINUTE_S)
        return self.goes_on(others[0], others)

    def ghost(self, first: Machine) -> Machine | None:
        """Nobody starts the cluster that was given up: as a majority of one it would run the tasks too."""
        return None


def the_best(survivors: Sequence[StoppedNode]) -> StoppedNode:
    """The one to recover: it has every acknowledged command that any of them has."""
    return max(survivors, key=lambda survivor: (survivor.last.term, survivor.last.index))


@dataclass
class Saved:
    """A snapshot that somebody asked a node for. `pieces_left`: it did not arrive whole, or not yet."""

    path: Path
    record: Record
    pieces_left: bool = True


class Restored(Recovered):
    """All nodes are stopped for good, and a cluster begins from a snapshot of before."""

    name = "restore"

    def restless(self, until_s: float, strike: Callable[[], None]) -> None:
        super().restless(until_s, strike)
        if self.wire == "simulated":
            self.saves: list[Saved] = []
            self.again(SAVE_EVERY_S, self._save, until_s)

    def _save(self) -> None:
        at = [machine for machine in self.machines.values() if machine.ready]
        if at:
            machine = self.chance.choice(at)
            self.on(machine, self._saving(machine, local=self.chance.random() < 0.3))

    async def _saving(self, machine: Machine, *, local: bool) -> None:
        """Takes one piece after the other, while the node lives on or dies."""
        told = max(self.logs.acknowledged, default=0)
        try:
            pieces = await snapshots.saved(machine.raft, machine.replica, local=local)
        except ApiError as error:
            self.note(f"{machine.tag} saves nothing: {error}")
            return
        saved = Saved(self.directory / f"{len(self.saves)}.snapshot", machine.replica.record)
        self.saves.append(saved)
        if not local and saved.record.index < told:
            self.breach(f"LOST {machine.tag} saves up to {saved.record.index}, but {told} was acknowledged before")
        for piece in pieces:
            with saved.path.open("ab") as file:
                file.write(piece)
            await asyncio.sleep(self.chance.uniform(0, 0.2))
        saved.pieces_left = False
        self.note(f"{machine.tag} has saved up to {saved.record.index}")

    async def begins_anew(self) -> Machine | None:
        while all(saved.pieces_left for saved in self.saves):
            self._save()
            await asyncio.sleep(1)
        self.again(ACT_EVERY_S, self.operators.act, self.loop.time() + 4)
        await asyncio.sleep(self.chance.uniform(0, 4))
        self.everybody_off()
        whole = [(saved, read) for saved in self.saves if (read := self._read(saved)) is not None]
        saved, (record, last) = self.chance.choice(whole)
        acknowledged = self.logs.acknowledged
        self.acknowledged_before = len(acknowledged)
        self.lost = sum(index > saved.record.index for index in acknowledged)
        tag = self.chance.choice("ABCDE")
        node = ClusterNode(tag=tag, url=url(tag), cluster_address=address(tag))
        renewed = recovery.begun_from(record, last, node, "simulated-2", self.now())
        for what in changed(saved.record, renewed, another_cluster=True):
            self.breach(f"LOST {what} of the saved record")
        machine = Machine(self, tag, f"{tag}-R", tag)

        while not self.written(machine, last, renewed):
            machine.disk = MemoryDisk()
        return self.begun(machine, renewed)

    def _read(self, saved: Saved) -> tuple[Record, LastEntry] | None:
        """What the product reads, which must be what was saved; None if it refuses a file that is not whole."""
        replica = Replica()
        try:
            last = offline.read_snapshot(saved.path, replica)
        except (FileNotFoundError, StorageDamaged) as error:
            if not saved.pieces_left:
                self.breach(f"LOST a whole snapshot is refused: {error}")
            return None
        if replica.record != saved.record:
            self.breach(f"LOST the snapshot of {saved.record.index} is read as another record")
        return replica.record, last


KINDS: dict[str, type[Recovered]] = {kind.name: kind for kind in (Forced, Reconsidered, Restored)}
