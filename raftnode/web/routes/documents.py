"""Single documents, pages of them, and statistics."""

import asyncio
import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from aiohttp import web

from raftnode.documents.store.body import with_metadata
from raftnode.documents.store.model import Document
from raftnode.documents.store.store import CHECKED_ON_LOOP_BYTES_MAX, DocumentStore
from raftnode.foundation.decoding import from_json
from raftnode.foundation.names import fold
from raftnode.web.errors import bad_request
from raftnode.web.request_bodies import whole
from raftnode.web.requests import Input, Query, answer, body_of_documents, etag_of
from raftnode.web.routes.identities import numbered
from raftnode.web.services import SERVICES
from raftnode.web.stores import check_size, existing_database, store_to_read, store_to_write
from raftnode.web.views.base import Json
from raftnode.web.views.documents import CollectionStats, DatabaseStatistics, DocumentsPage, Written, size

IDS_MAX = 10_000
PAGE_SIZE = 25
SCAN_PAGE = 1_000
RENDERED_ON_LOOP_MAX = 32


class IdsInput(Input, frozen=True, kw_only=True):
    """Ids that are too long for a query string."""

    ids: list[str]


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    path = "/databases/{database}"
    return [
        web.get(f"{path}/docs", get, allow_head=False),
        web.post(f"{path}/docs", get_many),
        web.put(f"{path}/docs", put),
        web.delete(f"{path}/docs", delete),
        web.head(f"{path}/docs", head),
        web.get(f"{path}/stats", stats),
        web.get(f"{path}/collections/stats", collection_stats),
    ]


async def get(request: web.Request) -> web.Response:
    """Documents by id, by a prefix of their ids, or the newest."""
    query = Query(request)
    if query.has("id"):
        return await _by_ids(request, query.all("id"))
    store = await store_to_read(request)
    start, size = _page(request, query)
    prefix = query.text("startsWith")
    if prefix is None:
        found = await store.page(start=start, size=size, collection=query.text("collection"))
    else:
        found = await _by_prefix(store, prefix, query, start, size)
    results = await _rendered(found, metadata_only=query.flag("metadataOnly", False))
    return answer(DocumentsPage(results=results, includes=await _includes(store, query, found)))


async def get_many(request: web.Request) -> web.Response:
    """Documents by ids in the body."""
    return await _by_ids(request, (await body_of_documents(request, IdsInput)).ids)


async def put(request: web.Request) -> web.Response:
    """Writes a document; with If-Match only over that change vector."""
    store = await store_to_write(request)
    text = await whole(request)
    check_size(request.app[SERVICES], text)
    expected = etag_of(request.headers.get("If-Match"))
    [id] = await numbered(request, [Query(request).text("id") or ""])
    stored = await store.put(id, text, expected=expected)
    return answer(Written(id=stored.id, change_vector=stored.change_vector), status=201)


async def delete(request: web.Request) -> web.Response:
    """Deletes a document; one that is not there stays so."""
    store = await store_to_write(request)
    expected = etag_of(request.headers.get("If-Match"))
    await store.delete(Query(request).required("id"), expected=expected)
    return web.Response(status=204)


async def head(request: web.Request) -> web.Response:
    """Whether a document exists, and its change vector."""
    store = await store_to_read(request)
    [found] = await store.get([Query(request).required("id")])
    if found is None:
        return web.Response(status=404)
    return web.Response(headers={"ETag": f'"{found.change_vector}"'})


async def stats(request: web.Request) -> web.Response:
    """The counts of this node's copy."""
    database = existing_database(request)
    store = await store_to_read(request)
    counts = await store.stats()
    return answer(
        DatabaseStatistics(
            last_doc_etag=counts.last_etag,
            last_database_etag=counts.last_etag,
            count_of_indexes=len(database.indexes),
            count_of_documents=counts.documents,
            count_of_revision_documents=counts.revisions,
            count_of_resolved_conflicts=counts.conflicts,
            count_of_tombstones=counts.tombstones,
            database_change_vector=counts.database_change_vector,
            database_id=store.database_id,
            node_tag=request.app[SERVICES].tag,
            size_on_disk=size(counts.size_bytes),
            temp_buffers_size_on_disk=size(0),
        )
    )


async def collection_stats(request: web.Request) -> web.Response:
    """How many documents each collection has on this node."""
    counts = await (await store_to_read(request)).stats()
    return answer(CollectionStats(count_of_documents=counts.documents, collections=counts.collections))


