"""Many documents at once: a transaction of commands, and an import of any length."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
from aiohttp import web

from raftnode.documents.model import Delete, Document, Put
from raftnode.documents.store import DocumentStore
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.parts import PARTS, Parts
from raftnode.web.requests import Input, Query, answer, body, not_supported, parse
from raftnode.web.stores import existing_database, store_to_write

WAIT_FOR_REPLICAS_S = 15.0
WAIT_FOR_REPLICAS_S_MAX = 50.0
REPLICAS_POLL_S = 0.01
IMPORT_DOCUMENTS = 500
IMPORT_BYTES = 4 * 1024 * 1024
ITEM_OVERHEAD_BYTES = 64 * 1024

_MARK = re.compile(rb'["{}]')
_REST_OF_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
_BETWEEN = re.compile(rb"[\s,\[\]]*\Z")


class BatchCommand(Input, frozen=True, kw_only=True):
    """One command of a batch."""

    type: str
    id: str | None = None
    change_vector: str | None = None
    document: msgspec.Raw = msgspec.Raw()


class Commands(Input, frozen=True, kw_only=True):
    """A batch: all or nothing."""

    commands: list[BatchCommand]
    transaction_mode: str | None = None


class ImportMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Where a plain document of an import carries its id."""

    id: str = msgspec.field(name="@id", default="")


class ImportItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item of an import: RavenDB's {Id, Type, Document}, or a plain document with an id in its metadata."""

    id: str | None = msgspec.field(name="Id", default=None)
    type: Any = msgspec.field(name="Type", default=None)
    document: msgspec.Raw = msgspec.field(name="Document", default=msgspec.Raw())
    metadata: ImportMetadata | None = msgspec.field(name="@metadata", default=None)


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    path = "/databases/{database}"
    return [
        web.post(f"{path}/bulk_docs", bulk_docs),
        web.post(f"{path}/bulk_insert", bulk_insert),
        web.get(f"{path}/operations/next-operation-id", next_operation_id, allow_head=False),
    ]


async def bulk_docs(request: web.Request) -> web.Response:
    """Puts and deletes in one transaction; answers after the sync, and after as many replicas as were asked for."""
    store = await store_to_write(request)
    batch = await body(request, Commands)
    if batch.transaction_mode not in (None, "SingleNode"):
        raise not_supported(f"TransactionMode {batch.transaction_mode!r}", "Use a single-node transaction.")
    parts = request.app[PARTS]
    limit = parts.settings.documents.batch_operations_max
    if len(batch.commands) > limit:
        raise bad_request(f"{len(batch.commands)} commands; documents.batch_operations_max is {limit}. Send fewer.")
    replicas = _replicas_wanted(request)
    operations = [_operation(parts, index, command) for index, command in enumerate(batch.commands)]
    done = await store.batch(operations)
    if replicas:
        await _wait_for_replicas(request, store, replicas)
    results = [_result(command, document) for command, document in zip(batch.commands, done, strict=True)]
    return answer({"Results": results}, status=201)


async def bulk_insert(request: web.Request) -> web.Response:
    """Writes documents as they arrive, from a JSON array or one a line. What was written before a failure stays."""
    store = await store_to_write(request)
    parts = request.app[PARTS]
    written = 0
    pending: list[Put | Delete] = []
    size = 0
    try:
        async for text in _items(request, parts.settings.documents.document_bytes_max + ITEM_OVERHEAD_BYTES):
            operation = _imported(parts, text)
            if operation is None:
                continue
            pending.append(operation)
            size += len(text)
            if len(pending) >= IMPORT_DOCUMENTS or size >= IMPORT_BYTES:
                await store.batch(pending)
                written, pending, size = written + len(pending), [], 0
        if pending:
            await store.batch(pending)
    except ApiError as error:
        error.message += f" {written} documents before it are written."
        raise
    return web.Response()


