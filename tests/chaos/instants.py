"""A kind of task that logs each instant at which it runs: one line, with the machine's common clock, again and again.

The chaos lab puts this file into its nodes' path as a plug-in, as a user of the daemon would.
"""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from raftnode.record.model import Database, KindTraits
from raftnode.record.ownership import task_key
from tasks.kinds.registry import TaskDefinition
from tasks.runtime.context import TaskContext

NAME = "InstantsEtl"
PERIOD_S = 0.02


class Instants:
    """See `tasks.kinds.registry.TaskKind`. The configuration names the `File`, and the `Traits` of the task."""

    name = NAME

    def parse(self, configuration: Mapping[str, Any], database: Database) -> TaskDefinition:
        name = str(configuration["Name"])
        return TaskDefinition(
            name=name,
            kind=NAME,
            key=task_key(NAME, name),
            traits=msgspec.convert(configuration.get("Traits", {}), KindTraits),
            configuration=json.dumps(dict(configuration)).encode(),
        )

    async def run(self, context: TaskContext) -> None:
        run = context.run
        file = os.open(json.loads(run.task.configuration)["File"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            while context.still_owned():
                at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                line = {"task": run.task.name, "node": run.node, "epoch": run.epoch, "pid": os.getpid(), "at_ns": at_ns}
                os.write(file, json.dumps(line).encode() + b"\n")
                await asyncio.sleep(PERIOD_S)
        finally:
            os.close(file)


KIND = Instants()
