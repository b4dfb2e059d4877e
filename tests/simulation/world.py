"""A whole cluster in one process and on simulated time: `simulate(seed)` lets it live, breaks it, mends it, and says
what was not as promised.

Everything random comes from the seed: the same seed gives the same trace, to the last line. After `seconds` all faults
end; then, within RECOVERY_S, there must be a leader, every node must have caught up, and every task that a living
Member may run must run.
"""

import asyncio
import contextvars
import gc
import logging
import random
import shutil
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any
from unittest import mock

import structlog

from config.timings import PROFILES
from raftnode.record.model import claim_key
from raftnode.record.ownership import responsible_node
from tasks.kinds import registry as kinds
from tests.simulation.body import Sink
from tests.simulation.checkers import BodyChecker, Logs, check_sinks
from tests.simulation.faults import SimulatedFaults
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import SimulatedNetwork
from tests.simulation.node import Machine
from tests.simulation.operators import DATABASE, Operators
from tests.simulation.replacements import Replacements

RECOVERY_S = 40.0
POLL_S = 0.25
FAULT_EVERY_S = (0.5, 4.0)
ACT_EVERY_S = (0.2, 2.0)


@dataclass
class Result:
    """What became of one seed."""

    seed: int
    simulated_s: float
    breaches: list[str]
    trace: list[str]
    hash: str
    steps: int
    counts: dict[str, int] = field(default_factory=dict)


class World:
    """The machines, the wires between them, what people and accidents do, and the checkers."""

    def __init__(self, seed: int, loop: VirtualLoop, directory: Path) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.loop = loop
        self.directory = directory
        self.context = contextvars.Context()
        self.trace: list[str] = []
        self.breaches: list[str] = []
        self.ends_at_a_breach = False
        self.graveyard: list[Process] = []
        self.lingering: list[Machine] = []
        self.wire = "simulated"
        self.bodies = BodyChecker(loop.time, self.breach)
        self.logs = Logs(self.breach)
        self.sinks: dict[str, Sink] = {}
        self.snapshot_bytes = self.chance.choice((20_000, 100_000, 1_000_000))
        self.pace = PROFILES[self.chance.choice(("default", "wan", "wan"))]
        self.first_tags = "ABCDE"
        self.group = tuple(self.chance.sample(self.first_tags, 3))
        self.network = SimulatedNetwork(self)
        self.machines = {tag: Machine(self, tag, f"{tag}-1", self.first_tags) for tag in self.first_tags}
        self.replacements = Replacements(self)
        self.faults = SimulatedFaults(self)
        self.operators = Operators(self)

    @property
    def tags(self) -> list[str]:
        """The nodes there are now."""
        return sorted(self.machines)

    def retire(self, machine: Machine, lingers_s: float) -> None:
        """The machine is nobody's node any more; its process lives on for a while."""
        machine.retired = True
        if self.machines.get(machine.tag) is machine:
            del self.machines[machine.tag]
        self.lingering.append(machine)
        self.later(lingers_s, machine.die)

    # telling

    def note(self, text: str) -> None:
        """One line of the trace."""
        self.trace.append(f"{self.loop.time():10.4f} {text}")

    def breach(self, text: str) -> None:
        """Something that must never happen."""
        self.breaches.append(f"{self.loop.time():.4f} {text}")
        self.note(f"!!! {text}")
        if self.ends_at_a_breach:
            self.loop.stop()

    # time

    def later(self, delay_s: float, callback: Callable[[], Any]) -> None:
        """Does it after so much true time."""
        self.loop.call_at_true(self.loop.time() + delay_s, callback, context=self.context)

    def on(self, machine: Machine, work: Coroutine[Any, Any, None]) -> None:
        """Does the work in the machine's process, and dies with it."""
        assert machine.process is not None
        machine.process.context.run(self.loop.create_task, work)

    # life

    async def live(self, seconds: float) -> None:
        """Starts, breaks and mends the cluster."""
        for machine in self.machines.values():
            machine.start()
        self.restless(seconds, self.faults.strike)
        await asyncio.sleep(seconds)
        await self.ends()

    def restless(self, until_s: float, strike: Callable[[], None]) -> None:
        """Accidents happen and operators act until then."""
        self.again(FAULT_EVERY_S, strike, until_s)
        self.again(ACT_EVERY_S, self.operators.act, until_s)
        self.again(ACT_EVERY_S, self.replacements.damaged, until_s)

    async def ends(self) -> None:
        """Mends everything; then all must be well, and have been."""
        self._mend()
        await self.recovers(RECOVERY_S)
        self.logs.check_acknowledged()
        check_sinks(self.sinks, self.breach)

    def counts(self) -> dict[str, int]:
        """How much there was of what."""
        return {
            "bodies": self.bodies.ended,
            "runs that went on": len(self.bodies.went_on),
            "messages": self.network.messages,
            "entries": self.logs.newest.index - self.logs.began.index,
            "acknowledged": len(self.logs.acknowledged),
            "steps written": sum(len(sink.written) for sink in self.sinks.values()),
            "stale writes refused": sum(sink.refused for sink in self.sinks.values()),
        }

    def again(self, every_s: tuple[float, float], what: Callable[[], None], until_s: float) -> None:
        """Does it every so often until then."""

        def once() -> None:
            if self.loop.time() < until_s:
                what()
                self.again(every_s, what, until_s)

        self.later(self.chance.uniform(*every_s), once)

    def _mend(self) -> None:
        self.note("all faults end")
        self.network.heal()
        for machine in self.machines.values():
            machine.disk.full = machine.starved = False
            machine.disk.steps_left = None
            machine.thaw()
            machine.start()

    async def recovers(self, within_s: float) -> None:
        """Waits until all is well."""
        began_s = self.loop.time()
        while self.loop.time() < began_s + within_s:
            missing = self._missing()
            if not missing:
                self.note(f"all is well {self.loop.time() - began_s:.2f} s after the last fault")
                return
            await asyncio.sleep(POLL_S)
            self.replacements.damaged()
            for machine in self.machines.values():
                machine.start()
        self.breach(f"STUCK {within_s:.0f} s after the last fault: {missing}")

    def _missing(self) -> str:
        """What is not yet as it should be; empty if all is well."""
        machines = list(self.machines.values())
        if self.replacements.busy:
            return f"{self.replacements.busy} is being replaced"
        if not all(machine.ready for machine in machines):
            return "a node is dead"
        leaders = {machine.raft.status.leader for machine in machines}
        if len(leaders) != 1 or None in leaders:
            return f"leaders {leaders}"
        applied = {machine.tag: machine.raft.status.applied_index for machine in machines}
        if max(applied.values()) - min(applied.values()) > 2:
            return f"applied {applied}"
        record = machines[0].replica.record
        if record.nodes and sorted(record.nodes) != self.tags:
            return f"the record has nodes {sorted(record.nodes)}, and there are {self.tags}"
        draining = [node.tag for node in record.nodes.values() if node.draining]
        permitted = record.highly_available_tasks and record.dynamic_nodes_distribution
        if draining or not permitted:
            self.on(machines[0], self.operators.undo(machines[0]))
            return f"draining {draining}, {'all' if permitted else 'not all'} permitted"
        database = record.database(DATABASE)
        if database is None:
            return ""
        for task in database.tasks.values():
            place = responsible_node(record, database, task)
            runs = self.bodies.of(claim_key(DATABASE, task.kind, task.name))
            if place.node is not None and not task.disabled and [run.node for run in runs] != [place.node]:
                return f"{task.name} belongs to {place.node} ({place.rule}) and runs on {[run.node for run in runs]}"
        return self.bodies.untold(record)


