"""A backup task's body over a real store and a real folder, as the supervisor would run it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from raftnode.documents.store.building import StoreBuilder
from raftnode.documents.store.store import DocumentStore
from raftnode.record.model import Database, Progress, Task, Topology
from tasks.kinds.backup import catalog, state
from tasks.kinds.backup.catalog import BackupPoint
from tasks.kinds.backup.requests import BackupNow
from tasks.kinds.backup.restoring import BackupRestoring
from tasks.kinds.backup.state import BackupState
from tasks.kinds.backup.task import KIND
from tasks.runtime.context import Run, RunFigures, RunSettings, TaskContext
from tasks.runtime.operations import Operation, Operations
from tasks.runtime.run_journal import FreezeDetector, RunJournal
from tasks.sinks.objects.folder import FolderTarget
from tasks.sinks.objects.target import ObjectTarget
from tests.unit.tasks.conftest import until

SHOP = Database(name="Shop", etag=1, topology=Topology(members=("A",)))
Content = dict[str, tuple[str, Any, str]]
"""Documents by id: collection, body, last modified."""


class BackupBench:
    """Runs of one task, one after the other, each with an epoch of its own."""

    def __init__(self, store: DocumentStore, directory: Path) -> None:
        self.store, self.directory, self.folder = store, directory, directory / "backups"
        self.operations, self.owned = Operations(), True
        self.progress = Progress(generation=1)
        self.checkpoint_hangs = False
        self.place: Callable[[], ObjectTarget] = lambda: FolderTarget(self.folder)
        self._journal = RunJournal(directory, "A")
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self.body: asyncio.Task[None] | None = None

    @property
    def state(self) -> BackupState:
        """What the cluster knows."""
        return state.read(self.progress.state)

    def start(self, epoch: int, *, node: str = "A", database: Database = SHOP, **more: Any) -> TaskContext:
        """Begin a run."""
        self._requests = asyncio.Queue()
        given = {
            "Name": "nightly",
            "FullBackupFrequency": "0 2 1 1 *",
            "LocalSettings": {"FolderPath": str(self.folder)},
        }
        definition = KIND.parse(given | more, database)
        task = Task(id=7, name="nightly", kind="Backup", key=definition.key, configuration=definition.configuration)
        run = Run(
            database="Shop",
            task=task,
            claim_key="shop/Backup/nightly",
            epoch=epoch,
            generation=1,
            cluster_id="cluster",
            node=node,
            progress=self.progress,
        )
        context = TaskContext(
            run,
            self.store,
            settings=RunSettings(),
            info=RunFigures.after(self.progress),
            owned=lambda: self.owned,
            save=self._save,
            journal=self._journal,
            freezes=FreezeDetector(),
            operations=self.operations,
            requests=self._requests,
            directory=self.directory / "node",
            definitions=lambda: database,
        )
        self.body = asyncio.create_task(KIND.run(context))
        return context

    def ask(self, request: Any) -> None:
        self._requests.put_nowait(request)

    def left(self) -> list[Any]:
        """What was asked and not looked at."""
        return [self._requests.get_nowait() for _ in range(self._requests.qsize())]

    async def make(self, *, full: bool) -> Operation:
        """A backup on demand, once it has ended."""
        operation = self.operations.begin("a backup", type="DatabaseBackup")
        self.ask(BackupNow(full, operation))
        await until(lambda: not operation.running, self.body)
        return operation

    async def stop(self) -> None:
        """End the run."""
        if self.body is not None:
            self.body.cancel()
            await asyncio.gather(self.body, return_exceptions=True)

    async def points(self) -> list[BackupPoint]:
        """Every backup that was begun."""
        folders = await catalog.folders(self.place())
        return [point for folder in folders for point in folder.points]

    async def restored(self, name: str, *, last: str | None = None, key: bytes | None = None) -> Content:
        """The documents of a backup's folder. Raises BackupRefused."""
        found = {folder.name: folder for folder in await catalog.folders(self.place())}
        restoring = BackupRestoring(self.place(), found[name], last=last, key=key)
        path = self.directory / "restored" / f"{len(list(self.directory.glob('restored/*')))}.sqlite"
        builder = StoreBuilder(path, tag="A", database="Again")
        await restoring.into(builder)
        builder.finish()
        store = await DocumentStore.open(path, tag="A", database="Again")
        try:
            return await content(store)
        finally:
            await store.close()

    def close(self) -> None:
        self._journal.close()

    def _save(self, run: Run, progress: Progress) -> "asyncio.Future[bool]":
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if not self.checkpoint_hangs:
            self.progress = progress
            future.set_result(True)
        return future


async def content(store: DocumentStore) -> Content:
    """All live documents of a store."""
    documents = await store.page(size=100_000)
    return {d.id: (d.collection, json.loads(d.body), d.last_modified) for d in documents}


@pytest.fixture
async def bench(store: DocumentStore, tmp_path: Path) -> AsyncIterator[BackupBench]:
    bench = BackupBench(store, tmp_path)
    yield bench
    await bench.stop()
    bench.close()
