"""The file of a backup: a head, then blocks of documents and deletions in order, compressed and protected.

    MAGIC, length (4 bytes), head (JSON)
    length (4 bytes, LAST is set on the last one), block
    ...

A block is msgpack, compressed with Zstandard, then protected (`protection`). The work is done in threads.
"""

import hashlib
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from raftnode.documents.store.snapshot import SnapshotRow
from raftnode.foundation import atomic_files
from raftnode.foundation.decoding import DECODE_ERRORS, JsonDecoder, MsgpackDecoder
from tasks.kinds.backup.names import BackupPart
from tasks.kinds.backup.protection import SALT_BYTES, BackupDamaged, Protection, protection

MAGIC: Final = b"RAFTNODEBACKUP1\n"
HEAD_BYTES_MAX: Final = 64 * 1024
LAST: Final = 1 << 31
BLOCK_BYTES_MAX: Final = 192 << 20
"""Of a block's content: one document of the largest size has room."""
LEVEL: Final = 1
SYNC_BYTES: Final = 64 << 20
PACKED_AT_ONCE: Final = 2
_LENGTH: Final = 4


class Head(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What a file says of itself; with a key, nobody can change it unseen. `salt` is hex, empty without a key."""

    part: BackupPart
    database: str
    database_id: str
    after_etag: int
    last_etag: int
    previous: str = ""
    salt: str = ""


class BackupBlock(msgspec.Struct, frozen=True, array_like=True):
    """A part of what a backup holds: documents, ids of deleted ones, definitions as JSON."""

    documents: Sequence[SnapshotRow] = ()
    deleted: Sequence[str] = ()
    definitions: bytes = b""


class _ReadBlock(msgspec.Struct, frozen=True, array_like=True):
    documents: list[SnapshotRow]
    deleted: list[str]
    definitions: bytes


_head_decoder: JsonDecoder[Head] = JsonDecoder(Head)
_block_decoder: MsgpackDecoder[_ReadBlock] = MsgpackDecoder(_ReadBlock, flat=True)


class BackupWriter:
    """Writes one file, which must not be there. `finish` makes it whole and durable. Raises OSError.

    Two blocks are compressed at a time while those before them are written, by threads of the writer's own, which
    `finish` and `abandon` end.
    """

    def __init__(self, path: Path, head: Head, key: bytes | None) -> None:
        self._path, self._zstd = path, _zstd()
        salt = os.urandom(SALT_BYTES) if key else b""
        text = msgspec.json.encode(msgspec.structs.replace(head, salt=salt.hex()))
        self._protection = protection(key, salt, text)
        self._number, self._digest = 0, hashlib.sha256()
        self.size_bytes = self._unsynced_bytes = 0
        self._file = path.open("xb", buffering=0)
        self._packing = ThreadPoolExecutor(PACKED_AT_ONCE, thread_name_prefix="backup-pack")
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="backup-write")
        self._unwritten: deque[Future[None]] = deque()
        self._write(MAGIC + len(text).to_bytes(_LENGTH, "big") + text)

    def add(self, block: BackupBlock, *, last: bool = False) -> None:
        """Append a block. Waits while as many as may be are under way."""
        self._wait(PACKED_AT_ONCE - 1)
        packed = self._packing.submit(self._packed, self._number, last, block)
        self._number += 1
        self._unwritten.append(self._writing.submit(lambda: self._write(packed.result())))

    def _packed(self, number: int, last: bool, block: BackupBlock) -> bytes:
        sealed = self._protection.seal(number, last, self._zstd.compress(msgspec.msgpack.encode(block), LEVEL))
        return (len(sealed) | (LAST if last else 0)).to_bytes(_LENGTH, "big") + sealed

    def finish(self) -> str:
        """Everything is on the disk. Returns the file's SHA-256."""
        self.add(BackupBlock(), last=True)
        self._wait(0)
        self.abandon()
        atomic_files.sync_file(self._path)
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """Let go of the file, which stays as far as it was written. Once it is finished, nothing."""
        self._packing.shutdown()
        self._writing.shutdown()
        self._file.close()

    def _wait(self, left: int) -> None:
        while len(self._unwritten) > left:
            self._unwritten.popleft().result()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._digest.update(data)
        self.size_bytes += len(data)
        self._unsynced_bytes += len(data)
        if self._unsynced_bytes >= SYNC_BYTES:
            # The last sync would take seconds if it were the only one.
            os.fdatasync(self._file.fileno())
            self._unsynced_bytes = 0


class BackupReader:
    """Reads a file that arrives in pieces. `head` is what it says of itself, once that has come; `sha256` is of what
    was fed. Raises BackupDamaged."""

    def __init__(self, key: bytes | None) -> None:
        self._key, self._zstd = key, _zstd()
        self._buffer = bytearray()
        self._protection: Protection | None = None
        self._number, self._ended, self._digest = 0, False, hashlib.sha256()
        self.head: Head | None = None

    @property
    def sha256(self) -> str:
        """Of what was fed."""
        return self._digest.hexdigest()

    def feed(self, data: bytes) -> Iterator[BackupBlock]:
        """The blocks that are complete now."""
        self._digest.update(data)
        self._buffer += data
        while (block := self._next()) is not None:
            yield block

    def end(self) -> None:
        """No more comes."""
        if not self._ended or self._buffer:
            raise BackupDamaged("it was cut off" if not self._ended else "something follows its end")

    def _next(self) -> BackupBlock | None:
        if self._protection is None and not self._read_head():
            return None
        if self._ended or len(self._buffer) < _LENGTH:
            return None
        length = int.from_bytes(self._buffer[:_LENGTH], "big")
        last, length = bool(length & LAST), length & ~LAST
        if length > BLOCK_BYTES_MAX:
            raise BackupDamaged(f"block {self._number} has an impossible length")
        if len(self._buffer) < _LENGTH + length:
            return None
        sealed = bytes(memoryview(self._buffer)[_LENGTH : _LENGTH + length])
        del self._buffer[: _LENGTH + length]
        return self._opened(sealed, last)

    def _opened(self, sealed: bytes, last: bool) -> BackupBlock:
        assert self._protection is not None
        packed = self._protection.open(self._number, last, sealed)
        unpacking = self._zstd.ZstdDecompressor()
        try:
            content = unpacking.decompress(packed, BLOCK_BYTES_MAX)
            if not unpacking.eof or unpacking.unused_data:
                raise BackupDamaged(f"block {self._number} is larger than it may be, or cut off")
            block = _block_decoder.decode(content)
        except (self._zstd.ZstdError, *DECODE_ERRORS, msgspec.ValidationError) as error:
            raise BackupDamaged(f"block {self._number} cannot be read: {error}") from None
        self._number += 1
        self._ended = last
        return BackupBlock(block.documents, block.deleted, block.definitions)

    def _read_head(self) -> bool:
        start = len(MAGIC) + _LENGTH
        if not MAGIC.startswith(bytes(self._buffer[: len(MAGIC)])):
            raise BackupDamaged("it does not begin as a backup does")
        length = int.from_bytes(self._buffer[len(MAGIC) : start], "big")
        if length > HEAD_BYTES_MAX:
            raise BackupDamaged("its head has an impossible length")
        if len(self._buffer) < start + length or len(self._buffer) < start:
            return False
        text = bytes(self._buffer[start : start + length])
        try:
            self.head = _head_decoder.decode(text)
            salt = bytes.fromhex(self.head.salt)
        except (*DECODE_ERRORS, msgspec.ValidationError, ValueError) as error:
            raise BackupDamaged(f"its head cannot be read: {error}") from None
        if bool(salt) != (self._key is not None):
            raise BackupDamaged("it is encrypted: give its key" if salt else "it is not encrypted, but a key was given")
        self._protection = protection(self._key, salt, text)
        del self._buffer[: start + length]
        return True


def _zstd() -> Any:
    # Imported at the first use.
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
