"""Making a database of a backup, on this node: its file is made aside, and checked to its last byte, before the cluster
hears of it. So a backup that is damaged leaves nothing behind.

The file then takes the way of a softly deleted copy that is put back. Its tasks and other definitions are put last,
each by its kind, as if somebody had put them by hand.
"""

import asyncio
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from raftnode.cluster.replica import CommandTooLarge, Unavailable
from raftnode.documents.errors import StoreError
from raftnode.documents.store.building import StoreBuilder
from raftnode.documents.store.folders import away, move, remove
from raftnode.documents.store.removed import RemovedCopy
from raftnode.foundation import timestamps
from raftnode.foundation.background import watched
from raftnode.foundation.masking import in_text
from raftnode.foundation.threads import in_thread
from raftnode.record.commands import Command, PutConnectionString, PutIndex, PutTask, SetCounter
from raftnode.record.model import CommandResult
from raftnode.web.commit import await_applied
from raftnode.web.errors import ApiError
from raftnode.web.routes.removed import made_of
from raftnode.web.services import Services
from raftnode.web.views.base import Json
from tasks.kinds.backup import catalog
from tasks.kinds.backup.definitions import KeptTask
from tasks.kinds.backup.restoring import BackupRefused, BackupRestoring, RestoreCounts
from tasks.kinds.registry import ConfigurationError, parsed
from tasks.runtime.operations import Operation
from tasks.sinks.objects.target import ObjectTarget, ObjectTargetFailed

log = structlog.get_logger(__name__)

BUILDING = ".restoring"
PROPOSE_MS = 30_000
SHOW_S = 0.5


class RestoreWish(NamedTuple):
    """What is to be restored: up to the file `last` (None: the newest), as database `name`."""

    name: str
    target: ObjectTarget
    last: str | None
    key: bytes | None
    without_tasks: bool
    without_indexes: bool


