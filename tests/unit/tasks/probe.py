"""A task kind for tests: a plug-in as users write them, which tells what its bodies do."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from raftnode.record.model import Database
from raftnode.record.ownership import task_key
from tasks.kinds.registry import TaskDefinition
from tasks.runtime.context import TaskContext


async def until_cancelled(context: TaskContext) -> None:
    """A body that only runs."""
    await asyncio.Event().wait()


class ProbeKind:
    """The kind "Probe". `behave` is its body; `events` are what has happened, in order."""

    name = "Probe"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """As new."""
        self.events: list[tuple[str, str, int]] = []
        self.contexts: dict[str, TaskContext] = {}
        self.behave: Callable[[TaskContext], Awaitable[None]] = until_cancelled
        self.live: dict[str, int] = {}

    def parse(self, configuration: Mapping[str, Any], database: Database) -> TaskDefinition:
        """See `TaskKind.parse`."""
        name = str(configuration["Name"])
        return TaskDefinition(name=name, kind=self.name, key=task_key(self.name, name), configuration=b"{}")

    async def run(self, context: TaskContext) -> None:
        """See `TaskKind.run`."""
        name, epoch = context.run.task.name, context.run.epoch
        assert name not in self.live, f"{name} runs twice: epochs {self.live[name]} and {epoch}"
        self.live[name] = epoch
        self.contexts[name] = context
        self.events.append(("begin", name, epoch))
        try:
            await self.behave(context)
        finally:
            del self.live[name]
            self.events.append(("end", name, epoch))


KIND = ProbeKind()
