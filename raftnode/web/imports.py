"""Imports of any length: documents are written as they arrive."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from raftnode.documents.model import Put
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.parts import PARTS, Parts
from raftnode.web.requests import answer, not_supported, parse
from raftnode.web.splitter import Splitter
from raftnode.web.stores import check_size, existing_database, store_to_write

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
        web.get(f"{path}/operations/next-operation-id", next_operation_id, allow_head=False),
    ]


async def bulk_insert(request: web.Request) -> web.Response:
    """Writes documents as they arrive, from a JSON array or one a line. What was written before a failure stays."""
    store = await store_to_write(request)
    parts = request.app[PARTS]
    written = 0
    pending: list[Put] = []
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


async def _items(request: web.Request, item_bytes_max: int) -> AsyncIterator[bytes]:
    """Each JSON object of the body, which may be an array, or objects with or without line breaks between them."""
    splitter = Splitter(item_bytes_max)
    async for chunk in request.content.iter_any():
        for item in splitter.feed(chunk):
            yield item
        await asyncio.sleep(0)
    splitter.end()


def _imported(parts: Parts, text: bytes) -> Put | None:
    item = parse(text, ImportItem)
    if bytes(item.document) and item.metadata is None:
        if item.type != "PUT":
            raise not_supported(f"the item type {str(item.type)[:40]!r} in an import", "Use PUT.")
        check_size(parts, bytes(item.document))
        return Put(id=item.id or "", document=bytes(item.document))
    if item.type == "HeartBeat" and item.metadata is None:
        return None
    if item.metadata is None or not item.metadata.id:
        raise bad_request("A document of the import has no @metadata.@id. Add it, or send {Id, Type, Document}.")
    check_size(parts, text)
    return Put(id=item.metadata.id, document=text)
