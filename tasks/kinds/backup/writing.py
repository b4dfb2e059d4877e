"""One backup: a moment of the store goes into a file, the file to each destination, and the manifests come last.

Nothing is overwritten at a destination, as all names have the run's epoch in them. The lease is looked at before each
effect; what a run leaves that ended in the middle has no manifest, and is no backup.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from raftnode.documents.store.snapshot import SnapshotMoment, SnapshotRow, StoreSnapshot
from raftnode.foundation import timestamps
from raftnode.foundation.names import fold
from raftnode.foundation.threads import both, in_thread
from tasks.kinds.backup import definitions, manifest, names
from tasks.kinds.backup.catalog import IN_PROGRESS
from tasks.kinds.backup.configuration import BackupTaskConfiguration
from tasks.kinds.backup.manifest import Manifest
from tasks.kinds.backup.names import BackupPart
from tasks.kinds.backup.state import Chain
from tasks.kinds.backup.stream import BackupBlock, BackupWriter, Head
from tasks.runtime.context import TaskContext
from tasks.sinks.objects.target import ObjectExists, ObjectTarget, ObjectTargetFailed

log = structlog.get_logger(__name__)

SLICE_BYTES = 2 << 20
REST_S = 1.0
BEING_WRITTEN = "being-written"
"""A file in the task's own directory that has the path of the one that is written."""


class BackupCounts(msgspec.Struct, rename="pascal"):
    """How far a backup is."""

    documents: int = 0
    tombstones: int = 0
    document_bytes: int = 0
    documents_total: int = 0
    uploaded_bytes: int = 0
    file_bytes: int = 0


class Made(NamedTuple):
    """A backup that was made. `failures` are those of the destinations where it does not stand, and why."""

    folder: str
    manifest: Manifest
    destinations: list[str]
    failures: dict[str, str]


