"""What the bodies of a node work with: copies of databases, connections, checkpoints, the journal of runs."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from raftnode.foundation.http_client import HttpClient
from raftnode.foundation.names import fold
from raftnode.foundation.ports import Random
from raftnode.record.model import Progress, Timings
from tasks.runtime.body import Body
from tasks.runtime.checkpoints import Checkpoints
from tasks.runtime.context import Run, RunFigures, RunSettings, TaskContext
from tasks.runtime.operations import Operations
from tasks.runtime.plan import Start
from tasks.runtime.ports import ReplicaPort, TaskDatabasesPort
from tasks.runtime.run_journal import BYTES_MAX, FreezeDetector, RunJournal
from tasks.runtime.shared_resources import SharedResources
from tasks.runtime.stall_tracker import StallTracker


class BodyEnvironment:
    """Makes bodies and their contexts. `run` must be running while any body does; `close` comes when all have ended."""

    def __init__(
        self,
        node: str,
        *,
        replica: ReplicaPort,
        databases: TaskDatabasesPort,
        directory: Path,
        random: Random,
        settings: RunSettings | None = None,
        http: HttpClient | None = None,
        checkpoint_ms: int = 50,
        journal_bytes_max: int = BYTES_MAX,
        stall_tracker: StallTracker | None = None,
    ) -> None:
        self._replica, self._databases, self._http, self._random = replica, databases, http, random
        self.settings = settings or RunSettings()
        self._journal = RunJournal(directory, node, bytes_max=journal_bytes_max)
        self._freezes = FreezeDetector()
        self.shared, self._directory = SharedResources(), directory
        self.operations = Operations()
        self._checkpoints = Checkpoints(replica.propose, delay_ms=checkpoint_ms)
        self.stall_tracker = stall_tracker or StallTracker()

    async def run(self) -> None:
        """Replicates checkpoints until cancelled."""
        await self._checkpoints.run()

    async def close(self) -> None:
        """Lets go of connections and files."""
        await self.shared.close()
        self._journal.close()

    def beat(self, timings: Timings | None) -> None:
        """The loop turns while bodies run. That tells the run journal when the process was frozen, and the stall
        tracker which body held the loop, if it does not turn for half a lease."""
        self._freezes.beat()
        if timings is not None:
            self.stall_tracker.arm(timings.lease_ms / 2000)

    def body(self, run: Run, start: Start, info: RunFigures) -> Body:
        """The body of a run, not started yet."""
        return Body(
            run,
            start.session,
            start.assigned.fingerprint,
            info,
            settings=self.settings,
            random=self._random,
            journal=self._journal,
            stall_tracker=self.stall_tracker,
        )

    async def context(self, body: Body, owned: Callable[[], bool]) -> TaskContext:
        """The body's side of its run, for one try. Raises if the copy of the database cannot be opened."""

        def save(run: Run, progress: Progress) -> "asyncio.Future[bool]":
            body.progress = progress
            return self._checkpoints.save(run, progress)

        # A try goes on from what the one before it has told.
        run = body.run if body.progress is None else msgspec.structs.replace(body.run, progress=body.progress)
        return TaskContext(
            run,
            await self._databases.store(body.run.database),
            settings=self.settings,
            info=body.info,
            owned=owned,
            save=save,
            journal=self._journal,
            freezes=self._freezes,
            acted=body.acted,
            shared=self.shared,
            operations=self.operations,
            requests=body.requests,
            directory=self._directory,
            definitions=lambda: self._replica.record.database(body.run.database),
            http=self._http,
            sending=lambda tag, sender: self._databases.sends(fold(body.run.database), tag, sender),
            sent_to=lambda tag: self._databases.sent_to(fold(body.run.database), tag),
            node_url=lambda tag: node.url if (node := self._replica.record.nodes.get(tag)) else None,
        )
