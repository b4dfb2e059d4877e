"""External replication: RavenDB's route of its tasks, and what the receiving node answers to those of other groups."""

from aiohttp import web
from msgspec.structs import replace

from raftnode.documents.replication.sender import (
    BODY_BYTES_MAX,
    GROUP_HEADER,
    ReceiverState,
    accepted,
    group_name,
    receive,
)
from raftnode.documents.store.cleaning import held_by_all
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation.names import fold
from raftnode.web.errors import bad_request
from raftnode.web.request_bodies import whole
from raftnode.web.requests import Input, Query, answer, body
from raftnode.web.routes.task_definitions import put_task
from raftnode.web.services import SERVICES
from raftnode.web.stores import existing_database, store_to_write
from raftnode.web.views.base import Json


class PutWatcher(Input, frozen=True, kw_only=True):
    """An external replication, as clients send it."""

    watcher: Json


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [
        web.post("/databases/{database}/admin/tasks/external-replication", put),
        web.get("/external-replication/{database}/accepted", get_accepted),
        web.post("/external-replication/{database}/documents", post_documents),
    ]


async def put(request: web.Request) -> web.Response:
    """Adds an external replication, or edits the one of the watcher's TaskId."""
    given = await body(request, PutWatcher)
    return await put_task(request, "Replication", given.watcher)


async def get_accepted(request: web.Request) -> web.Response:
    """How far the source's order was taken in here, what this copy knows, and what all of its group do."""
    _of_another_group(request)
    store = await store_to_write(request)
    state = await accepted(store, Query(request).required("source"))
    return answer(await _with_group(request, store, state))


async def post_documents(request: web.Request) -> web.Response:
    """Takes in a batch for the database of the id `destination`. Idempotent."""
    _of_another_group(request)
    destination = Query(request).required("destination")
    store = await store_to_write(request)
    state = await receive(store, await whole(request, bytes_max=BODY_BYTES_MAX), destination)
    return answer(await _with_group(request, store, state))


def _of_another_group(request: web.Request) -> None:
    database, sender = existing_database(request), request.headers.get(GROUP_HEADER, "")
    if not sender:
        raise bad_request(f"The header {GROUP_HEADER} is missing. Name the database group that sends.")
    if sender == group_name(request.app[SERVICES].replica.record.cluster_id, database.name):
        raise bad_request(
            f"Database '{database.name}' would replicate to itself: its nodes have its documents already. Correct the "
            "database or the addresses of the connection string."
        )


async def _with_group(request: web.Request, store: DocumentStore, state: ReceiverState) -> ReceiverState:
    """The state with what every copy of the group holds by now."""
    database, services = existing_database(request), request.app[SERVICES]
    # In this order: what was just taken in must stand at or before the last etag.
    last_etag = store.last_etag
    copy = services.databases.status().get(fold(database.name))
    all_hold = held_by_all(database.topology, services.tag, copy.sent if copy else {})
    settled = min(last_etag, all_hold or 0)
    known = await store.known_at(settled)
    return replace(state, last_etag=last_etag, settled_etag=settled, settled_change_vector=known)
