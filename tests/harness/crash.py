"""A process that is killed at one change of files after the other, and a disk that loses what was not synced."""

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from raftnode.documents.store import commit, store

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree",
           "sqlite3.connect"}  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class _Saw:
    """Counts the changes below a directory. At the last one that it lets through the process is killed, and of the
    files that were written and not synced only the first half is left."""

    def __init__(self, directory: Path, steps: int) -> None:
        self._directory, self._left = str(directory), steps
        self._unsynced: set[str] = set()
        self._fsync = os.fsync
        os.fsync = self.synced  # type: ignore[assignment]
        sys.addaudithook(self.saw)

    def saw(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook."""
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.fsdecode(arguments[0])
            if arguments[2] & WRITES and path.startswith(self._directory) and not os.path.isdir(path):
                self._step()
                self._unsynced.add(path)
        elif event in CHANGES:
            paths = [os.fsdecode(one) for one in arguments[:2] if isinstance(one, str | bytes | os.PathLike)]
            if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:
                paths = [os.path.join(os.readlink(f"/proc/self/fd/{arguments[1]}"), paths[0])]
            if any(path.startswith(self._directory) for path in paths):
                self._step()
                if event == "os.rename" and paths[0] in self._unsynced:
                    self._unsynced.add(paths[1])

    def synced(self, descriptor: int) -> None:
        """fsync."""
        self._step()
        self._fsync(descriptor)
        self._unsynced.discard(os.readlink(f"/proc/self/fd/{descriptor}"))

    def _step(self) -> None:
        if self._left > 0:
            self._left -= 1
            return
        torn, self._unsynced, self._directory = self._unsynced, set(), "\0"  # what follows is the disk's doing
        for path in torn:
            if os.path.exists(path):
                os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)


def _new_threads() -> None:
    """A forked process has one thread: pools whose threads stayed in its parent would wait for them for ever."""
    for module, name in ((commit, "_writing"), (store, "_reading")):
        pool: ThreadPoolExecutor = getattr(module, name)
        setattr(module, name, ThreadPoolExecutor(pool._max_workers))


def killed(directory: Path, steps: int, action: Callable[[], object]) -> bool:
    """Whether a process that does this was killed after so many changes below the directory; False: it came to its
    end before. Raises AssertionError when it failed."""
    child = os.fork()
    if child == 0:
        try:
            _new_threads()
            _Saw(directory, steps)
            action()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status != 0
