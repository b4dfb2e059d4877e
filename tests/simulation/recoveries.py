"""Worlds that are recovered by hand: a majority is lost for good and a survivor starts the cluster again by force, or
every node is stopped and a cluster is restored from a snapshot that was saved from a running one. Others then join with
empty disks, and life goes on.

The product's own code saves, reads, decides and writes; sockets, the directory's lock and the file that names the
cluster are left out. The sinks live on from before and know of no cluster: the fence of a sink stands above every epoch
from before, and as a body reads there how far its task has come, each step still comes exactly once, whatever progress
the recovered record remembers. What may be lost is said in `losses`.
"""

import asyncio
from datetime import UTC, datetime
from typing import ClassVar

from raftnode.consensus.model import Peer
from raftnode.consensus.storage import offline
from raftnode.consensus.storage.offline import LastEntry
from raftnode.record import snapshot
from raftnode.record.model import Record
from tests.simulation.checkers import Logs
from tests.simulation.disk import PowerLost
from tests.simulation.node import WALL_AT_ZERO_MS, Machine, address
from tests.simulation.world import POLL_S, World

BEFORE = (0.2, 0.5)
"""The share of a world's time after which the worst happens."""
ALONE_S = 5.0
"""So soon after its start the first node of the new cluster runs every task that it may."""
STEPS_MAX = 12
"""A recovery takes fewer changes of the disk; the power may fail at any of them."""
RESTARTS_EVERY_S = (2.0, 8.0)
LIMIT = 10
"""After so many times its seconds a world is given up."""
NEW_TAGS = ("AA", "BB", "CC", "DD")


class Recovered(World):
    """A world in two lives."""

    name: ClassVar[str]
    lost = 0
    acknowledged_before = 0

    async def live(self, seconds: float) -> None:
        """Lives, ends, begins again, and lives on."""
        try:
            async with asyncio.timeout(LIMIT * seconds):
                await self._two_lives(seconds)
        except TimeoutError:
            self.breach(f"STUCK after {LIMIT} times its seconds")

    async def _two_lives(self, seconds: float) -> None:
        worst_s = seconds * self.chance.uniform(*BEFORE)
        for machine in self.machines.values():
            machine.start()
        self.again(RESTARTS_EVERY_S, self._restarts, LIMIT * seconds)
        self.restless(worst_s, self.faults.strike)
        await self._until(worst_s)
        await self._nobody_replaced()
        first = await self.begins_anew()
        if first is None:
            return
        ghost = self.ghost(first)
        self.marks_stale(first)
        others = self._others(first, ghost)
        self.group = tuple(sorted((first.tag, *others[:2])))
        first.start()
        if self.chance.random() < 0.5:
            await self.recovers(ALONE_S)
        self.restless(max(seconds, self.loop.time() + seconds / 3), self._strike)
        for tag in others:
            await self._nobody_replaced()
            await self.replacements.join(tag)
        await self._until(seconds)
        if ghost is not None:
            ghost.die()
        await self._nobody_replaced()
        await self.ends()

    async def begins_anew(self) -> Machine | None:
        """The worst happens; gives the first node of the new cluster, which is off, or None after a breach."""
        raise NotImplementedError

    def counts(self) -> dict[str, int]:
        return {"acknowledged before": self.acknowledged_before, "of these lost": self.lost, **super().counts()}

    def _restarts(self) -> None:
        """As whatever keeps the processes up does."""
        for machine in self.machines.values():
            machine.start()

    async def _nobody_replaced(self) -> None:
        while self.replacements.busy:  # noqa: ASYNC110 (replacements tell nobody when they end)
            await asyncio.sleep(POLL_S)

    async def _until(self, time_s: float) -> None:
        await asyncio.sleep(max(0.0, time_s - self.loop.time()))

    def off_for_good(self, machine: Machine) -> None:
        """Nobody starts it again."""
        machine.die()
        self.retire(machine, 0)

    def everybody_off(self) -> list[Machine]:
        """All processes end, those of removed nodes too; gives the nodes."""
        gone = list(self.machines.values())
        for machine in gone:
            self.off_for_good(machine)
        for machine in self.lingering:
            machine.die()
        return gone

    def now(self) -> datetime:
        """What the wall clock of whoever recovers says."""
        return datetime.fromtimestamp(WALL_AT_ZERO_MS / 1000 + int(self.loop.time()), UTC)

    def begun(self, machine: Machine, record: Record) -> Machine:
        """The node with which the record goes on; others do not know the new cluster's name on the wire."""
        self.machines[machine.tag] = machine
        self.wire = machine.wire = f"{self.wire}, {self.name}"
        self.logs = machine.logs = Logs(self.breach, record)
        machine.reached = record
        self.first_tags = ""
        self.network.heal()
        return machine

    def marks_stale(self, first: Machine) -> None:
        """From now on no epoch that anybody knows may begin."""
        fences = [sink.fence for sink in self.sinks.values()]
        self.bodies.floor = max([*fences, *(epoch for epoch, _ in self.bodies.epochs.values())], default=0)
        self.note(f"{first.tag} begins anew at {first.logs.began.index}; epochs up to {self.bodies.floor} are stale")

    def _others(self, first: Machine, ghost: Machine | None) -> list[str]:
        """The tags of those who join: of before, and new ones."""
        taken = {first.tag} | ({ghost.tag} if ghost else set())
        return self.chance.sample(sorted({*"ABCDE", *NEW_TAGS} - taken), self.chance.choice((2, 3, 3, 4)))

    def ghost(self, first: Machine) -> Machine | None:
        """A node of before that somebody starts all the same."""
        mates = [old for old in self.lingering if old.tag != first.tag and old.disk.files and not old.flipped]
        if not mates or self.chance.random() < 0.5:
            return None
        ghost = revived(self.chance.choice(mates))
        self.note(f"{ghost.tag} of before is started all the same")
        ghost.start()
        return ghost

    def _strike(self) -> None:
        """As it comes, once the loss of a disk is not that of a majority."""
        records = [machine.replica.record for machine in self.machines.values() if machine.ready]
        voters = [tag for tag, node in records[0].nodes.items() if node.kind == "Member"] if records else []
        if len(self.machines) >= 4 and sorted(voters) == self.tags:
            self.faults.strike()
        else:
            self.chance.choice((self.faults.crash, self.faults.pause, self.faults.block))()

    def written(self, machine: Machine, begun: LastEntry, record: Record) -> bool:
        """Whether the new beginning was written before the power failed."""
        disk, peer = machine.disk, Peer(machine.tag, address(machine.tag))
        disk.full = False
        disk.steps_left = self.chance.randrange(STEPS_MAX) if self.chance.random() < 0.5 else None
        try:
            offline.begin_anew(machine.directory, peer, begun, snapshot.frames(record), disk)
        except PowerLost:
            self.note("the power fails during the recovery")
            disk.crash(self.chance)
            return False
        disk.steps_left = None
        return True


def revived(old: Machine) -> Machine:
    """The machine, which was off for good, as one that may start: the same directory, name on the wire and cluster."""
    machine = Machine(old.world, old.tag, old.node_id, old.knows)
    machine.disk, machine.boot, machine.rate = old.disk, old.boot, old.rate
    machine.wire, machine.logs, machine.reached = old.wire, old.logs, old.reached
    return machine
