"""Imports of any length: documents are written as they arrive."""

import asyncio
import time
from typing import Any

import msgspec
from aiohttp import web

from raftnode.documents.errors import DocumentInvalid, StoreError
from raftnode.documents.store.model import PutDocument
from raftnode.documents.store.store import CHECKED_ON_LOOP_BYTES_MAX, DocumentStore
from raftnode.foundation.json_splitter import ItemTooLarge, JsonSplitter, NoListOfObjects
from raftnode.web.errors import ApiError, bad_request, of_store
from raftnode.web.request_bodies import pieces
from raftnode.web.requests import answer, not_supported, parse
from raftnode.web.services import SERVICES, Services
from raftnode.web.stores import check_size, existing_database, store_to_write
from raftnode.web.views.documents import OperationId

IMPORT_DOCUMENTS = 500
IMPORT_BYTES = 4 * 1024 * 1024
ITEM_OVERHEAD_BYTES = 64 * 1024


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
        web.post(f"{path}/bulk_insert", bulk_insert),
        web.get(f"{path}/operations/next-operation-id", next_operation_id),
    ]


async def bulk_insert(request: web.Request) -> web.Response:
    """Writes documents as they arrive, from a JSON array or one a line, compressed or not. What stands before a failure
    is written and stays; the answer names the item and how many documents are written."""
    work = _Import(request.app[SERVICES], await store_to_write(request))
    try:
        try:
            await _read(request, work)
        except ApiError:
            await work.flush()
            raise
        await work.flush()
    except (ApiError, StoreError) as error:
        refused = error if isinstance(error, ApiError) else of_store(error)
        refused.details |= {"Written": work.written}
        written = "1 document" if work.written == 1 else f"{work.written} documents"
        refused.message += f" {written} before it {'is' if work.written == 1 else 'are'} written."
        raise refused from None
    return web.Response()


async def next_operation_id(request: web.Request) -> web.Response:
    """An id for a bulk insert, unique in the cluster for long enough: the clock's."""
    existing_database(request)
    services = request.app[SERVICES]
    return answer(OperationId(id=time.time_ns() // 1_000, node_tag=services.tag))


class _Item(msgspec.Struct, frozen=True):
    """Where an item stands in the import; both count from 1."""

    number: int
    line: int

    def refused(self, error: ApiError) -> ApiError:
        """The refusal, with the item's place. `Reason` is the sentence without it."""
        error.details |= {"Item": self.number, "Line": self.line, "Reason": error.message}
        error.message = f"Item {self.number} (line {self.line}) of the import: {error.message}"
        return error


class _Import:
    """The documents of one import on their way to the store. `written` counts those that are there."""

    def __init__(self, services: Services, store: DocumentStore) -> None:
        self.written = 0
        self._parts, self._store = services, store
        self._pending: list[tuple[_Item, PutDocument]] = []
        self._bytes = 0

    async def add(self, item: _Item, text: bytes) -> None:
        """Takes an item. Raises ApiError that names the one that is refused."""
        try:
            if len(text) <= CHECKED_ON_LOOP_BYTES_MAX:
                operation = _imported(self._parts, text)
            else:
                operation = await asyncio.to_thread(_imported, self._parts, text)
        except ApiError as error:
            raise item.refused(error) from None
        if operation is None:
            return
        self._pending.append((item, operation))
        self._bytes += len(text)
        if len(self._pending) >= IMPORT_DOCUMENTS or self._bytes >= IMPORT_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Writes what was taken, up to the first one that the store refuses. Raises ApiError for that, StoreError."""
        pending, self._pending, self._bytes = self._pending, [], 0
        try:
            if pending:
                await self._store.batch([operation for _, operation in pending])
        except DocumentInvalid as error:
            place = error.place or 0
            self._pending = pending[:place]
            await self.flush()
            raise pending[place][0].refused(of_store(error)) from None
        self.written += len(pending)


async def _read(request: web.Request, work: _Import) -> None:
    """Each JSON object of the body, which may be an array, or objects with or without line breaks between them."""
    splitter = JsonSplitter(request.app[SERVICES].settings.documents.document_bytes_max + ITEM_OVERHEAD_BYTES)
    try:
        async for piece in pieces(request, sniffed=True):
            for text in splitter.feed(piece):
                await work.add(_Item(splitter.items, splitter.line), text)
            await asyncio.sleep(0)
        splitter.end()
    except NoListOfObjects as error:
        raise bad_request(str(error)) from None
    except ItemTooLarge as error:
        raise ApiError("TooLargeException", str(error)) from None


def _imported(services: Services, text: bytes) -> PutDocument | None:
    item = parse(text, ImportItem)
    if bytes(item.document) and item.metadata is None:
        if item.type != "PUT":
            raise not_supported(f"the item type {str(item.type)[:40]!r} in an import", "Use PUT.")
        check_size(services, bytes(item.document))
        return PutDocument(id=item.id or "", document=bytes(item.document))
    if item.type == "HeartBeat" and item.metadata is None:
        return None
    if item.metadata is None or not item.metadata.id:
        raise bad_request("A document of the import has no @metadata.@id. Add it, or send {Id, Type, Document}.")
    check_size(services, text)
    return PutDocument(id=item.metadata.id, document=text)
