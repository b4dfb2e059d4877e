"""Connection strings: where tasks send data to."""

import msgspec
from aiohttp import web

from raftnode.foundation import masking
from raftnode.foundation.decoding import from_json
from raftnode.foundation.names import fold
from raftnode.record.commands import Command, DeleteConnectionString, PutConnectionString
from raftnode.record.model import Database
from raftnode.web.commit import commit
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.requests import Input, Query, answer, body, fitting, not_supported
from raftnode.web.routes.tasks import checked_by_kind
from raftnode.web.services import SERVICES
from raftnode.web.stores import existing_database
from raftnode.web.views.base import Committed, Json
from raftnode.web.views.definitions import User
from raftnode.web.views.record import connection_strings
from tasks.kinds import connection_types

USED_BY = {"Replication": "ExternalReplication"}
"""RavenDB's ConnectionStringUsageKind where it differs from the TaskType. Official clients refuse other words."""


class ConnectionStringHeader(Input, frozen=True, kw_only=True):
    """What every connection string has."""

    name: str
    type: str


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    path = "/databases/{database}/admin/connection-strings"
    return [web.put(path, put), web.get(path, get), web.delete(path, delete)]


async def put(request: web.Request) -> web.Response:
    """Adds or replaces a connection string. Tasks that use it start again with it."""
    # All of it is read, unknown fields too, as all of it is kept and shown.
    given = await body(request, Json)
    header = fitting(given, ConnectionStringHeader)

    async def build() -> Command:
        database = existing_database(request)
        stored = database.connection_strings.get(fold(header.name))
        whole = with_secrets(given, stored.configuration if stored else None)
        await check_connection(header.type, whole, database)
        if header.type == "Raven":
            _refuse_itself(request, whole, database)
        return PutConnectionString(
            database=database.name, name=header.name, type=header.type, configuration=msgspec.json.encode(whole)
        )

    return answer(Committed(raft_command_index=(await commit(request, build)).index))


async def get(request: web.Request) -> web.Response:
    """All connection strings by type, or one by name and type, without their secrets."""
    database = existing_database(request)
    query = Query(request)
    name, kind = query.text("connectionStringName"), query.text("type")
    shown = connection_strings(database)
    for group, strings in shown.items():
        for key in list(strings):
            wrong_type = kind is not None and fold(group) != fold(connection_types.section(kind))
            if wrong_type or (name is not None and fold(key) != fold(name)):
                del strings[key]
            else:
                strings[key]["UsedBy"] = _users(database, key)
    return answer(shown)


async def delete(request: web.Request) -> web.Response:
    """Deletes a connection string that no task uses."""
    query = Query(request)
    name, kind = query.required("connectionString"), query.text("type")

    async def build() -> Command:
        database = existing_database(request)
        present = database.connection_strings.get(fold(name))
        if present is None:
            known = ", ".join(sorted(string.name for string in database.connection_strings.values())[:10]) or "none"
            message = f"Database '{database.name}' has no connection string '{name}'. Its connection strings: {known}."
            raise ApiError("ConnectionStringDoesNotExistException", message)
        if kind is not None and fold(present.type) != fold(kind):
            raise bad_request(f"Connection string '{name}' is of type {present.type}, not {kind}. Correct the type.")
        return DeleteConnectionString(database=database.name, name=name)

    return answer(Committed(raft_command_index=(await commit(request, build)).index))


def _refuse_itself(request: web.Request, given: Json, database: Database) -> None:
    """Refuses a database as its own destination: its nodes have its documents already."""
    own = {node.url.rstrip("/").lower() for node in request.app[SERVICES].replica.record.nodes.values()}
    urls = [url for url in given["TopologyDiscoveryUrls"] if url.rstrip("/").lower() in own]
    if urls and fold(given["Database"]) == fold(database.name):
        raise bad_request(
            f"TopologyDiscoveryUrls: {urls[0]} is a node of this cluster, and '{database.name}' this very database. "
            "Name another database, or another cluster's nodes."
        )


def with_secrets(given: Json, stored: bytes | None) -> Json:
    """What an editor sends, who was shown masks, with the secrets that are stored in their places."""
    try:
        kept: Json = masking.unmasked(given, from_json(stored) if stored else None)
    except masking.NoStoredSecret as error:
        raise bad_request(str(error)) from None
    return kept


def _users(database: Database, name: str) -> list[User]:
    return [
        User(kind=USED_BY.get(task.kind, task.kind), id=task.id, name=task.name)
        for task in sorted(database.tasks.values(), key=lambda t: t.id)
        if fold(task.connection_string or "") == fold(name)
    ]


async def check_connection(type: str, given: Json, database: Database) -> None:
    """Refuses a connection string that its kind does not find good, and one of a type that no kind takes."""
    try:
        await checked_by_kind(lambda: connection_types.check(type, given, database))
    except connection_types.UnknownConnectionType as error:
        raise not_supported(f"'Type' {type[:40]!r} of a connection string", str(error)) from None
