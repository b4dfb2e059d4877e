"""From a path's database name to the database and this node's copy of it, or an answer that names who has one."""

from aiohttp import web

from raftnode.documents.store.store import DocumentStore
from raftnode.record.model import Database
from raftnode.web.errors import ApiError
from raftnode.web.routes.topology import REFRESH_HEADER, database_missing
from raftnode.web.services import SERVICES, Services

WRITABLE = ("Member", "Rehab")
"""A Promotable sends nothing to the others yet, so a write to it could be lost with it."""


def existing_database(request: web.Request) -> Database:
    """The database that the path names."""
    name = request.match_info["database"]
    database = request.app[SERVICES].replica.record.database(name)
    if database is None:
        raise database_missing(name)
    return database


async def store_to_read(request: web.Request) -> DocumentStore:
    """This node's copy of the database, in whatever state the node is in the group."""
    return await _store(request, existing_database(request))


async def store_to_write(request: web.Request) -> DocumentStore:
    """This node's copy of the database, if what is written here reaches the group."""
    services = request.app[SERVICES]
    database = existing_database(request)
    state = database.topology.state_of(services.tag)
    if state is not None and state not in WRITABLE:
        raise _elsewhere(
            f"Node {services.tag} is a Promotable of database '{database.name}' and takes no writes", database
        )
    return await _store(request, database)


def check_size(services: Services, text: bytes) -> None:
    """Refuses a document that is larger than the settings allow."""
    limit = services.settings.documents.document_bytes_max
    if len(text) > limit:
        message = f"A document has {len(text)} bytes; documents.document_bytes_max is {limit}. Make it smaller."
        raise ApiError("TooLargeException", message)


async def _store(request: web.Request, database: Database) -> DocumentStore:
    services = request.app[SERVICES]
    if database.disabled:
        message = (
            f"Database '{database.name}' is disabled. Enable it with `raftnode db enable {database.name}` "
            "(POST /admin/databases/enable)."
        )
        raise ApiError("DatabaseDisabledException", message)
    if database.topology.state_of(services.tag) is None:
        raise _elsewhere(f"Database '{database.name}' is not on node {services.tag}", database)
    return await services.databases.store(database.name)


def _elsewhere(reason: str, database: Database) -> ApiError:
    members = ", ".join(database.topology.members)
    remedy = f"Ask one of its Members: {members}." if members else "It has no Member at the moment."
    return ApiError("DatabaseNotRelevantException", f"{reason}. {remedy}", headers={REFRESH_HEADER: "true"})
