"""The one sender of documents, for the group, a mentor's filling and external replication, and what the receiving node
does.

A sender pushes a store's order, stretch by stretch, from where the other side last took it in. What the other
side holds already is not sent again, but the stretch is still told, so that the other side learns what the
sender knew at its end (see `writes`). Batches are msgpack, compressed when they are large, and idempotent.
"""

import asyncio
import random
import zlib
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote

import msgpack
import msgspec
import structlog

from raftnode.documents import change_vector
from raftnode.documents.errors import ReplicationRefused, StoreError
from raftnode.documents.store.model import Batch, Document, ReplicationBatch
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation import timestamps
from raftnode.foundation.backoff import backoff
from raftnode.foundation.decoding import DECODE_ERRORS, MsgpackDecoder
from raftnode.foundation.http_client import HttpClient, HttpError, Response
from raftnode.foundation.names import fold

log = structlog.get_logger(__name__)

COMPRESS_BYTES_MIN = 16 * 1024
NODE_HEADER = "Raftnode-Node-Id"
"""Names the sender. Who is no node of the receiver's cluster is refused: a node that was removed, or whose cluster
began again without it, still has the addresses of the others, and takes documents as long as it runs."""
GROUP_HEADER = "Raftnode-Source-Group"
"""Names the database group that sends from outside. It is no proof of who asks, but keeps a group from sending to
itself by way of another address."""
BODY_BYTES_MAX = 256 * 1024 * 1024
PLAIN, DEFLATED = b"\x00", b"\x01"
QUIET_ETAGS_MAX = 1024
"""A stretch in which nothing is new to the other side is told once it is this long, or after a while."""
AHEAD_MAX = 10_000
"""So many documents sent before their place are remembered; beyond it they are sent twice, which does no harm."""
TELL_DELAY_S = 0.1
"""So long a stretch in which nothing is new waits for something that is."""
RELAY_DELAY_S = 0.1
"""So long the writes of others wait, and then the other side is asked: most often it has them by then from
the node where they were made."""
BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 2.0
REQUEST_TIMEOUT_S = 30.0

_batch_decoder: MsgpackDecoder[ReplicationBatch] = MsgpackDecoder(ReplicationBatch, flat=True)


class Destination(msgspec.Struct, frozen=True):
    """Where to send: a node's tag, its HTTP address, and the database's name there. `from_group` names the
    sending database group if the destination belongs to another one (see `group_name`), and is empty within a group."""

    tag: str
    url: str
    database: str
    from_group: str = ""


class SenderStatus(msgspec.Struct, rename="pascal"):
    """How far a sender is. `last_sent_etag` is the place in this store's order up to which the other side has
    everything; `error` is empty when all is well; `sent` counts documents."""

    destination: str
    url: str
    last_sent_etag: int = 0
    sent: int = 0
    error: str = ""
    at: str | None = None


class ReceiverState(msgspec.Struct, frozen=True, rename="pascal"):
    """What the receiving side says of itself: how far it took the source in, and all it knows.

    The rest it says only to another group. `last_etag` is the last place of its own order; up to `settled_etag` every
    copy of its group has that order, and so counts what `settled_change_vector` counts.
    """

    database_id: str
    accepted_etag: int
    change_vector: str
    last_etag: int = 0
    settled_etag: int = 0
    settled_change_vector: str = ""


class SenderSource(Protocol):
    """What a sender uses of a `DocumentStore`."""

    @property
    def database_id(self) -> str: ...
    @property
    def last_etag(self) -> int: ...
    @property
    def change_vector(self) -> str: ...
    async def known_at(self, etag: int) -> str: ...
    async def after(self, etag: int, *, limit: int, bytes_max: int) -> Batch: ...
    async def wait_known(self, after_etag: int, change_vector: str, timeout_s: float | None) -> None: ...


