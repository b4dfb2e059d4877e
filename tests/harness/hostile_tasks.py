"""A kind of task for tests on real processes: light, and hostile where its configuration says so. A plug-in of a user's
would be written like this."""

import json
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from raftnode.record.model import Database, KindTraits, Progress
from raftnode.record.ownership import task_key
from tasks.kinds.registry import TaskDefinition
from tasks.runtime.context import TaskContext

NAME = "HostileEtl"


class Hostile:
    """See `TaskKind`. `Does` is one of: "rest", "block" (holds the event loop for ever), "spawn" (runs the shell's
    `Command`), "rounds" (a line a round into `File`). `Traits` are the task's (`model.KindTraits`)."""

    name = NAME

    def parse(self, configuration: Mapping[str, Any], database: Database) -> TaskDefinition:
        name = str(configuration["Name"])
        return TaskDefinition(
            name=name,
            kind=NAME,
            key=task_key(NAME, name),
            configuration=json.dumps(dict(configuration)).encode(),
            mentor=configuration.get("MentorNode"),
            pinned=bool(configuration.get("PinToMentorNode")),
            traits=msgspec.convert(configuration.get("Traits", {}), KindTraits),
        )

    async def run(self, context: TaskContext) -> None:
        configuration = json.loads(context.run.task.configuration)
        await getattr(self, f"_{configuration.get('Does', 'rest')}")(context, configuration)

    async def _rest(self, context: TaskContext, configuration: Mapping[str, Any]) -> None:
        while True:
            await context.sleep(3600)

    async def _block(self, context: TaskContext, configuration: Mapping[str, Any]) -> None:
        await context.sleep(0.2)
        time.sleep(3600)  # noqa: ASYNC251 - that is what it is for

    async def _spawn(self, context: TaskContext, configuration: Mapping[str, Any]) -> None:
        async with context.subprocess("sh", "-c", configuration["Command"]) as process:
            await process.wait()

    async def _rounds(self, context: TaskContext, configuration: Mapping[str, Any]) -> None:
        run = context.run
        done = run.progress.processed if run.progress else 0
        while True:
            context.check()
            with open(configuration["File"], "a", encoding="utf-8") as lines:  # noqa: ASYNC230 - a line of a test
                lines.write(f"{run.node} {run.epoch}\n")
            done += 1
            context.report(Progress(generation=run.generation, processed=done))
            await context.sleep(0.1)


KIND = Hostile()
