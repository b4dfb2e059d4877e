"""Who this process is: a node id made with the data directory, how often it was started, and a nonce.

The directory is locked while the process lives, so that no two processes are one node. The lock is the
kernel's and goes with the process, however it ends. The directory itself is locked too, where the file system can do
that: the file `lock` may be deleted, or be another one.

What has happened to a copy of the directory, the cluster knows. A directory that it has gone past remembers that, and
is not used again: each further start would count one more, until it counts as newer than the one that the node runs on.
"""

import fcntl
import os
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from raftnode.foundation import atomic_files
from raftnode.foundation.decoding import DECODE_ERRORS, from_json
from raftnode.foundation.incarnation import NodeIncarnation

FILE = "node.json"
LOCK = "lock"
_NEW_FILE = "node.json.new"
WRITTEN = (FILE, "cluster.json", "raft", "databases")
"""What a node reads and writes in its directory, here or later."""
_SUPERSEDED = (
    "The cluster has gone past {0}: it was copied, or is a copy, and node {1} has run on the other one since. Start "
    "the node on that one. This directory may not be used again; emptied, it may join under a new tag. If the other "
    "one is lost, remove {1} from the cluster, empty this directory and let it join again."
)
_noting = threading.Lock()
_NOT_OURS = frozenset({LOCK, _NEW_FILE, "lost+found"})


class IdentityError(Exception):
    """The data directory cannot be this node's. The message says why and what to do."""


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    node_id: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    tag: str
    boot: Annotated[int, Meta(ge=0)]
    took_part: bool = False
    superseded: bool = False


@dataclass(frozen=True)
class ClaimedDirectory:
    """A data directory that this process holds, and which incarnation of the node it is by that. `took_part`: the
    directory has held a log before. `locks` are the descriptors that hold it until `release`."""

    own: NodeIncarnation
    took_part: bool
    locks: tuple[int, ...]

    def release(self) -> None:
        """Unlocks the directory; the last thing a node does."""
        _close(self.locks)


def claim_directory(data_dir: Path, tag: str, *, superseded: bool = False) -> ClaimedDirectory:
    """Locks the directory, made if absent, and counts this start, synced, before anything else may use it.

    Raises IdentityError when another process holds it, when it is another node's, when its identity is lost, when
    this user may not write what is in it, or when the cluster has gone past it, unless `superseded` says that this does
    not matter.
    """
    try:
        # Durably: a node that has voted must not lose it.
        atomic_files.make_directory(data_dir)
        locks = _locked(data_dir)
    except OSError as error:
        raise IdentityError(
            f"The data directory {data_dir} cannot be used: {error}. Give one that is writable."
        ) from error
    try:
        stored = _read(data_dir, tag)
        _check_rights(data_dir)
        if stored.superseded and not superseded:
            raise IdentityError(_SUPERSEDED.format(data_dir, tag))
        stored.boot += 1
        _write(data_dir, stored)
    except OSError as error:
        _close(locks)
        raise IdentityError(f"{data_dir / FILE} cannot be read or written: {error}.") from error
    except BaseException:
        _close(locks)
        raise
    own = NodeIncarnation(tag, stored.node_id, stored.boot, _nonce())
    return ClaimedDirectory(own, stored.took_part, locks)


def _nonce() -> int:
    """As JSON keeps it in every language."""
    return 1 + secrets.randbelow(2**53 - 1)


def record_took_part(data_dir: Path, claimed: ClaimedDirectory) -> None:
    """Remembers that this directory has held a log: should it be gone one day, the node may not begin as a new one, or
    it would vote twice. Raises OSError."""
    if not claimed.took_part:
        _note(data_dir, claimed, took_part=True)


def note_superseded(data_dir: Path, claimed: ClaimedDirectory, *, superseded: bool = True) -> None:
    """Remembers that the cluster has gone past this directory, which was copied or is a copy: no process may use it
    again. Raises OSError."""
    _note(data_dir, claimed, superseded=superseded)


def _note(data_dir: Path, claimed: ClaimedDirectory, **fields: bool) -> None:
    with _noting:
        stored = _read(data_dir, claimed.own.tag)
        if stored.boot == claimed.own.boot:  # or another process uses the directory, where it could not be locked
            _write(data_dir, replace(stored, **fields))


def _locked(data_dir: Path) -> tuple[int, ...]:
    lock = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise IdentityError(
            f"Another raftnode runs on the data directory {data_dir}, pid {holder}. Stop it, or give this one a"
            " directory of its own (node.data_dir)."
        ) from error
    itself = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(itself, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        _close((lock, itself))
        raise IdentityError(
            f"Another raftnode runs on the data directory {data_dir}, whose file '{LOCK}' was deleted. Stop it, or "
            "give this one a directory of its own (node.data_dir)."
        ) from error
    except OSError:
        pass  # network file systems lock files alone
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock, itself


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _read(data_dir: Path, tag: str) -> _Stored:
    file = data_dir / FILE
    if not file.exists():
        others = sorted(entry.name for entry in data_dir.iterdir() if entry.name not in _NOT_OURS)
        if others:
            raise IdentityError(
                f"{data_dir} has no {FILE} but holds {', '.join(others[:5])}. If its identity was lost, empty the"
                " directory and let the node join again; if it is not a node's, give an empty one (node.data_dir)."
            )
        return _Stored(node_id=secrets.token_hex(16), tag=tag, boot=0)
    try:
        stored = from_json(file.read_bytes(), _Stored)
    except DECODE_ERRORS as error:
        raise IdentityError(
            f"{file} is damaged ({error}). Restore it from a backup, or empty the directory, remove the node from"
            " the cluster and let it join again."
        ) from error
    if stored.tag != tag:
        raise IdentityError(
            f"{data_dir} belongs to node {stored.tag}, and this is to be node {tag}. Set node.tag to {stored.tag},"
            " or give this node a directory of its own (node.data_dir)."
        )
    return stored


def _check_rights(data_dir: Path) -> None:
    """Refuses files of another user now: they are written only when other nodes count on this one already."""
    ours = (data_dir / name for name in WRITTEN)
    for path in [each for one in ours if one.exists() for each in (one, *one.glob("*"))]:
        needed = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
        if not os.access(path, needed, effective_ids=True):
            raise IdentityError(
                f"{path} may not be read and written by this process's user (uid {os.geteuid()}). Give it the whole "
                f"directory (chown -R USER {data_dir}), or start the node as the user that it had."
            )


def _write(data_dir: Path, stored: _Stored) -> None:
    atomic_files.write(data_dir / FILE, msgspec.json.encode(stored))
