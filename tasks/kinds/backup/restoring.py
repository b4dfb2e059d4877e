"""Reading backups back: a full one, then what goes on from it, into a store's file that nobody uses yet. Every byte is
checked on the way; whatever is wrong ends it, with the file's name, and nothing has become of it."""

import msgspec

from raftnode.documents.store.building import StoreBuilder
from raftnode.foundation.threads import both, in_thread
from tasks.kinds.backup import definitions
from tasks.kinds.backup.catalog import BackupFolder, BackupPoint
from tasks.kinds.backup.definitions import Definitions
from tasks.kinds.backup.manifest import Manifest
from tasks.kinds.backup.protection import BackupDamaged
from tasks.kinds.backup.stream import BackupBlock, BackupReader, Head
from tasks.sinks.objects.target import ObjectMissing, ObjectTarget


class BackupRefused(Exception):
    """A backup is not restored. The message names the file, and what is wrong with it."""


class RestoreCounts(msgspec.Struct, rename="pascal"):
    """How far a restore is."""

    file: str = ""
    files: int = 0
    files_total: int = 0
    documents: int = 0
    tombstones: int = 0
    bytes: int = 0
    bytes_total: int = 0


class BackupRestoring:
    """Reads the backups of one folder, up to the file `last` (None: up to the newest that is whole; `left_out` are
    those after it)."""

    def __init__(self, target: ObjectTarget, folder: BackupFolder, *, last: str | None, key: bytes | None) -> None:
        """Raises BackupRefused."""
        self._target, self._key = target, key
        try:
            self.chain = folder.chain(last)
        except ValueError as error:
            raise BackupRefused(str(error)) from None
        newest = self.chain[-1].named.at
        self.left_out = [point for point in folder.points if point.problem and not last and point.named.at > newest]
        total = sum(point.size_bytes for point in self.chain)
        self.counts = RestoreCounts(files_total=len(self.chain), bytes_total=total)
        self.definitions = Definitions()

    @property
    def manifest(self) -> Manifest:
        """What the last of them holds."""
        manifest = self.chain[-1].manifest
        assert manifest is not None, "what is whole has a manifest"
        return manifest

    async def into(self, builder: StoreBuilder) -> None:
        """Put all of it into a store's file. Raises BackupRefused, ObjectTargetFailed, StoreFailed."""
        for point in self.chain:
            self.counts.file = point.key
            try:
                await self._read(point, builder)
            except (BackupDamaged, ObjectMissing) as error:
                raise BackupRefused(f"{self._target.location}/{point.key}: {error}") from None
            self.counts.files += 1

    async def _read(self, point: BackupPoint, builder: StoreBuilder) -> None:
        assert point.manifest is not None
        reader = BackupReader(self._key)
        async for piece in self._target.stream(point.key):
            blocks, block = reader.feed(piece), None
            while True:
                # A block is put while the following one is decompressed; a piece may hold many of them.
                _, block = await both(in_thread(self._put, block, builder), in_thread(next, blocks, None))
                if block is None:
                    break
            self.counts.bytes += len(piece)
        reader.end()
        if reader.sha256 != point.manifest.sha256:
            raise BackupDamaged("its SHA-256 is not that of its manifest: it was changed or damaged")
        if reader.head is None or not _is_of(reader.head, point.manifest):
            raise BackupDamaged("it is not the file that its manifest describes")

    def _put(self, block: BackupBlock | None, builder: StoreBuilder) -> None:
        if block is None:
            return
        if block.definitions:
            self.definitions = definitions.read(block.definitions)
        if block.documents:
            builder.put((id, collection, body, at) for id, collection, body, _, _, at in block.documents)
            self.counts.documents += len(block.documents)
        if block.deleted:
            builder.remove(block.deleted)
            self.counts.tombstones += len(block.deleted)


def _is_of(head: Head, manifest: Manifest) -> bool:
    fields = ("part", "database_id", "after_etag", "last_etag", "previous")
    return all(getattr(head, field) == getattr(manifest, field) for field in fields)
