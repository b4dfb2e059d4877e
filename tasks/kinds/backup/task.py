"""Backup: what the database holds goes to a folder or an object store, on a schedule and on demand.

The kind is sticky, as the next incremental backup goes on from the last one of its node, and it goes on in a partition:
a second run elsewhere is possible then, seen in the names of what both make, and does no harm.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import structlog
from immutables import Map
from msgspec.structs import replace

from raftnode.documents import change_vector
from raftnode.documents.errors import StoreError
from raftnode.foundation import timestamps
from raftnode.foundation.background import watched
from raftnode.foundation.decoding import from_json
from raftnode.foundation.masking import in_text
from raftnode.foundation.threads import in_thread
from raftnode.record.model import Database, KindTraits, Progress, Task
from raftnode.record.ownership import task_key
from tasks.kinds.backup import catalog, info, outcome, retention, state
from tasks.kinds.backup import configuration as backup_configuration
from tasks.kinds.backup.configuration import BackupTaskConfiguration
from tasks.kinds.backup.definitions import BACKUP
from tasks.kinds.backup.outcome import Attempt
from tasks.kinds.backup.requests import OPERATION_TYPE, BackupDelay, BackupNow, describe
from tasks.kinds.backup.retention import BackupSource, EverythingIsOld
from tasks.kinds.backup.state import Chain
from tasks.kinds.backup.turns import BackupTurns
from tasks.kinds.backup.writing import BackupMaking, Made, remove_unfinished, scratch
from tasks.kinds.registry import ConfigurationError, TaskDefinition
from tasks.runtime.context import TaskContext
from tasks.runtime.operations import Operation
from tasks.sinks.objects.target import ObjectTarget, ObjectTargetFailed

log = structlog.get_logger(__name__)

LOOK_S = 60.0
"""So often the wall clock is looked at while nothing is due, as it may have been set."""
TELL_S = 5.0
"""So long a backup waits until the cluster knows of it. In a partition it goes on, and the cluster is told later."""
SHOW_S = 0.5
ENDED_BY_USER = "it was ended by a user"
SECOND = timedelta(seconds=1)
SET_BACK = timedelta(minutes=1)


def now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


class BackupKind:
    """The kind "Backup"."""

    name = BACKUP

    def parse(self, configuration: Mapping[str, Any], database: Database) -> TaskDefinition:
        """See `TaskKind.parse`. No edit but another name may move the task."""
        backup = backup_configuration.parse(configuration, database)
        return TaskDefinition(
            name=backup.name,
            kind=BACKUP,
            key=task_key(BACKUP, backup.name),
            configuration=msgspec.json.encode(backup),
            mentor=backup.mentor_node or None,
            pinned=backup.pin_to_mentor_node,
            disabled=backup.disabled,
            traits=KindTraits(sticky=True, resource_heavy=True, partition_tolerant=True),
            requires=backup.requires,
        )

    def shown_with(self, task: Task, progress: Progress | None, details: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `ShowsProgress.shown_with`."""
        return info.task_info(task, progress, details)

    async def run(self, context: TaskContext) -> None:
        """See `TaskKind.run`."""
        await _BackupRunner(context).run()


KIND = BackupKind()