def simulate(
    seed: int,
    *,
    seconds: float = 60.0,
    change: Callable[[World], None] | None = None,
    kind: type[World] = World,
    ends_at_a_breach: bool = False,
) -> Result:
    """Lets the seed's world of that kind live, to its end or to the first breach. `change` may break it beforehand."""
    prepare()
    directory = Path(tempfile.mkdtemp(prefix="raftnode-simulation-"))
    random.seed(seed)
    ids = random.Random(seed)
    # What dead processes were doing is thrown away unfinished, all at once, and whatever their cleaning up says is not
    # heard; a collection meanwhile would let it happen at a time that no seed decides. What was there before the world
    # needs no look.
    gc.disable()
    gc.freeze()
    try:
        with mock.patch.object(uuid, "uuid4", side_effect=lambda: uuid.UUID(int=ids.getrandbits(128), version=4)):
            return _lived(seed, seconds, directory, change, kind, ends_at_a_breach)
    finally:
        with mock.patch.object(sys, "unraisablehook"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # what was never begun with
            gc.enable()
            gc.collect()
        shutil.rmtree(directory, ignore_errors=True)


def _lived(
    seed: int,
    seconds: float,
    directory: Path,
    change: Callable[[World], None] | None,
    kind: type[World],
    ends_at_a_breach: bool,
) -> Result:
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    world = kind(seed, loop, directory)
    try:
        if change is not None:
            change(world)
        world.ends_at_a_breach = ends_at_a_breach
        life = loop.create_task(world.live(seconds))
        life.add_done_callback(lambda _: loop.stop())
        loop.run_forever()
        if life.done():
            life.result()
        for text in loop.unhandled:
            world.breach(f"DEFECT {text}")
        return Result(
            seed,
            loop.time(),
            world.breaches,
            world.trace,
            blake2b("\n".join(world.trace).encode(), digest_size=16).hexdigest(),
            loop.steps,
            world.counts(),
        )
    finally:
        _forget(world)
        asyncio.set_event_loop(None)


def _forget(world: World) -> None:
    """Lets go of tasks that will never end, without a word."""
    processes = [*world.graveyard, *(machine.process for machine in world.machines.values() if machine.process)]
    for process in processes:
        process.alive = False
        for task in process.tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]


def prepare() -> None:
    """Makes the simulated kind known and the log silent."""
    name = "sim_steps"
    kinds._entry_points()["simsteps"] = EntryPoint(name=name, value="tests.simulation.body:KIND", group=kinds.GROUP)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False
    )