class DocumentSender:
    """Sends one store's documents to one destination until cancelled.

    `heard` gives what a database, by its id, was last heard to hold (`DocumentStore.heard_of`): others may
    have sent there meanwhile. `told` is called with each answer of the other side, and up to which place it has this
    store's order by then.
    """

    def __init__(
        self,
        store: SenderSource,
        destination: Destination,
        http: HttpClient,
        *,
        batch_documents_max: int = 1024,
        batch_bytes_max: int = 8 * 1024 * 1024,
        heard: Callable[[str], str] = lambda database_id: "",
        told: Callable[[int, ReceiverState], None] = lambda etag, receiver: None,
    ) -> None:
        self._store, self._destination, self._http, self._heard = store, destination, http, heard
        self._told = told
        self._limit, self._bytes_max = batch_documents_max, batch_bytes_max
        self._receiver = ReceiverState(database_id="", accepted_etag=0, change_vector="")
        self._ahead: dict[str, int] = {}
        self.status = SenderStatus(destination=destination.tag, url=destination.url)
        self.on_moved: Callable[[], None] = lambda: None
        """Called when `status` has changed."""

    async def run(self) -> None:
        """Until cancelled. A failure is shown in `status`, said once, and tried again after a growing while."""
        failures = 0
        while True:
            before = self.status.last_sent_etag
            try:
                await self.session()
            except (HttpError, StoreError) as error:
                self._failed(str(error))
            failures = 1 if self.status.last_sent_etag > before else failures + 1
            await asyncio.sleep(backoff(failures, BACKOFF_MIN_S, BACKOFF_MAX_S, random))

    async def session(self) -> None:
        """Sends from where the other side is until something fails. Never returns. Raises HttpError or StoreError.

        `etag` is how far this store's order was read: the other side has all that stands up to there. `told` is how
        far it knows that: its accepted etag. The two differ while what was read held nothing new to it.
        `untold_since` is when it began not to know something, its place in this order or what this store knows; None
        when it knows all.
        """
        clock = asyncio.get_running_loop().time
        self._ahead.clear()
        etag = told = await self._handshake()
        untold_since: float | None = None
        following: tuple[str, Batch] | None = None
        while True:
            seen, batch = following or await self._read(etag)
            following = None
            new = self._new(batch)
            # Only writes of other nodes, and they are the newest: the node where they were made is about to send them
            # itself. While there is more to read, or a write of this node is among them, nothing is won by waiting.
            if new and batch.end and not any(self._written_here(item) for item in new):
                await asyncio.sleep(RELAY_DELAY_S)
                # Asked for its change vector alone. Its accepted etag is `told`, as only this sender moves it.
                await self._handshake()
                new = self._new(batch)
            # With nothing new the position is still reported, late and rarely. The other side's change vector grows
            # only by that: the observer judges the copy by it, and the next session need not read everything again.
            due = untold_since is not None and clock() >= untold_since + TELL_DELAY_S
            if new or due or batch.last_etag - told >= QUIET_ETAGS_MAX:
                # From `told` on and not from `etag`: the other side refuses a stretch that leaves a gap. What lies
                # between and is not sent, it has.
                following = await self._send_and_read_on(told, batch, new)
                self._remember_ahead(batch, new)
                told = batch.last_etag
            etag = batch.last_etag
            self._passed(etag, len(new))
            # Told the place is not enough: the answer must also count all that this store knew there. After a send that
            # did not achieve it, it is told again after the next delay.
            if etag == told and change_vector.dominates(self._receiver.change_vector, batch.change_vector):
                untold_since = None
            elif untold_since is None or due:
                untold_since = clock()
            if batch.end:
                # A sender that has nothing to tell waits for as long as nothing happens.
                wait_s = None if untold_since is None else max(0.0, untold_since + TELL_DELAY_S - clock())
                await self._store.wait_known(etag, seen, wait_s)

    async def _read(self, etag: int) -> tuple[str, Batch]:
        """The stretch after a place, and what the store knew before the read: what it learns during it must end the
        wait for more."""
        seen = self._store.change_vector
        return seen, await self._store.after(etag, limit=self._limit, bytes_max=self._bytes_max)

    async def _send_and_read_on(self, told: int, batch: Batch, new: list[Document]) -> tuple[str, Batch] | None:
        """Sends a batch and reads the following stretch meanwhile, None if there is none yet."""
        if batch.end:
            await self._send(told, batch, new)
            return None
        # Both have ended when this returns, also when one of them fails.
        sent, read = await asyncio.gather(
            self._send(told, batch, new), self._read(batch.last_etag), return_exceptions=True
        )
        if isinstance(sent, BaseException):
            raise sent
        if isinstance(read, BaseException):
            raise read
        return read

    def _new(self, batch: Batch) -> list[Document]:
        """What the other side lacks of the batch, by all that is known of it. It holds its own writes anyway."""
        database_id = self._receiver.database_id
        held = change_vector.merge(self._receiver.change_vector, self._heard(database_id))
        return [
            item
            for item in batch.items
            if self._ahead.get(item.id) != item.etag
            and not change_vector.dominates(held, change_vector.without(item.change_vector, database_id))
        ]

    def _remember_ahead(self, batch: Batch, sent: list[Document]) -> None:
        """What was sent at an older place of its document need not be sent again at its own."""
        ahead = {id: etag for id, etag in self._ahead.items() if etag > batch.last_etag}
        ahead |= {item.id: item.etag for item in sent if item.etag > batch.last_etag}
        self._ahead = ahead if len(ahead) <= AHEAD_MAX else {}

    def _written_here(self, item: Document) -> bool:
        return change_vector.etag_of(item.origin, self._store.database_id) > 0

    async def ask(self) -> ReceiverState:
        """Where the other side stands now. Raises HttpError or StoreError."""
        url = f"{self._url('accepted')}?source={quote(self._store.database_id, safe='')}"
        answer = await self._http.request("GET", url, headers=self._named(), timeout_s=REQUEST_TIMEOUT_S)
        return _answered(answer)

    async def _handshake(self) -> int:
        self._receiver = receiver = await self.ask()
        if receiver.database_id == self._store.database_id:
            raise ReplicationRefused(f"{self._destination.url} is this very database: correct the address")
        here = change_vector.etag_of(self._store.change_vector, self._store.database_id)
        there = change_vector.etag_of(receiver.change_vector, self._store.database_id)
        if there > here:
            raise ReplicationRefused(
                f"{self._destination.tag} holds this node's writes up to etag {there}, but the last here is {here}: "
                "this node's file was replaced by an older copy. Remove this node from the database group and add it "
                "again"
            )
        self._told(receiver.accepted_etag, receiver)
        return receiver.accepted_etag

    async def _send(self, after_etag: int, batch: Batch, new: list[Document]) -> None:
        outgoing = ReplicationBatch(
            source=self._store.database_id,
            after_etag=after_etag,
            last_etag=batch.last_etag,
            knowledge=batch.change_vector,
            documents=tuple(new),
            purged_last_modified=batch.purged_last_modified,
            fences=batch.fences,
        )
        body = await asyncio.to_thread(encode, outgoing)
        # For this very database: if another one has its name and address by the time this arrives, it must refuse.
        url = f"{self._url('documents')}?destination={quote(self._receiver.database_id, safe='')}"
        answer = await self._http.request("POST", url, body=body, headers=self._named(), timeout_s=REQUEST_TIMEOUT_S)
        self._receiver = receiver = _answered(answer)
        if receiver.accepted_etag < batch.last_etag:
            raise ReplicationRefused(
                f"{self._destination.tag} has taken this node in up to {receiver.accepted_etag} only: going back there"
            )
        self._told(batch.last_etag, receiver)

    def _named(self) -> dict[str, str]:
        group = self._destination.from_group
        return {GROUP_HEADER: group} if group else {NODE_HEADER: self._http.node_id}

    def _url(self, what: str) -> str:
        area = "external-replication" if self._destination.from_group else "replication"
        return f"{self._destination.url}/{area}/{quote(self._destination.database, safe='')}/{what}"

    def _passed(self, etag: int, sent: int) -> None:
        status = self.status
        if status.error:
            log.info("Replication goes on.", destination=status.destination, database=self._destination.database)
        status.error = ""
        status.last_sent_etag = etag
        status.sent += sent
        status.at = timestamps.now()
        self.on_moved()

    def _failed(self, error: str) -> None:
        if error != self.status.error:
            database = self._destination.database
            log.info("Replication waits.", destination=self.status.destination, database=database, reason=error)
        self.status.error = error
        self.status.at = timestamps.now()
        self.on_moved()