class _BackupRunner:
    """The body of one run."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context
        self._backup = from_json(context.run.task.configuration, BackupTaskConfiguration)
        self._progress = context.run.progress or Progress(generation=context.run.generation)
        self._state = state.read(self._progress.state)
        self._where = outcome.where(self._backup)

    async def run(self) -> None:
        """Until cancelled."""
        # What a process of this node left that ended in the middle. There is one run of the task at a time.
        await in_thread(remove_unfinished, scratch(self._context))
        self._context.info.seen_etag = self._progress.last_etags.get(self._context.documents.database_id)
        self._context.info.error = self._state.error or None
        while True:
            due = outcome.next_due(self._backup, self._state)
            wait_s = (due.at - now()).total_seconds()
            if wait_s <= 0:
                await self._make(Attempt(self._moment(), full=due.full), None)
                continue
            self._context.info.next_run = timestamps.of(due.at)
            asked = await self._context.asked(min(wait_s, LOOK_S))
            if asked is not None:
                await self._serve(asked)

    def _moment(self) -> datetime:
        """Now, or the second after that of the backup before: names tell the second."""
        at = now()
        last = state.later(self._state.tried_full, self._state.tried_incremental)
        # A clock that was set back by more is believed; names then tell the runs apart by their epochs.
        return at if last is None or at >= last + SECOND or at < last - SET_BACK else last + SECOND

    async def _serve(self, asked: object) -> None:
        match asked:
            case BackupNow(full, operation):
                if operation.running:
                    await self._make(Attempt(self._moment(), full=full, on_demand=True), operation)
            case BackupDelay(until):
                due = outcome.next_due(self._backup, replace(self._state, delay_until=None, original_time=None))
                self._state = replace(
                    self._state, delay_until=timestamps.of(until), original_time=timestamps.of(due.at)
                )
                await self._tell()

    async def _make(self, attempt: Attempt, operation: Operation | None) -> None:
        """One backup, as an operation that a user may end."""
        context, run = self._context, self._context.run
        if operation is None:
            described = describe(run.database, run.task.name)
            operation = context.operations.begin(described, type=OPERATION_TYPE, database=run.database)
        work = asyncio.create_task(self._attempt(attempt, operation))
        operation.cancel = partial(_cancel, work)
        try:
            await work
        except asyncio.CancelledError:
            if (me := asyncio.current_task()) is not None and me.cancelling():
                raise
            # A user has ended it.
            if not await self._delayed():
                await self._ended(attempt, operation, error=ENDED_BY_USER)
        except Exception as error:
            if operation.running:
                operation.failed(in_text(str(error)))
            raise
        finally:
            context.info.details = {}
            if operation.running:
                operation.canceled()

    async def _delayed(self) -> bool:
        """Whether the backup was ended as it is to be made later."""
        asked = await self._context.asked(0)
        if asked is not None:
            await self._serve(asked)
        return isinstance(asked, BackupDelay)

    async def _attempt(self, attempt: Attempt, operation: Operation) -> None:
        context = self._context
        context.info.details = {
            info.ONGOING: {
                "StartTime": timestamps.of(attempt.at),
                "IsFull": attempt.full,
                "RunningBackupTaskId": operation.id,
            }
        }
        targets: list[ObjectTarget] = []
        try:
            async with context.shared.get(BackupTurns, BackupTurns):
                context.check()
                targets += [destination.target() for destination in self._backup.destinations()]
                chain = None if attempt.full else await self._chain(targets)
                attempt = attempt._replace(full=chain is None)
                context.info.details[info.ONGOING]["IsFull"] = attempt.full
                making = BackupMaking(context, self._backup, targets, at=attempt.at, chain=chain)
                operation.progress = outcome.progress(making.counts)
                showing = watched(_show(making, operation), "progress of a backup", lambda _: None)
                try:
                    made = await making.make()
                finally:
                    showing.cancel()
                await self._made(attempt, operation, made, targets)
        except (ObjectTargetFailed, StoreError, OSError, ConfigurationError) as error:
            await self._ended(attempt, operation, error=in_text(" ".join(str(error).split())))
        finally:
            for target in targets:
                await target.close()

    async def _chain(self, targets: list[ObjectTarget]) -> Chain | None:
        """From where an incremental backup goes on: from this copy's last one, if it stands at every destination and
        neither these nor the key have changed since."""
        chain = self._state.chains.get(self._context.documents.database_id)
        if chain is None or chain.where != self._where or chain.etag > self._context.documents.last_etag:
            return None
        for target in targets:
            self._context.check()
            if not await catalog.stands(target, chain.folder, chain.checksum):
                return None
        return chain

    async def _made(
        self, attempt: Attempt, operation: Operation, made: Made | None, targets: list[ObjectTarget]
    ) -> None:
        error = "" if made is None else "; ".join(f"{name}: {why}" for name, why in made.failures.items())
        retained = await self._retain(targets) if made is not None and attempt.full and not error else None
        await self._ended(attempt, operation, made, error=error, retained=retained)

    async def _retain(self, targets: list[ObjectTarget]) -> tuple[int, str] | None:
        """How long it took to delete what is older than what is kept, in ms, and what went wrong, which never fails the
        backup."""
        kept_for = self._backup.kept_for
        if kept_for is None:
            return None
        began, problem, run = now(), "", self._context.run
        source = BackupSource(run.cluster_id, run.database)
        for target in targets:
            self._context.check()
            try:
                await retention.apply(target, source, began, kept_for)
            except (ObjectTargetFailed, EverythingIsOld) as error:
                problem = in_text(f"{target.destination}: {error}")
                log.warning("Old backups could not be deleted.", task=self._context.run.claim_key, reason=problem)
        return int((now() - began) / timedelta(milliseconds=1)), problem

    async def _ended(
        self,
        attempt: Attempt,
        operation: Operation,
        made: Made | None = None,
        *,
        error: str = "",
        retained: tuple[int, str] | None = None,
    ) -> None:
        """Note how it ended, have the cluster know, and answer whoever has asked for it."""
        context = self._context
        self._state = outcome.after(
            self._state,
            attempt,
            made,
            run=context.run,
            database_id=context.documents.database_id,
            where=self._where,
            ended=now(),
            operation=operation.id,
            error=error,
            retained=retained,
        )
        context.info.error = error or None
        if not error:
            context.info.batch_done()
        if made is not None:
            context.info.processed += made.manifest.documents
        await self._tell()
        said = {"task": context.run.claim_key, "full": attempt.full, "epoch": context.run.epoch}
        if error:
            log.warning("A backup has failed.", reason=error, **said)
            if error != ENDED_BY_USER:
                operation.failed(error)
        else:
            log.info("A backup was made." if made else "Nothing has changed since the last backup.", **said)
            operation.completed(outcome.result(made, attempt))

    async def _tell(self) -> None:
        """Replicate the state. Without a majority it goes on after a while, and the cluster is told as soon as it can
        be."""
        chains = self._state.chains
        progress = Progress(
            generation=self._context.run.generation,
            change_vector=change_vector.meet(*(chain.change_vector for chain in chains.values())),
            last_etags=Map({id: chain.etag for id, chain in chains.items()}),
            processed=self._context.info.processed,
            at=timestamps.now(),
            state=state.encoded(self._state),
        )
        try:
            async with asyncio.timeout(TELL_S):
                await self._context.checkpoint(progress)
        except TimeoutError:
            log.info("The cluster is told of a backup when there is a majority.", task=self._context.run.claim_key)


async def _show(making: BackupMaking, operation: Operation) -> None:
    while True:
        operation.progress = outcome.progress(making.counts)
        await asyncio.sleep(SHOW_S)


def _cancel(work: "asyncio.Task[None]") -> None:
    work.cancel()
