"""What goes wrong: every fault is one method, begins now and mends itself after a while."""

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.world import World

HOUR_MS = 3_600_000


class SimulatedFaults:
    """Draws faults by their weights."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = world.chance
        self._drawn: list[tuple[int, Callable[[], None]]] = [
            (4, self.crash),
            (4, self.pause),
            (3, self.block),
            (4, self.partition),
            (4, self.one_way),
            (2, self.slow),
            (2, self.lossy),
            (1, self.wall_clock),
            (1, self.disk_full),
            (1, self.crash_all),
            (1, self.out_of_memory),
            (1, self.power_at_a_write),
            (1, self.bit_flip),
            (1, self.replace),
        ]

    def strike(self) -> None:
        """One fault, by chance."""
        weights, faults = zip(*self._drawn, strict=True)
        (fault,) = self._chance.choices(faults, weights)
        fault()

    def crash(self) -> None:
        tag = self._tag()
        self._world.note(f"{tag} crashes")
        self._world.machines[tag].die()
        self._again(tag, 0.1, 8)

    def crash_all(self) -> None:
        self._world.note("all nodes crash")
        for tag in self._world.tags:
            self._world.machines[tag].die()
            self._again(tag, 0.1, 3)

    def pause(self) -> None:
        self._stand_still(0.5, 9)

    def block(self) -> None:
        self._stand_still(0.05, 1)

    def _stand_still(self, low_s: float, high_s: float) -> None:
        tag, for_s = self._tag(), self._span_s(low_s, high_s)
        self._world.note(f"{tag} stands still for {for_s:.2f} s")
        machine = self._world.machines[tag]
        machine.pause()
        self._world.later(for_s, machine.thaw)

    def partition(self) -> None:
        sides = {tag: self._chance.randrange(self._chance.choice((2, 2, 3))) for tag in self._world.tags}
        ways = {(a, b) for a, b in product(sides, sides) if sides[a] != sides[b]}
        self._cut(ways, "partition " + "".join(f" {tag}{side}" for tag, side in sides.items()))

    def one_way(self) -> None:
        tag = self._tag()
        others = [other for other in self._world.tags if other != tag]
        some = self._chance.sample(others, self._chance.randint(1, len(others)))
        if self._chance.random() < 0.5:
            self._cut({(tag, other) for other in some}, f"{tag} is not heard by {''.join(some)}")
        else:
            self._cut({(other, tag) for other in some}, f"{tag} does not hear {''.join(some)}")

    def _cut(self, ways: set[tuple[str, str]], sentences: str) -> None:
        network = self._world.network
        for_s = self._span_s(0.3, 9)
        self._world.note(f"{sentences}, for {for_s:.2f} s")
        network.cut_ways(ways)
        self._world.later(for_s, lambda: network.cut.difference_update(ways))

    def slow(self) -> None:
        tag, low = self._tag(), self._chance.uniform(0.01, 0.4)
        self._world.note(f"messages of {tag} take {low:.2f} s")
        ways = [(tag, other) for other in self._world.tags]
        delays = self._world.network.delay_s
        for way in ways:
            delays[way] = (low, low * 2)
        self._world.later(self._chance.uniform(1, 8), lambda: [delays.pop(way, None) for way in ways])

    def lossy(self) -> None:
        share = self._chance.uniform(0.01, 0.2)
        self._world.note(f"{share:.0%} of the packets are lost")
        loss = self._world.network.loss
        loss.update(dict.fromkeys(product(self._world.tags, self._world.tags), share))
        self._world.later(self._chance.uniform(1, 6), loss.clear)

    def wall_clock(self) -> None:
        tag, by_ms = self._tag(), self._chance.choice((-HOUR_MS, HOUR_MS, -5000, 5000))
        self._world.note(f"the wall clock of {tag} jumps by {by_ms} ms")
        self._world.machines[tag].wall_off_ms += by_ms

    def disk_full(self) -> None:
        tag = self._tag()
        self._world.note(f"the disk of {tag} is full")
        self._world.machines[tag].disk.full = True
        self._again(tag, 1, 6)

    def power_at_a_write(self) -> None:
        """The power fails between two steps of something: while the process starts, or while it runs."""
        tag, steps = self._tag(), self._chance.randrange(40)
        machine = self._world.machines[tag]
        starts = self._chance.random() < 0.5
        self._world.note(f"{tag} loses its power at its {steps}th write {'of a start' if starts else 'from now'}")
        if starts:
            machine.die()
        machine.disk.steps_left = steps
        machine.start()
        self._again(tag, 1, 6)

    def out_of_memory(self) -> None:
        """The process ends by itself, or by chance before that."""
        tag = self._tag()
        self._world.note(f"{tag} has no memory left")
        self._world.machines[tag].starved = True
        self._again(tag, 1, 6)

    def bit_flip(self) -> None:
        """One disk at a time: two damaged ones and an accident are the loss of a majority."""
        tag = self._tag()
        machine = self._world.machines[tag]
        if self._world.replacements.busy or any(other.flipped for other in self._world.machines.values()):
            return
        machine.die()
        machine.flipped = True
        self._world.note(f"{tag} crashes, and a bit of {machine.disk.flip(self._chance)} flips")
        self._again(tag, 0.1, 3)

    def replace(self) -> None:
        self._world.replacements.begin(self._tag())

    def _tag(self) -> str:
        return self._chance.choice(self._world.tags)

    def _span_s(self, low_s: float, high_s: float) -> float:
        """Short or long against the time after which a node is given up."""
        slow = self._chance.random() < 0.5
        return self._chance.uniform(low_s, high_s) * (self._world.pace["lease_ms"] / 1800 if slow else 1)

    def _again(self, tag: str, low_s: float, high_s: float) -> None:
        machine = self._world.machines[tag]

        def start() -> None:
            machine.disk.full = machine.starved = False
            machine.disk.steps_left = None
            machine.start()

        self._world.later(self._span_s(low_s, high_s), start)
