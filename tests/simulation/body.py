"""The kind of task that simulated nodes run, and the place its effects go to.

A body raises the sink's epoch before it reads how far the task has come, then takes step after step. Its requests are
on their way for a while: what a dead or late process has sent still arrives, and the sink compares epochs.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raftnode.record.model import Database, Progress
from tasks.kinds.registry import RunSuperseded, TaskDefinition
from tasks.runtime.context import TaskContext
from tests.simulation.loop import PROCESS

if TYPE_CHECKING:
    from tests.simulation.world import World

NAME = "SimSteps"
HOP_S = (0.001, 0.05)
STEP_S = (0.1, 0.8)
STUBBORN = 0.03
"""So often a body takes longer to end than it may."""


@dataclass
class Sink:
    """Where a task's steps go. Each must come exactly once and in order; only the newest epoch may write."""

    fence: int = 0
    steps: int = 0
    written: list[tuple[int, int]] = field(default_factory=list)
    refused: int = 0
    checks_epochs: bool = True

    def begin(self, epoch: int) -> int | None:
        """Raises the fence and gives how far the task has come; None if a newer epoch was here."""
        if epoch < self.fence and self.checks_epochs:
            self.refused += 1
            return None
        self.fence = max(epoch, self.fence)
        return self.steps

    def write(self, epoch: int, step: int) -> bool:
        """Takes the step, unless the epoch is not the fence's."""
        if epoch != self.fence and self.checks_epochs:
            self.refused += 1
            return False
        self.steps = step
        self.written.append((epoch, step))
        return True


@dataclass
class TolerantSink(Sink):
    """Where the steps of a task go that may run twice: each run's stand by themselves, under its epoch."""

    def begin(self, epoch: int) -> int:
        """Gives how far the task has come, whoever brought it there."""
        return self.steps

    def write(self, epoch: int, step: int) -> bool:
        """Takes the step."""
        self.steps = max(self.steps, step)
        self.written.append((epoch, step))
        return True


class SimSteps:
    """See `tasks.kinds.registry.TaskKind`."""

    name = NAME

    def parse(self, configuration: Mapping[str, Any], database: Database) -> TaskDefinition:
        raise NotImplementedError("operators of the simulated world write their commands themselves")

    async def run(self, context: TaskContext) -> None:
        process = PROCESS.get()
        assert process is not None
        world: World = process.world
        key, epoch = context.run.claim_key, context.run.epoch
        tolerant = context.run.task.traits.partition_tolerant
        # All tries of one body share its queue, which no other body of that epoch has.
        body = world.bodies.begin(key, epoch, process, context._requests, tolerant=tolerant)
        try:
            await self._steps(context, world)
        except asyncio.CancelledError:
            if world.chance.random() < STUBBORN:
                await asyncio.sleep(world.chance.uniform(0.1, 6))
            raise
        finally:
            world.bodies.end(body, process)

    async def _steps(self, context: TaskContext, world: "World") -> None:
        run, chance = context.run, world.chance
        tolerant = run.task.traits.partition_tolerant
        sink = world.sinks.setdefault(f"{run.database}/{run.task.id}", TolerantSink() if tolerant else Sink())
        context.check()
        step = await self._ask(world, lambda: sink.begin(run.epoch))
        if step is None:
            raise RunSuperseded("a newer run has reached the sink")
        while True:
            await context.sleep(chance.uniform(*STEP_S))
            context.check()
            step += 1
            taken = await self._ask(world, lambda step=step: sink.write(run.epoch, step))
            if not taken:
                raise RunSuperseded("a newer run has reached the sink")
            progress = Progress(generation=run.generation, epoch=run.epoch, processed=step)
            # Whoever may go on in a partition does not wait there until its progress is known.
            if chance.random() < 0.2 and not tolerant:
                await context.checkpoint(progress)
            else:
                context.report(progress)

    async def _ask(self, world: "World", request: Any) -> Any:
        """The request arrives, and its answer comes back, whatever becomes of the process meanwhile."""
        loop, process = world.loop, PROCESS.get()
        assert process is not None
        answer: asyncio.Future[Any] = loop.create_future()

        def arrive() -> None:
            outcome = request()
            loop.call_at_true(loop.time() + world.chance.uniform(*HOP_S), come_back, outcome, context=process.context)

        def come_back(outcome: Any) -> None:
            if not answer.done():
                answer.set_result(outcome)

        loop.call_at_true(loop.time() + world.chance.uniform(*HOP_S), arrive, context=world.context)
        return await answer


KIND = SimSteps()
