"""The record as a stream of length-prefixed frames: first everything but the databases, then one database a frame.

So a snapshot never holds a second copy of the whole record, and encoding it blocks nobody for long. What follows from
the rest is left out and worked out again.
"""

from collections.abc import Iterable, Iterator

import msgspec
from immutables import Map
from msgspec.structs import replace

from raftnode.foundation.decoding import DECODE_ERRORS, MsgpackDecoder
from raftnode.foundation.names import fold
from raftnode.record.encoding import dec_hook, enc_hook
from raftnode.record.model import SCHEMA_VERSION, Database, Record
from raftnode.record.value import RecordValue

_PREFIX_BYTES = 4
_encoder = msgspec.msgpack.Encoder(enc_hook=enc_hook)
_record_decoder: MsgpackDecoder[Record] = MsgpackDecoder(Record, dec_hook=dec_hook)
_database_decoder: MsgpackDecoder[Database] = MsgpackDecoder(Database, dec_hook=dec_hook)


class _Head(RecordValue, frozen=True, kw_only=True):
    """What is read before anything else: a newer version's record may have any other shape."""

    schema_version: int


_head_decoder: MsgpackDecoder[_Head] = MsgpackDecoder(_Head)


class SnapshotUnreadable(Exception):
    """The stream is not a snapshot this version can read; the message says why."""


def frames(record: Record) -> Iterator[bytes]:
    """The record as frames. The record is immutable, so this may run in another thread."""
    yield _framed(
        _encoder.encode(
            replace(record, schema_version=max(record.schema_version, SCHEMA_VERSION), databases=Map(), held=Map())
        )
    )
    for database in record.databases.values():
        yield _framed(_encoder.encode(replace(database, task_ids=Map())))


def read(chunks: Iterable[bytes]) -> Record:
    """The record back from `frames`, however the stream was cut into chunks. Raises SnapshotUnreadable."""
    bodies = _bodies(chunks)
    try:
        head = next(bodies, b"")
        version = _head_decoder.decode(head).schema_version
        if version > SCHEMA_VERSION:
            raise SnapshotUnreadable(
                f"The snapshot is of schema version {version}; this node reads up to {SCHEMA_VERSION}. Upgrade it."
            )
        record = _record_decoder.decode(head)
        databases = [_database_decoder.decode(body).indexed() for body in bodies]
    except DECODE_ERRORS as error:
        raise SnapshotUnreadable(f"The snapshot does not hold a record: {error}.") from None
    return replace(record.indexed(), databases=Map({fold(database.name): database for database in databases}))


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(_PREFIX_BYTES, "little") + body


def _bodies(chunks: Iterable[bytes]) -> Iterator[bytes]:
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= _PREFIX_BYTES:
            end = _PREFIX_BYTES + int.from_bytes(buffer[:_PREFIX_BYTES], "little")
            if len(buffer) < end:
                break
            yield bytes(buffer[_PREFIX_BYTES:end])
            del buffer[:end]
    if buffer:
        raise SnapshotUnreadable(f"The snapshot ends inside a frame ({len(buffer)} bytes are left over).")