async def next_operation_id(request: web.Request) -> web.Response:
    """An id for a bulk insert, unique in the cluster for long enough: the clock's."""
    existing_database(request)
    parts = request.app[PARTS]
    return answer({"Id": time.time_ns() // 1_000, "NodeTag": parts.tag})


def _operation(parts: Parts, index: int, command: BatchCommand) -> Put | Delete:
    where = f"Commands[{index}]"
    if command.type == "PUT":
        if not bytes(command.document):
            raise bad_request(f"{where} is a PUT without a Document. Add it.")
        _check_size(parts, command.document)
        return Put(id=command.id or "", document=bytes(command.document), expected=command.change_vector)
    if command.type == "DELETE":
        if not command.id:
            raise bad_request(f"{where} is a DELETE without an Id. Add it.")
        return Delete(id=command.id, expected=command.change_vector)
    raise not_supported(f"{where}: the command type {command.type[:40]!r}", "Use PUT or DELETE.")


def _result(command: BatchCommand, document: Document | None) -> dict[str, Any]:
    if command.type == "DELETE":
        return {
            "Type": "DELETE",
            "Id": command.id,
            "Deleted": document is not None,
            "ChangeVector": document.change_vector if document else None,
        }
    assert document is not None
    return {
        "Type": "PUT",
        "@id": document.id,
        "@collection": document.collection,
        "@change-vector": document.change_vector,
        "@last-modified": document.last_modified,
    }


def _check_size(parts: Parts, text: msgspec.Raw | bytes) -> None:
    limit = parts.settings.documents.document_bytes_max
    size = len(bytes(text))
    if size > limit:
        message = f"A document has {size} bytes; documents.document_bytes_max is {limit}. Make it smaller."
        raise ApiError("TooLargeException", message)


def _replicas_wanted(request: web.Request) -> int:
    """How many other nodes must have the batch before it is answered."""
    query = Query(request)
    if not query.has("numberOfReplicasToWaitFor"):
        return 0
    parts = request.app[PARTS]
    topology = existing_database(request).topology
    others = len([tag for tag in (*topology.members, *topology.rehabs) if tag != parts.tag])
    if (query.text("numberOfReplicasToWaitFor") or "").lower() == "majority":
        return (others + 1) // 2
    wanted = query.integer("numberOfReplicasToWaitFor", low=0, high=100)
    if wanted > others:
        raise bad_request(
            f"numberOfReplicasToWaitFor is {wanted}, but the group has {others} other nodes to replicate to. "
            "Ask for fewer, or add nodes to the group."
        )
    return wanted


async def _wait_for_replicas(request: web.Request, store: DocumentStore, wanted: int) -> None:
    parts = request.app[PARTS]
    query = Query(request)
    timeout_s = min(query.timespan_s("waitForReplicasTimeout", WAIT_FOR_REPLICAS_S), WAIT_FOR_REPLICAS_S_MAX)
    etag, folded = store.last_etag, store.database.lower()
    # The senders show their places and raise no event, so they are looked at again and again.
    try:
        async with asyncio.timeout(timeout_s):
            while len(_replicated(parts, folded, etag)) < wanted:  # noqa: ASYNC110
                await asyncio.sleep(REPLICAS_POLL_S)
    except TimeoutError:
        reached = _replicated(parts, folded, etag)
        if len(reached) >= wanted or not query.flag("throwOnTimeoutInWaitForReplicas", True):
            return
        raise ApiError(
            "TimeoutException",
            f"The documents are written on node {parts.tag}, but within {timeout_s:g} s only {len(reached)} of "
            f"{wanted} wanted replicas have them ({', '.join(reached) or 'none'}). They go on being replicated.",
            status=500,
        ) from None


def _replicated(parts: Parts, folded: str, etag: int) -> list[str]:
    """The nodes that have taken in this copy's order up to the etag."""
    copy = parts.databases.status().get(folded)
    return sorted(tag for tag, sent in copy.sent.items() if sent >= etag) if copy else []


async def _items(request: web.Request, item_bytes_max: int) -> AsyncIterator[bytes]:
    """Each JSON object of the body, which may be an array, or objects with or without line breaks between them."""
    splitter = Splitter(item_bytes_max)
    async for chunk in request.content.iter_any():
        for item in splitter.feed(chunk):
            yield item
        await asyncio.sleep(0)
    splitter.end()


class Splitter:
    """Cuts a stream into its outermost JSON objects without parsing them; every byte is looked at once."""

    def __init__(self, item_bytes_max: int) -> None:
        self._item_bytes_max = item_bytes_max
        self._buffer = bytearray()
        self._place = 0
        self._start = 0
        self._depth = 0
        self._in_string = False
        self._items = 0
        self._array = False
        self._closed = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The objects that this chunk completes. Raises ApiError for what is no list of objects."""
        self._buffer += chunk
        done = 0
        while (mark := self._next_mark()) is not None:
            if mark == b"{":
                if self._depth == 0:
                    self._start = self._place - 1
                    self._check_between(bytes(self._buffer[done : self._start]))
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth < 0:
                    raise bad_request(f"Before item {self._items} of the import stands a '}}' too many.")
                if self._depth == 0:
                    done = self._place
                    self._items += 1
                    yield bytes(self._buffer[self._start : done])
        self._forget(self._start if self._depth else done)
        if len(self._buffer) > self._item_bytes_max:
            message = f"Item {self._items} of the import is larger than {self._item_bytes_max} bytes. Make it smaller."
            raise ApiError("TooLargeException", message)

    def _next_mark(self) -> bytes | None:
        """The next brace outside strings, with the place after it; None when the buffer holds no more."""
        while True:
            if self._in_string:
                rest = _REST_OF_STRING.match(self._buffer, self._place)
                assert rest is not None
                self._place = rest.end()
                if not rest[1]:
                    return None
                self._in_string = False
            mark = _MARK.search(self._buffer, self._place)
            if mark is None:
                self._place = len(self._buffer)
                return None
            self._place = mark.end()
            if mark[0] != b'"':
                return bytes(mark[0])
            self._in_string = True

    def end(self) -> None:
        """Checks that nothing is left over. Raises ApiError."""
        if self._depth:
            raise bad_request(f"The import ends within item {self._items}. Send it again from there.")
        self._check_between(bytes(self._buffer))
        if self._array and not self._closed:
            raise bad_request(f"The import ends without the closing ']' after {self._items} items.")

    def _check_between(self, gap: bytes) -> None:
        if _BETWEEN.match(gap) is None:
            raise bad_request(
                f"Before item {self._items} of the import stands {gap[:40]!r}; only objects may stand there."
            )
        self._array = self._array or b"[" in gap
        self._closed = self._closed or b"]" in gap

    def _forget(self, count: int) -> None:
        del self._buffer[:count]
        self._start = 0
        self._place -= count


def _imported(parts: Parts, text: bytes) -> Put | None:
    item = parse(text, ImportItem)
    if bytes(item.document) and item.metadata is None:
        if item.type != "PUT":
            raise not_supported(f"the item type {str(item.type)[:40]!r} in an import", "Use PUT.")
        _check_size(parts, item.document)
        return Put(id=item.id or "", document=bytes(item.document))
    if item.type == "HeartBeat" and item.metadata is None:
        return None
    if item.metadata is None or not item.metadata.id:
        raise bad_request("A document of the import has no @metadata.@id. Add it, or send {Id, Type, Document}.")
    _check_size(parts, text)
    return Put(id=item.metadata.id, document=text)
