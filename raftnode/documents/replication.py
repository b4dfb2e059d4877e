"""The one sender of documents, for the group and for a mentor's filling, and what the receiving node does.

A sender pushes a store's order, stretch by stretch, from where the other side last took it in. What the other side
holds already is not sent again, but the stretch is still told, so that the other side learns what the sender knew at
its end (see `writes`). Batches are msgpack, compressed when they are large, and idempotent.
"""

import asyncio
import random
import zlib
from datetime import UTC, datetime
from typing import Any

import msgpack
import msgspec
import structlog

from raftnode.documents import change_vector
from raftnode.documents.errors import ReplicationRefused, StoreError
from raftnode.documents.model import Batch, Document, Stretch
from raftnode.documents.store import DocumentStore
from raftnode.http import Http, HttpError

log = structlog.get_logger(__name__)

COMPRESS_BYTES_MIN = 16 * 1024
BODY_BYTES_MAX = 256 * 1024 * 1024
PLAIN, DEFLATED = b"\x00", b"\x01"
QUIET_ETAGS_MAX = 1024
"""A stretch in which nothing is new to the other side is told once it is this long, or when there is nothing else."""
IDLE_S = 30.0
BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 2.0
REQUEST_TIMEOUT_S = 30.0


class Destination(msgspec.Struct, frozen=True):
    """Where to send: a node's tag, its HTTP address, and the database's name there."""

    tag: str
    url: str
    database: str


class Status(msgspec.Struct, rename="pascal"):
    """How far a sender is. `last_sent_etag` is the place in this store's order up to which the other side has
    everything; `error` is empty when all is well; `sent` counts documents."""

    destination: str
    url: str
    last_sent_etag: int = 0
    sent: int = 0
    error: str = ""
    at: str | None = None


class Accepted(msgspec.Struct, frozen=True, rename="pascal"):
    """What the receiving side says of itself: how far it took the source in, and all it knows."""

    database_id: str
    accepted_etag: int
    change_vector: str


class Replication:
    """Sends one store's documents to one destination until cancelled."""

    def __init__(
        self,
        store: DocumentStore,
        destination: Destination,
        http: Http,
        *,
        batch_documents_max: int = 1024,
        batch_bytes_max: int = 8 * 1024 * 1024,
    ) -> None:
        self._store, self._destination, self._http = store, destination, http
        self._limit, self._bytes_max = batch_documents_max, batch_bytes_max
        self._theirs = ""
        self.status = Status(destination=destination.tag, url=destination.url)

    async def run(self) -> None:
        """Until cancelled. A failure is shown in `status`, said once, and tried again after a growing while."""
        pause_s = BACKOFF_MIN_S
        while True:
            before = self.status.last_sent_etag
            try:
                await self._session()
            except (HttpError, StoreError, msgspec.ValidationError) as error:
                self._failed(str(error))
            pause_s = BACKOFF_MIN_S if self.status.last_sent_etag > before else min(2 * pause_s, BACKOFF_MAX_S)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    async def _session(self) -> None:
        etag = await self._handshake()
        quiet_from = etag
        while True:
            batch = await self._store.after(etag, limit=self._limit, bytes_max=self._bytes_max)
            new = [item for item in batch.items if not item.counted_in(self._theirs)]
            quiet = not new and batch.last_etag - quiet_from < QUIET_ETAGS_MAX
            if new or not quiet or (batch.end and self._tells(quiet_from, batch)):
                etag = quiet_from = await self._send(quiet_from, batch, new)
            else:
                etag = batch.last_etag
            self._passed(etag, len(new))
            if batch.end:
                await self._store.wait_known(etag, self._store.change_vector, IDLE_S)

    def _tells(self, quiet_from: int, batch: Batch) -> bool:
        known = change_vector.dominates(self._theirs, batch.change_vector)
        return batch.last_etag > quiet_from or not known

    async def _handshake(self) -> int:
        destination = self._destination
        url = f"{destination.url}/replication/{destination.database}/accepted?source={self._store.database_id}"
        answer = await self._http.request("GET", url, timeout_s=REQUEST_TIMEOUT_S)
        theirs = msgspec.convert(answer.json(), Accepted)
        if theirs.database_id == self._store.database_id:
            raise ReplicationRefused(f"{destination.url} is this very database: correct the address")
        self._theirs = theirs.change_vector
        return theirs.accepted_etag

    async def _send(self, after_etag: int, batch: Batch, new: list[Document]) -> int:
        stretch = Stretch(
            source=self._store.database_id,
            after_etag=after_etag,
            last_etag=batch.last_etag,
            knowledge=batch.change_vector,
            documents=tuple(new),
            purged_last_modified=batch.purged_last_modified,
        )
        body = await asyncio.to_thread(encode, stretch)
        destination = self._destination
        url = f"{destination.url}/replication/{destination.database}/documents"
        answer = await self._http.request("POST", url, body=body, timeout_s=REQUEST_TIMEOUT_S)
        theirs = msgspec.convert(answer.json(), Accepted)
        self._theirs = theirs.change_vector
        if theirs.accepted_etag < batch.last_etag:
            raise ReplicationRefused(f"{destination.tag} has taken this node in up to {theirs.accepted_etag} only")
        return batch.last_etag

    def _passed(self, etag: int, sent: int) -> None:
        status = self.status
        if status.error:
            log.info("replication goes on", destination=status.destination, database=self._destination.database)
        status.error = ""
        status.last_sent_etag = etag
        status.sent += sent
        status.at = _now()

    def _failed(self, error: str) -> None:
        if error != self.status.error:
            database = self._destination.database
            log.info("replication waits", destination=self.status.destination, database=database, reason=error)
        self.status.error = error
        self.status.at = _now()


