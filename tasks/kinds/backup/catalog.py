"""What backups a target has, and for each whether it is whole: that its manifest stands, that its file is there with
the size it must have, and, of an incremental one, that all it goes on from is whole.

Where two runs went on from one backup, as a frozen one woke late, the one with the higher epoch stands; the other is
listed as superseded.
"""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from tasks.kinds.backup import manifest as manifests
from tasks.kinds.backup import names
from tasks.kinds.backup.manifest import Manifest, ManifestInvalid
from tasks.kinds.backup.names import FileName, FolderName
from tasks.sinks.objects.target import ObjectMissing, ObjectTarget

IN_PROGRESS = ".in-progress"
READ_AT_ONCE = 16
NOT_WHOLE = "the backup that it goes on from is missing, or not whole"


class BackupPoint(NamedTuple):
    """A backup that was begun. `folder` is empty where the target is the backup's folder itself. `problem` is why it is
    not whole, empty for one that is."""

    folder: str
    file: str
    named: FileName
    size_bytes: int
    manifest: Manifest | None
    problem: str

    @property
    def key(self) -> str:
        """Its file's."""
        return f"{self.folder}/{self.file}" if self.folder else self.file


class BackupFolder(NamedTuple):
    """A full backup and what goes on from it, oldest first. `keys` are all objects in it."""

    name: str
    named: FolderName | None
    points: list[BackupPoint]
    keys: list[str]

    def chain(self, last: str | None) -> list[BackupPoint]:
        """What is restored, in this order: up to the file `last`, None for the newest that is whole. Raises ValueError
        that names the file which is not there or not whole."""
        candidates = [point for point in self.points if last in (None, point.file)]
        whole = [point for point in candidates if not point.problem]
        if not candidates:
            known = ", ".join(point.file for point in self.points[-10:]) or "none"
            raise ValueError(f"there is no file '{last}'; there are: {known}" if last else "there is no backup in it")
        if not whole:
            raise ValueError(f"{candidates[-1].key} is not whole: {candidates[-1].problem}")
        by_checksum = {point.manifest.checksum: point for point in self.points if point.manifest is not None}
        chain = [max(whole, key=_newness)]
        while (made := chain[0].manifest) is not None and made.previous:
            chain.insert(0, by_checksum[made.previous])
        return chain


def _newness(point: BackupPoint) -> tuple[int, datetime]:
    """Of two in one folder, that which holds more is newer."""
    return (point.manifest.last_etag if point.manifest else 0), point.named.at


async def folders(target: ObjectTarget) -> list[BackupFolder]:
    """All backups of the target, oldest first. Raises ObjectTargetFailed."""
    sizes: dict[str, dict[str, int]] = {}
    for stored in await target.objects():
        folder, _, name = stored.key.rpartition("/")
        if names.read_folder(folder) is not None or (not folder and _base(name) is not None):
            sizes.setdefault(folder, {})[name] = stored.size_bytes
    return [await _folder(target, folder, found) for folder, found in sorted(sizes.items())]


async def stands(target: ObjectTarget, folder: str, checksum: str) -> bool:
    """Whether the backup whose manifest has that checksum is whole there. Raises ObjectTargetFailed."""
    stored = {one.key.removeprefix(f"{folder}/"): one.size_bytes for one in await target.objects(f"{folder}/")}
    found = await _folder(target, folder, stored)
    return any(p.manifest is not None and p.manifest.checksum == checksum and not p.problem for p in found.points)


async def _folder(target: ObjectTarget, folder: str, sizes: Mapping[str, int]) -> BackupFolder:
    prefix = f"{folder}/" if folder else ""
    turns = asyncio.Semaphore(READ_AT_ONCE)

    async def read(name: str) -> Manifest | str:
        async with turns:
            try:
                data = await target.read(prefix + name, manifests.BYTES_MAX)
                return manifests.read(data)
            except ManifestInvalid as error:
                return f"{prefix}{name}: {error}"
            except ObjectMissing:
                return f"{prefix}{name} is gone"

    present = [name for name in sizes if name.endswith(names.MANIFEST)]
    found = dict(zip(present, await asyncio.gather(*map(read, present)), strict=True))
    files = sorted({base for name in sizes if (base := _base(name)) is not None})
    points = [_point(folder, file, sizes, found.get(file + names.MANIFEST)) for file in files]
    return BackupFolder(folder, names.read_folder(folder), _linked(points), [prefix + name for name in sizes])


def _point(folder: str, file: str, sizes: Mapping[str, int], read: Manifest | str | None) -> BackupPoint:
    """A backup by itself, without what it goes on from."""
    named = names.read_file(file)
    assert named is not None
    made = read if isinstance(read, Manifest) else None
    size = sizes.get(file, sizes.get(file + IN_PROGRESS, 0))
    return BackupPoint(folder, file, named, size, made, _problem(file, named, sizes, read))


def _problem(file: str, named: FileName, sizes: Mapping[str, int], read: Manifest | str | None) -> str:
    if read is None:
        return "it has no manifest, as it is being made, or its run ended in the middle"
    if isinstance(read, str):
        return read
    if (read.file, read.epoch_number, read.part) != (file, named.epoch, named.part):
        return f"its manifest is that of {read.file}"
    if file not in sizes:
        return "its file is missing"
    if sizes[file] != read.size_bytes:
        return f"its file has {sizes[file]} bytes, and must have {read.size_bytes}"
    return ""


def _linked(points: Iterable[BackupPoint]) -> list[BackupPoint]:
    """The points with what is wrong with those that they go on from, in the order of their time. What goes on from what
    is told by checksums alone, as clocks are set."""
    ordered = sorted(points, key=lambda point: (point.named.at, point.named.epoch))
    following: dict[str, list[BackupPoint]] = {}
    for point in ordered:
        if point.manifest is not None and not point.problem:
            following.setdefault(point.manifest.previous, []).append(point)
    problems = {point.file: point.problem or NOT_WHOLE for point in ordered}
    reached: list[tuple[Manifest | None, BackupPoint]] = [(None, point) for point in following.pop("", [])]
    while reached:
        before, point = reached.pop()
        assert point.manifest is not None
        problems[point.file] = _link_problem(point.manifest, before)
        if problems[point.file]:
            continue
        rivals = following.pop(point.manifest.checksum, [])
        rivals.sort(key=lambda rival: (rival.named.epoch, rival.named.at))
        reached += [(point.manifest, rival) for rival in rivals[-1:]]
        for rival in rivals[:-1]:
            problems[rival.file] = f"it is superseded: {rivals[-1].file}, of a newer run, goes on from the same backup"
    torn = "; ".join(f"{point.file}: {point.problem}" for point in ordered if point.problem)
    told = f"{NOT_WHOLE} ({torn})" if torn else NOT_WHOLE
    return [p._replace(problem=told if problems[p.file] == NOT_WHOLE else problems[p.file]) for p in ordered]


def _link_problem(made: Manifest, before: Manifest | None) -> str:
    if before is None:
        return "" if made.part == "Full" else "it goes on from nothing"
    if (before.database_id, before.last_etag) != (made.database_id, made.after_etag):
        return "it does not go on where the backup before it ends"
    return ""


def _base(name: str) -> str | None:
    """The file of a backup that an object belongs to; None for one of something else."""
    base = name.removesuffix(names.MANIFEST).removesuffix(IN_PROGRESS)
    return base if names.read_file(base) is not None else None