async def _by_ids(request: web.Request, ids: Sequence[str]) -> web.Response:
    if not 1 <= len(ids) <= IDS_MAX:
        raise bad_request(f"{len(ids)} ids are asked for; it must be 1 to {IDS_MAX}.")
    store = await store_to_read(request)
    query = Query(request)
    wanted = list({fold(id): id for id in ids}.values())
    found = await store.get(wanted)
    if found == [None]:
        return web.Response(status=404)
    headers = {}
    if len(found) == 1 and found[0] is not None:
        headers["ETag"] = f'"{found[0].change_vector}"'
        if etag_of(request.headers.get("If-None-Match")) == found[0].change_vector:
            return web.Response(status=304, headers=headers)
    results = await _rendered(found, metadata_only=query.flag("metadataOnly", False))
    includes = await _includes(store, query, [document for document in found if document])
    return answer(DocumentsPage(results=results, includes=includes), headers=headers)


async def _by_prefix(store: DocumentStore, prefix: str, query: Query, start: int, size: int) -> list[Document]:
    """By id within the prefix, after `startAfter`, where the rest of the id fits `matches` and not `exclude`."""
    matches, exclude, after = query.text("matches"), query.text("exclude"), query.text("startAfter")
    if matches is None and exclude is None and after is None:
        return await store.page(start=start, size=size, prefix=prefix)
    fits, unfit = _wildcards(matches), _wildcards(exclude)
    found: list[Document] = []
    place = 0
    while len(found) < start + size:
        page = await store.page(start=place, size=SCAN_PAGE, prefix=prefix)
        for document in page:
            rest = fold(document.id[len(prefix) :])
            if after is not None and fold(document.id) <= fold(after):
                continue
            if (matches is None or fits(rest)) and not (exclude is not None and unfit(rest)):
                found.append(document)
        if len(page) < SCAN_PAGE:
            break
        place += SCAN_PAGE
    return found[start : start + size]


def _wildcards(patterns: str | None) -> Any:
    alternatives = [fnmatch.translate(p.replace("[", "[[]")) for p in fold(patterns or "").split("|")]
    return re.compile("|".join(alternatives)).match


def _page(request: web.Request, query: Query) -> tuple[int, int]:
    limit = request.app[SERVICES].settings.documents.page_documents_max
    return query.integer("start", 0), query.integer("pageSize", min(PAGE_SIZE, limit), high=limit)


async def _rendered(found: Sequence[Document | None], *, metadata_only: bool) -> list[Any]:
    def render() -> list[Any]:
        return [None if document is None else _json(document, metadata_only) for document in found]

    size = sum(len(document.body) for document in found if document is not None)
    little = len(found) <= RENDERED_ON_LOOP_MAX and size <= CHECKED_ON_LOOP_BYTES_MAX
    return render() if little else await asyncio.to_thread(render)


def _json(document: Document, metadata_only: bool) -> Any:
    text = with_metadata(document)
    if not metadata_only:
        return msgspec.Raw(text)
    return {"@metadata": from_json(text, dict[str, msgspec.Raw])["@metadata"]}


async def _includes(store: DocumentStore, query: Query, found: Iterable[Document]) -> Json:
    paths = query.all("include")
    if not paths:
        return {}
    ids = await asyncio.to_thread(_included, [document.body for document in found], paths)
    if len(ids) > IDS_MAX:
        raise bad_request(f"The includes name {len(ids)} documents; the limit is {IDS_MAX}. Ask for fewer at once.")
    included = [document for document in await store.get(list(ids.values())) if document]
    rendered = await _rendered(included, metadata_only=False)
    return {document.id: text for document, text in zip(included, rendered, strict=True)}


def _included(bodies: Iterable[bytes], paths: Sequence[str]) -> dict[str, str]:
    """The ids found at these paths, by their folded form. Only what leads to them is parsed."""
    ids: dict[str, str] = {}
    for text in bodies:
        for path in paths:
            ids |= {fold(id): id for id in _at(text, re.split(r"\.|\[\]\.?", path))}
    return ids


def _at(value: bytes, path: Sequence[str]) -> Iterator[str]:
    """The texts at a path; lists on the way are walked through."""
    text = value.strip()
    if text.startswith(b"["):
        for item in from_json(text, list[msgspec.Raw]):
            yield from _at(bytes(item), path)
    elif not path or path == [""]:
        if text.startswith(b'"'):
            yield from_json(text, str)
    elif text.startswith(b"{"):
        found = from_json(text, dict[str, msgspec.Raw]).get(path[0])
        if found is not None:
            yield from _at(bytes(found), path[1:])