class DatabaseRestore:
    """One restore, in its turn. `lock` is held while the file is put in its place."""

    def __init__(
        self,
        services: Services,
        wish: RestoreWish,
        operation: Operation,
        lock: asyncio.Lock,
        turns: asyncio.Semaphore,
    ) -> None:
        self._services, self._wish, self._operation = services, wish, operation
        self._lock, self._turns = lock, turns
        self._skipped: list[Json] = []

    async def run(self) -> None:
        """All of it; how it ends is told by the operation."""
        try:
            async with self._turns:
                self._operation.completed(await self._restored())
        except asyncio.CancelledError:
            self._operation.canceled()
            raise
        except (BackupRefused, ObjectTargetFailed, StoreError, OSError) as error:
            self._refused(str(error))
        except (ApiError, Unavailable, CommandTooLarge) as error:
            self._refused(getattr(error, "message", None) or str(error))
        except BaseException as error:
            self._operation.failed(f"{type(error).__name__} in this node; its log tells more")
            raise
        finally:
            await self._wish.target.close()

    def _refused(self, reason: str) -> None:
        reason = in_text(reason)
        log.warning("A backup was not restored.", database=self._wish.name, reason=reason)
        self._operation.failed(reason)

    async def _restored(self) -> Json:
        wish = self._wish
        restoring = BackupRestoring(wish.target, await the_folder(wish.target), last=wish.last, key=wish.key)
        for point in restoring.left_out:
            self._skip(point.file, f"it is not whole, and what it holds was not restored: {point.problem}")
        copy = await self._built(restoring)
        async with self._lock:
            try:
                await made_of(self._services, copy, wish.name, self._propose)
            except ApiError:
                # It was refused. Where that is not known, the copy stays: `raftnode db removed` lists it.
                await in_thread(remove, Path(copy.path).parent)
                raise
        await self._define(restoring)
        log.info("A backup was restored.", database=wish.name, file=restoring.chain[-1].key, documents=copy.documents)
        return {
            "Message": f"Database {wish.name} is there, on {self._services.tag}; documents: {copy.documents:,}",
            "Documents": {"ReadCount": copy.documents, "ErroredCount": 0, "Processed": True},
            "Files": [point.file for point in restoring.chain],
            "LastEtag": restoring.manifest.last_etag,
            "ChangeVector": restoring.manifest.change_vector,
            "Skipped": self._skipped,
        }

    async def _built(self, restoring: BackupRestoring) -> RemovedCopy:
        """The file, aside, among those of softly deleted copies: whole, and of no database yet."""
        directory, name = self._services.databases.directory, self._wish.name
        folder = directory / BUILDING / str(self._operation.id)
        builder = await in_thread(StoreBuilder, folder / "database.sqlite", tag=self._services.tag, database=name)
        showing = watched(self._show(restoring.counts), "progress of a restore", lambda _: None)
        try:
            await restoring.into(builder)
            documents = await in_thread(builder.finish)
        except BaseException:
            await in_thread(builder.abandon)
            await in_thread(remove, folder)
            raise
        finally:
            showing.cancel()
        place = away(directory, name)
        place.parent.mkdir(exist_ok=True)
        await in_thread(move, folder, place)
        file = place / "database.sqlite"
        size = await in_thread(lambda: file.stat().st_size)
        return RemovedCopy(place.name, str(file.absolute()), name, documents, size, timestamps.now())

    async def _show(self, counts: RestoreCounts) -> None:
        while True:
            shown: Json = msgspec.to_builtins(counts)
            self._operation.progress = {
                "Message": f"{counts.documents} documents of {counts.file} are restored",
                "Documents": {"ReadCount": counts.documents, "ErroredCount": 0, "Processed": False},
                "Counts": shown,
            }
            await asyncio.sleep(SHOW_S)

    async def _define(self, restoring: BackupRestoring) -> None:
        """Settings, connection strings, indexes and tasks. What is refused now is skipped, and told."""
        name, kept = self._wish.name, restoring.definitions
        for string in kept.connection_strings:
            configuration = msgspec.json.encode(string.configuration)
            await self._try(
                string.name,
                PutConnectionString(database=name, name=string.name, type=string.type, configuration=configuration),
            )
        for index in () if self._wish.without_indexes else kept.indexes:
            definition = msgspec.json.encode(index.definition)
            await self._try(index.name, PutIndex(database=name, name=index.name, definition=definition))
        for identity, value in kept.identities.items():
            await self._try(identity, SetCounter(database=name, name=identity, value=value))
        for task in kept.tasks:
            await self._put_task(task)

    async def _put_task(self, kept: KeptTask) -> None:
        database = self._services.replica.record.database(self._wish.name)
        if database is None:
            return
        given = kept.configuration | {"TaskId": 0}
        if self._wish.without_tasks:
            given |= {"Disabled": True}
        if given.get("MentorNode") not in (None, *database.topology.all_nodes):
            given |= {"MentorNode": None, "PinToMentorNode": False}
        try:
            definition = await asyncio.to_thread(parsed, kept.task_type, given, database)
        except ConfigurationError as error:
            self._skip(kept.name, str(error))
            return
        await self._try(kept.name, PutTask(database=database.name, **msgspec.structs.asdict(definition)))

    async def _try(self, name: str, command: Command) -> None:
        try:
            await self._propose(command)
        except ApiError as error:
            self._skip(name, error.message)

    def _skip(self, name: str, reason: str) -> None:
        reason = in_text(reason)
        log.warning("A part of a backup was not restored.", database=self._wish.name, name=name, reason=reason)
        self._skipped.append({"Name": name, "Reason": reason})

    async def _propose(self, command: Command) -> CommandResult:
        result = await self._services.replica.propose(command, timeout_ms=PROPOSE_MS)
        return await await_applied(self._services, result)


async def remove_unfinished(services: Services) -> None:
    """Away with what a process left that ended in the middle of a restore."""
    await in_thread(remove, services.databases.directory / BUILDING)


async def the_folder(target: ObjectTarget) -> catalog.BackupFolder:
    """The backups that stand at the place itself. Raises BackupRefused, which names what there is instead, and
    ObjectTargetFailed."""
    found = await catalog.folders(target)
    here = next((folder for folder in found if not folder.name), None)
    if here is None:
        known = ", ".join(folder.name for folder in found[-10:])
        instead = f"it has folders with backups; name one of them: {known}" if known else "it has no backups"
        raise BackupRefused(f"{target.location}: {instead}")
    return here