def group_name(cluster_id: str, database: str) -> str:
    """What a database group is called to others, for `Destination.from_group`."""
    return quote(f"{cluster_id}/{fold(database)}", safe="/")


def _answered(response: Response) -> ReceiverState:
    try:
        receiver = msgspec.convert(response.json(), ReceiverState)
        change_vector.parse(receiver.change_vector)
        return receiver
    except (msgspec.ValidationError, change_vector.ChangeVectorInvalid) as error:
        raise ReplicationRefused(f"the answer of the other side cannot be read ({error}): check its version") from error


async def accepted(store: DocumentStore, source_database_id: str) -> ReceiverState:
    """The receiving side's answer to a handshake."""
    etag = await store.accepted_from(source_database_id)
    return ReceiverState(store.database_id, etag, store.change_vector)


async def receive(store: DocumentStore, payload: bytes, destination: str | None = None) -> ReceiverState:
    """Takes in a batch and answers as the handshake does. `destination` is the database, by its id, that the sender
    has asked before, None of a node of an earlier version. Raises ReplicationRefused for what is no batch, and for one
    that was meant for another database: what its sender has left out may be missing in this one."""
    if destination is not None and destination != store.database_id:
        raise ReplicationRefused(
            f"a batch is for the database with the id {destination}, which was here before: it is sent again as "
            f"{store.database_id} needs it"
        )
    batch = await asyncio.to_thread(decode, payload)
    accepted_etag = await store.merge(batch)
    return ReceiverState(store.database_id, accepted_etag, store.change_vector)


def encode(batch: ReplicationBatch) -> bytes:
    """The batch as it travels: a byte that says whether it is compressed, then msgpack."""
    body: bytes = msgpack.packb(msgspec.to_builtins(batch, builtin_types=(bytes,)), use_bin_type=True)
    return DEFLATED + zlib.compress(body, 1) if len(body) >= COMPRESS_BYTES_MIN else PLAIN + body


def decode(payload: bytes) -> ReplicationBatch:
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
        batch = _batch_decoder.decode(body)
        change_vector.parse(batch.knowledge)
        change_vector.parse(change_vector.dot("A", batch.last_etag, batch.source))
        if not 0 <= batch.after_etag <= batch.last_etag:
            raise ReplicationRefused(f"a batch goes from {batch.after_etag} to {batch.last_etag}")
        if batch.purged_last_modified:
            timestamps.to_ticks(batch.purged_last_modified)
        return batch
    except (ValueError, zlib.error, *DECODE_ERRORS) as error:
        raise ReplicationRefused(f"a batch cannot be read: {error}") from error
