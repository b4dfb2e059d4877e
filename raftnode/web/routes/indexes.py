"""Index definitions. They are kept in the record; queries scan the collection."""

import msgspec
from aiohttp import web

from raftnode.foundation.decoding import from_python_json
from raftnode.foundation.names import fold
from raftnode.record.commands import Command, DeleteIndex, PutIndex
from raftnode.web.commit import commit, commit_each
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.requests import Input, Query, answer, body
from raftnode.web.sliced_json import SLICES, JsonArray, JsonObject
from raftnode.web.stores import existing_database
from raftnode.web.views.base import Json
from raftnode.web.views.definitions import IndexesPut, IndexPut

DEFINITIONS_MAX = 256


class IndexInput(Input, frozen=True, kw_only=True):
    """What is checked of an index definition; the rest is kept as it came."""

    name: str
    maps: list[str]


class IndexesInput(Input, frozen=True, kw_only=True):
    """The definitions to put, read to the last byte: they are kept and shown as they are."""

    indexes: list[Json]


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [
        web.put("/databases/{database}/admin/indexes", put),
        web.put("/databases/{database}/indexes", put),
        web.get("/databases/{database}/indexes", get),
        web.delete("/databases/{database}/indexes", delete),
    ]


async def put(request: web.Request) -> web.Response:
    """Adds or replaces index definitions, one command each."""
    definitions = (await body(request, IndexesInput)).indexes
    if not 1 <= len(definitions) <= DEFINITIONS_MAX:
        raise bad_request(f"'Indexes' holds {len(definitions)} definitions; it must hold 1 to {DEFINITIONS_MAX}.")
    named = {_name(place, given): given for place, given in enumerate(definitions)}

    def build(names: list[str]) -> list[Command]:
        database = existing_database(request).name
        return [PutIndex(database=database, name=name, definition=msgspec.json.encode(named[name])) for name in names]

    results = await commit_each(request, list(named), build)
    put = [IndexPut(index=name, raft_command_index=result.index) for name, result in zip(named, results, strict=True)]
    return answer(IndexesPut(results=put), status=201)


async def get(request: web.Request) -> web.Response:
    """All index definitions, or the one of that name."""
    database = existing_database(request)
    name = Query(request).text("name")
    if name is None:
        found = sorted(database.indexes.values(), key=lambda index: index.name)
    elif fold(name) in database.indexes:
        found = [database.indexes[fold(name)]]
    else:
        message = f"Database '{database.name}' has no index '{name}'. Put it first, or correct the name."
        raise ApiError("IndexDoesNotExistException", message)
    results = JsonArray(from_python_json(index.definition) for index in found)
    return await request.app[SLICES].answer(JsonObject([("Results", results)]))


async def delete(request: web.Request) -> web.Response:
    """Deletes an index definition; one that is not there stays so."""
    name = Query(request).required("name")

    async def build() -> Command:
        return DeleteIndex(database=existing_database(request).name, name=name)

    await commit(request, build)
    return web.Response(status=204)


def _name(place: int, given: Json) -> str:
    try:
        return msgspec.convert(given, IndexInput).name
    except msgspec.ValidationError as error:
        raise bad_request(f"'Indexes[{place}]' does not fit: {error}. It needs Name and Maps.") from None
