"""Objects as files of a folder on the node's disk, or on a share that it has mounted.

`create` links a file that is complete and synced to its name, which the file system does once for one of them.
"""

import errno
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raftnode.foundation import atomic_files
from raftnode.foundation.threads import in_thread
from tasks.sinks.objects.target import ObjectExists, ObjectMissing, ObjectTargetFailed, StoredObject, Uploaded

PIECE_BYTES = 1 << 20
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""Another file system, or one that has no links: what is to be there is copied."""


class FolderTarget:
    """See `ObjectTarget`."""

    destination = "Local"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.location = self.folder = str(folder)

    async def prepare(self) -> None:
        """See `ObjectTarget.prepare`."""
        await in_thread(self._prepare)

    def _prepare(self) -> None:
        with self._errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self._folder, os.W_OK | os.X_OK):
                raise ObjectTargetFailed(f"the folder {self._folder} is not writable: correct its rights")

    async def create(self, key: str, data: bytes) -> None:
        """See `ObjectTarget.create`."""
        await in_thread(self._create, key, data)

    def _create(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                atomic_files.create(path, data)
            except FileExistsError:
                raise ObjectExists(f"{path} is there already") from None
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                self._write(path, data)

    def _write(self, path: Path, data: bytes) -> None:
        """The same on a file system without links. A manifest that is cut off here has a wrong checksum."""
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            raise ObjectExists(f"{path} is there already") from None
        atomic_files.sync_file(path)

    async def upload(self, key: str, file: Path, sent: Uploaded) -> None:
        """See `ObjectTarget.upload`."""
        sent(await in_thread(self._take, key, file))

    def _take(self, key: str, file: Path) -> int:
        path = self._path(key)
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._link(file, path)
            except FileExistsError:
                raise ObjectTargetFailed(f"{path} is there already, and is not this run's: move it away") from None
            for folder in (path.parent, self._folder):
                atomic_files.sync_directory(folder)
            return path.stat().st_size

    def _link(self, file: Path, path: Path) -> None:
        try:
            os.link(file, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with file.open("rb") as source, path.open("xb") as copy:
                shutil.copyfileobj(source, copy)
            atomic_files.sync_file(path)

    async def objects(self, prefix: str = "") -> list[StoredObject]:
        """See `ObjectTarget.objects`."""
        return await in_thread(self._list, prefix)

    def _list(self, prefix: str) -> list[StoredObject]:
        below = self._path(prefix)
        with self._errors():
            if not prefix and not below.is_dir():
                raise ObjectTargetFailed(f"there is no folder {below} on this node: correct its name, or mount it")
            if not below.is_dir():
                return []
            found, folders = _files(below)
            # Objects are in folders of the place. It may be the root of a disk, and is not looked through.
            for folder in folders if not prefix else ():
                with suppress(PermissionError, FileNotFoundError):
                    found += _files(folder)[0]
        return sorted(
            (StoredObject(path.relative_to(self._folder).as_posix(), size) for path, size in found),
            key=lambda one: one.key,
        )

    async def read(self, key: str, bytes_max: int) -> bytes:
        """See `ObjectTarget.read`."""

        def read() -> bytes:
            with self._errors(reads=True), self._path(key).open("rb") as file:
                return file.read(bytes_max)

        return await in_thread(read)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """See `ObjectTarget.stream`."""
        with self._errors(reads=True):
            file = await in_thread(self._path(key).open, "rb")
        try:
            while True:
                with self._errors():
                    piece = await in_thread(file.read, PIECE_BYTES)
                if not piece:
                    return
                yield piece
        finally:
            file.close()

    async def delete(self, key: str) -> None:
        """See `ObjectTarget.delete`. A folder that has become empty goes, too."""
        await in_thread(self._delete, key)

    def _delete(self, key: str) -> None:
        path = self._path(key)
        with self._errors():
            path.unlink(missing_ok=True)
            if path.parent != self._folder and path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()

    async def close(self) -> None:
        """See `ObjectTarget.close`."""

    def _path(self, key: str) -> Path:
        path = self._folder / key
        if ".." in Path(key).parts:
            raise ObjectTargetFailed(f"{key!r} leads out of the folder {self._folder}")
        return path

    @contextmanager
    def _errors(self, *, reads: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if reads and isinstance(error, FileNotFoundError):
                raise ObjectMissing(f"{error.filename} is not there") from None
            what = f"{error.filename or self._folder}: {error.strerror or error}"
            raise ObjectTargetFailed(f"{what}; make room, or correct the folder's rights") from None


def _files(folder: Path) -> tuple[list[tuple[Path, int]], list[Path]]:
    """The files in a folder with their sizes in bytes, and the folders in it. What goes meanwhile is left out."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.is_dir():
                    folders.append(Path(entry.path))
                elif entry.is_file():
                    files.append((Path(entry.path), entry.stat().st_size))
    return files, folders