class BackupMaking:
    """Makes one backup. `at` is when it began, `chain` what an incremental one goes on from, None for a full one."""

    def __init__(
        self,
        context: TaskContext,
        backup: BackupTaskConfiguration,
        targets: list[ObjectTarget],
        *,
        at: datetime,
        chain: Chain | None,
    ) -> None:
        self._context, self._backup, self._targets, self._at, self._chain = context, backup, targets, at, chain
        self.counts = BackupCounts()
        self._part: BackupPart = "Full" if chain is None else "Incremental"
        self._epoch = context.run.epoch
        self._file = names.file(at, self._epoch, self._part, encrypted=backup.key is not None)
        self.folder = (
            names.folder(at, context.run.database, context.run.node, self._epoch) if chain is None else chain.folder
        )

    async def make(self) -> Made | None:
        """The backup, or None if nothing has changed since the one before. Raises ObjectTargetFailed,
        OSError, StoreError, NotOwned."""
        for target in self._targets:
            self._context.check()
            await target.prepare()
        staged = self._staged()
        await in_thread(_note, scratch(self._context), staged)
        try:
            made = await self._written(staged)
            return None if made is None else await self._sent(staged, made)
        finally:
            with suppress(OSError):
                staged.unlink(missing_ok=True)
                (scratch(self._context) / BEING_WRITTEN).unlink(missing_ok=True)
                staged.parent.rmdir()  # unless something stands in it

    def _staged(self) -> Path:
        """Where the file is written first: beside its place, if that is a folder of this node."""
        local = next((target for target in self._targets if target.destination == "Local"), None)
        base = Path(local.location) if local is not None else scratch(self._context)
        return base / self.folder / (self._file + IN_PROGRESS)

    async def _written(self, staged: Path) -> Manifest | None:
        """The file is complete; what its manifest will say."""
        async with self._context.documents.snapshot() as (moment, snapshot):
            after = 0 if self._chain is None else self._chain.etag
            if self._chain is not None and (moment.last_etag, moment.change_vector) == (
                after,
                self._chain.change_vector,
            ):
                return None
            self.counts.documents_total = moment.documents
            head = Head(
                part=self._part,
                database=self._context.run.database,
                database_id=self._context.documents.database_id,
                after_etag=after,
                last_etag=moment.last_etag,
                previous="" if self._chain is None else self._chain.checksum,
            )
            self._context.check()
            writer = await in_thread(_begun, staged, head, self._backup.key)
            try:
                await self._fill(writer, snapshot, after)
                self._context.check()
                sha256 = await in_thread(writer.finish)
            finally:
                await in_thread(writer.abandon)
            self.counts.file_bytes = writer.size_bytes
            return self._manifest(head, moment, writer.size_bytes, sha256)

    async def _fill(self, writer: BackupWriter, snapshot: StoreSnapshot, after: int) -> None:
        database = self._context.definitions()
        if database is not None:
            kept = definitions.of(database, encrypted=self._backup.key is not None)
            await in_thread(writer.add, BackupBlock(definitions=kept))
        for deleted in (False, True) if self._chain is not None else (False,):
            rows = await snapshot.slice(after, deleted=deleted, bytes_max=SLICE_BYTES)
            while rows:
                self._context.check()
                block = BackupBlock(deleted=[row[0] for row in rows]) if deleted else BackupBlock(rows)
                # The next slice is read while this one is compressed.
                following = snapshot.slice(rows[-1][3], deleted=deleted, bytes_max=SLICE_BYTES)
                _, following_rows = await both(in_thread(writer.add, block), following)
                self._count(rows, deleted=deleted)
                await self._slow_down(len(rows), snapshot)
                rows = following_rows

    def _count(self, rows: Sequence[SnapshotRow], *, deleted: bool) -> None:
        if deleted:
            self.counts.tombstones += len(rows)
        else:
            self.counts.documents += len(rows)
            self.counts.document_bytes += sum(len(row[2]) for row in rows)

    async def _slow_down(self, rows: int, snapshot: StoreSnapshot) -> None:
        rate = self._backup.max_read_ops_per_second
        left_s = rows / rate if rate else 0.0
        # A store that is being closed waits for its snapshots.
        while left_s > 0 and not snapshot.closing:
            await self._context.sleep(min(left_s, REST_S))
            left_s -= REST_S

    def _manifest(self, head: Head, moment: SnapshotMoment, size: int, sha256: str) -> Manifest:
        run = self._context.run
        return Manifest(
            part=self._part,
            database=head.database,
            database_id=head.database_id,
            cluster_id=run.cluster_id,
            node=run.node,
            task=run.task.name,
            epoch=str(self._epoch),
            started_at=timestamps.of(self._at),
            finished_at=timestamps.now(),
            file=self._file,
            size_bytes=size,
            sha256=sha256,
            encrypted=self._backup.key is not None,
            after_etag=head.after_etag,
            last_etag=head.last_etag,
            change_vector=moment.change_vector,
            documents=self.counts.documents,
            tombstones=self.counts.tombstones,
            document_bytes=self.counts.document_bytes,
            previous=head.previous,
        )

    async def _sent(self, staged: Path, unsealed: Manifest) -> Made:
        """The file and the manifest, at each destination. What fails at one does not keep it from the others."""
        made, sealed = manifest.sealed(unsealed)
        failures: dict[str, str] = {}
        for target in self._targets:
            key = f"{self.folder}/{self._file}"
            try:
                self._context.check()
                await target.upload(key, staged, self._uploaded)
                # The last moment: a run that has been superseded meanwhile leaves a file, and no backup.
                self._context.check()
                await target.create(key + names.MANIFEST, sealed)
            except ObjectExists as error:
                failures[target.destination] = f"{error}: another run has used this name"
            except ObjectTargetFailed as error:
                failures[target.destination] = str(error)
        return Made(self.folder, made, [target.destination for target in self._targets], failures)

    def _uploaded(self, count: int) -> None:
        self.counts.uploaded_bytes += count


def scratch(context: TaskContext) -> Path:
    """The task's own directory on this node, for files on their way to object stores."""
    return context.directory / "backups" / f"{fold(context.run.database)}-{context.run.task.id}"


def remove_unfinished(directory: Path) -> None:
    """Away with what a process left of a backup that it was making when it ended. `directory` is the task's `scratch`.
    A folder, for which the file was written beside its place, has a part of it, or all without the manifest."""
    with suppress(OSError, ValueError):
        staged = Path((directory / BEING_WRITTEN).read_text(encoding="utf-8"))
        final = staged.with_name(staged.name.removesuffix(IN_PROGRESS))
        staged.unlink(missing_ok=True)
        if not final.with_name(final.name + names.MANIFEST).exists():
            final.unlink(missing_ok=True)
        staged.parent.rmdir()  # unless something stands in it
    shutil.rmtree(directory, ignore_errors=True)


def _note(directory: Path, staged: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / BEING_WRITTEN).write_text(str(staged), encoding="utf-8")


def _begun(staged: Path, head: Head, key: bytes | None) -> BackupWriter:
    staged.parent.mkdir(parents=True, exist_ok=True)
    return BackupWriter(staged, head, key)