async def accepted(store: DocumentStore, source_database_id: str) -> dict[str, Any]:
    """The receiving side's answer to a handshake."""
    etag = await store.accepted_from(source_database_id)
    answer: dict[str, Any] = msgspec.to_builtins(Accepted(store.database_id, etag, store.change_vector))
    return answer


async def receive(store: DocumentStore, payload: bytes) -> dict[str, Any]:
    """Takes in a batch and answers as the handshake does. Raises ReplicationRefused for what is no batch."""
    stretch = await asyncio.to_thread(decode, payload)
    result = await store.merge(stretch)
    answer: dict[str, Any] = msgspec.to_builtins(Accepted(store.database_id, result.accepted_etag, store.change_vector))
    return answer


def encode(stretch: Stretch) -> bytes:
    """The batch as it travels: a byte that says whether it is compressed, then msgpack."""
    body: bytes = msgpack.packb(msgspec.to_builtins(stretch, builtin_types=(bytes,)), use_bin_type=True)
    return DEFLATED + zlib.compress(body, 1) if len(body) >= COMPRESS_BYTES_MIN else PLAIN + body


def decode(payload: bytes) -> Stretch:
    """The batch back from `encode`. Raises ReplicationRefused for anything else, or one that is too large."""
    try:
        body = payload[1:]
        if payload[:1] == DEFLATED:
            inflater = zlib.decompressobj()
            body = inflater.decompress(body, BODY_BYTES_MAX)
            if not inflater.eof:
                raise ReplicationRefused(f"a batch is cut short, or has more than {BODY_BYTES_MAX} bytes")
        elif payload[:1] != PLAIN:
            raise ReplicationRefused("a batch must begin with its compression: upgrade the older node")
        return msgspec.convert(msgpack.unpackb(body, raw=False, use_list=True), Stretch)
    except (ValueError, zlib.error, msgpack.exceptions.UnpackException, msgspec.ValidationError) as error:
        raise ReplicationRefused(f"a batch cannot be read: {error}") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
