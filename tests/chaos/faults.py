"""What goes wrong in a round. Each fault begins, lasts until the round's `mend`, and says in a word what it was."""

import asyncio
import contextlib
import random
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise, permutations
from pathlib import Path

from raftnode.foundation.http_client import HttpError
from tests.chaos.clients import DATABASE, GROUP
from tests.harness.wall_clock import WallClock
from tests.partition.lab import Lab

CLOCK_STEPS_SEC = (-3600, 3600, -5, 5)
REPLACEMENT_TIMEOUT_SEC = 40.0


class Faults:
    """For a lab that is up. `small_disk`: the node whose data directory can be filled; it and nobody else stays a
    founder for good."""

    def __init__(self, lab: Lab, chance: random.Random, clocks: dict[str, WallClock], small_disk: str) -> None:
        self._lab, self._chance, self._clocks, self._small = lab, chance, clocks, small_disk
        self._full: Path | None = None
        self._replaced: str | None = None
        self._unlicensed = False
        self._kinds: list[tuple[int, Callable[[], Awaitable[str]]]] = [
            (4, self.kill),
            (4, self.freeze),
            (4, self.partition),
            (3, self.one_way),
            (2, self.lossy),
            (2, self.slow),
            (1, self.kill_all),
            (2, self.clock),
            (1, self.disk_full),
            (2, self.replace),
        ]
        if lab.network.can_delay():
            self._kinds.append((2, self.late))

    async def strike(self) -> str:
        """One fault by chance; what it is."""
        weights = [weight for weight, _ in self._kinds]
        ((_, fault),) = self._chance.choices(self._kinds, weights)
        return await fault()

    async def mend(self) -> None:
        """Ends every fault: links whole, processes running, disks with room, groups complete."""
        lab = self._lab
        await asyncio.to_thread(lab.network.heal)
        if self._full is not None:
            self._full.unlink(missing_ok=True)
            self._full = None
        for clock in self._clocks.values():
            clock.set_sec(0)
        for tag in lab.nodes:
            lab.thaw(tag)
        self.revive()
        if self._replaced is not None:
            await self._complete(self._replaced)
            self._replaced = None
        if self._unlicensed:
            await lab.wait_until(partial(self._permit, True), "the licence to permit everything again")
            self._unlicensed = False

    def revive(self) -> None:
        """A service manager's part: whatever has ended is started, but for a node that has lost its disk."""
        for tag in self._lab.nodes:
            if self._lab.ended(tag) is not None and tag != self._replaced:
                self._lab.start(tag)

    # processes

    async def kill(self) -> str:
        tag = self._tag()
        return f"kill {tag}" if await self._end(tag) else f"{tag} is dead"

    async def kill_all(self) -> str:
        for tag in self._lab.nodes:
            await self._end(tag)
        return "kill all"

    async def freeze(self) -> str:
        tag = self._tag()
        if self._lab.ended(tag) is None:
            self._lab.signal(tag, signal.SIGSTOP)
        return f"freeze {tag}"

    async def _end(self, tag: str) -> bool:
        if self._lab.ended(tag) is not None:
            return False
        await self._lab.kill(tag)
        return True

    # what is permitted

    async def licence(self) -> str:
        """Whoever is lost while this lasts keeps its tasks."""
        self._unlicensed = True
        with contextlib.suppress(HttpError):
            await self._permit(False)
            return "no highly available tasks"
        return "a licence that nobody heard of"

    async def _permit(self, permitted: bool) -> bool:
        await self._lab.call("POST", f"/admin/license/features?highlyAvailableTasks={str(permitted).lower()}")
        return True

    # links

    async def partition(self) -> str:
        tags = list(self._lab.nodes)
        self._chance.shuffle(tags)
        cuts = self._chance.choice(((1,), (2,), (2, 4), (1, 2)))
        edges = [0, *cuts, len(tags)]
        groups = ["".join(sorted(tags[a:b])) for a, b in pairwise(edges)]
        await asyncio.to_thread(self._lab.network.partition, *groups)
        return "partition " + "|".join(groups)

    async def one_way(self) -> str:
        tag, others = self._tag(), sorted(self._lab.nodes)
        others = self._chance.sample([other for other in others if other != tag], self._chance.randint(1, 4))
        mute = self._chance.random() < 0.5
        for other in others:
            await asyncio.to_thread(self._lab.network.drop, *((tag, other) if mute else (other, tag)))
        return f"{''.join(sorted(others))} deaf to {tag}" if mute else f"{tag} deaf to {''.join(sorted(others))}"

    async def lossy(self) -> str:
        percent = self._chance.randint(5, 40)
        for sender, receiver in permutations(self._lab.nodes, 2):
            if self._chance.random() < 0.5:
                await asyncio.to_thread(self._lab.network.lose, sender, receiver, percent)
        return f"lose {percent} %"

    async def slow(self) -> str:
        tag, kbit = self._tag(), self._chance.choice((50, 200, 1000))
        await asyncio.to_thread(self._lab.network.slow, tag, kbit)
        return f"{tag} at {kbit} kbit/s"

    async def late(self) -> str:
        tag, delay_ms = self._tag(), self._chance.choice((20, 100, 300))
        await asyncio.to_thread(self._lab.network.delay, tag, delay_ms)
        return f"{tag} late by {delay_ms} ms"

    # clocks and disks

    async def clock(self) -> str:
        tag, step = self._tag(), self._chance.choice(CLOCK_STEPS_SEC)
        self._clocks[tag].set_sec(step)
        return f"clock of {tag} {step:+d} s"

    async def disk_full(self) -> str:
        self._full = self._lab.nodes[self._small].data_dir / "filler"
        fill = ["dd", "if=/dev/zero", f"of={self._full}", "bs=64k"]
        await asyncio.to_thread(subprocess.run, fill, capture_output=True, check=False)
        return f"disk of {self._small} full"

    # members

    async def replace(self) -> str:
        """A node is removed and comes back with an empty disk, under a new id."""
        lab = self._lab
        tag = self._chance.choice([tag for tag in lab.nodes if tag != self._small])
        if self._replaced is not None or len(lab.living()) < len(lab.nodes):
            return f"{tag} stays"
        self._replaced = tag
        await self._end(tag)
        await asyncio.to_thread(shutil.rmtree, lab.nodes[tag].data_dir)
        return f"replace {tag}"

    async def _complete(self, tag: str) -> None:
        """Removes the node that has lost its disk, and has it join again."""
        lab = self._lab
        others = [other for other in lab.nodes if other != tag]

        # Nodes go on ending in the meantime: one whose disk was full takes some seconds to stop.
        async def removed() -> bool:
            self.revive()
            view = await lab.view(others)
            if view and tag not in view["Cluster"]["Nodes"]:
                return True
            path = f"/admin/cluster/node?nodeTag={tag}&force=true"
            await lab.call("DELETE", path, tag=self._chance.choice(others))
            return False

        await lab.wait_until(removed, f"{tag} to be removed", REPLACEMENT_TIMEOUT_SEC)
        lab.nodes[tag].founder = False
        lab.start(tag)

        async def ready() -> bool:
            self.revive()
            status = await lab.status(tag)
            return status is not None and status["Node"]["HasLease"] and not status["Node"]["NotReady"]

        await lab.wait_until(ready, f"{tag} to be ready", REPLACEMENT_TIMEOUT_SEC)
        if tag in GROUP:
            await lab.wait_until(lambda: self._in_group(tag, others), f"{tag} in the group", REPLACEMENT_TIMEOUT_SEC)

    async def _in_group(self, tag: str, others: list[str]) -> bool:
        self.revive()
        view = await self._lab.view(others)
        topology = view["Databases"][DATABASE]["Topology"] if view else {}
        if topology and tag in [*topology["Members"], *topology["Promotables"], *topology["Rehabs"]]:
            return True
        await self._lab.call("PUT", f"/admin/databases/node?name={DATABASE}&node={tag}", tag=others[0])
        return False

    def _tag(self) -> str:
        return self._chance.choice(sorted(self._lab.nodes))
