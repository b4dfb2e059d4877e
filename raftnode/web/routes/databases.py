"""Databases as the cluster sees them: creating, deleting, listing, their states."""

import asyncio
import base64
import uuid

from aiohttp import web
from immutables import Map

from raftnode.foundation import timestamps
from raftnode.foundation.names import fold
from raftnode.record.commands import (
    Command,
    CreateDatabase,
    DeleteDatabase,
    SetDatabaseState,
    SetLockMode,
)
from raftnode.record.grace import GRACE_MIN_MAX, GRACE_SETTING, minutes
from raftnode.record.model import LockMode, Record
from raftnode.web.commit import commit, commit_each
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.requests import (
    PAGE_MAX,
    Input,
    Query,
    answer,
    body,
    body_if_any,
    fitting,
    not_supported,
    timespan_s,
)
from raftnode.web.routes.cluster import the_node
from raftnode.web.routes.groups import group_answer, the_database
from raftnode.web.services import SERVICES
from raftnode.web.sliced_json import SLICES, JsonArray, JsonObject
from raftnode.web.views.base import Committed, Json
from raftnode.web.views.databases import DatabaseNames, Deleted, StateSet, StatesSet, summary
from raftnode.web.views.record import database_record
from tasks.kinds import connection_types, registry

NAMES_MAX = 100
CONFIRMATION_S = 15.0
CONFIRMATION_S_MAX = 50.0

NOT_AT_CREATION = ("Indexes", *map(connection_types.section, connection_types.TYPES), *registry.SECTIONS.values())


class TopologyInput(Input, frozen=True, kw_only=True):
    """The group a creator asks for."""

    members: list[str] | None = None
    dynamic_nodes_distribution: bool = False


class DatabaseInput(Input, frozen=True, kw_only=True):
    """The record a creator sends; what is not taken at creation is refused, not dropped."""

    database_name: str | None = None
    disabled: bool = False
    encrypted: bool = False
    topology: TopologyInput | None = None
    settings: dict[str, str | None] | None = None
    sharding: Json | None = None


class DeletionInput(Input, frozen=True, kw_only=True):
    """Which databases go, from which nodes, and how long the caller waits for it."""

    database_names: list[str]
    hard_delete: bool = False
    from_nodes: list[str] | None = None
    time_to_wait_for_confirmation: str | None = None


class NamesInput(Input, frozen=True, kw_only=True):
    """Databases by name."""

    database_names: list[str]


class LockInput(Input, frozen=True, kw_only=True):
    """A lock mode for databases."""

    database_names: list[str]
    mode: LockMode


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [
        web.put("/admin/databases", create),
        web.get("/admin/databases", get_record),
        web.delete("/admin/databases", delete),
        web.post("/admin/databases/enable", enable),
        web.post("/admin/databases/disable", disable),
        web.post("/admin/databases/set-lock", set_lock),
        web.get("/databases", list_databases),
    ]


async def create(request: web.Request) -> web.Response:
    """Creates a database on the named Members, or on `replicationFactor` nodes."""
    query = Query(request)
    given = await body_if_any(request, Json) or {}
    wished = fitting(given, DatabaseInput)
    name = query.text("name") or wished.database_name
    if name is None:
        raise bad_request("The database has no name. Add ?name=... or DatabaseName.")
    for key in NOT_AT_CREATION:
        if given.get(key):
            raise not_supported(f"'{key}' in a new database's record", "Create the database, then put them.")
    if wished.encrypted or wished.disabled:
        raise not_supported("'Encrypted' or 'Disabled' in a new database's record", "Leave both false.")
    if wished.sharding:
        raise not_supported("'Sharding' in a new database's record", "Leave it out.")
    group = wished.topology or TopologyInput()
    command = CreateDatabase(
        name=name,
        replication_factor=query.integer("replicationFactor", 1, low=1, high=100),
        nodes=tuple(group.members or ()),
        dynamic_nodes_distribution=group.dynamic_nodes_distribution,
        settings=_settings(wished),
        topology_id=base64.b64encode(uuid.uuid4().bytes)[:22].decode(),
        at=timestamps.now(),
    )
    result = await commit(request, command)
    return await group_answer(request, name, result)


async def get_record(request: web.Request) -> web.Response:
    """A database's record with its etag."""
    record = database_record(the_database(request, Query(request).required("name")))
    return await request.app[SLICES].answer(JsonObject(record))


async def delete(request: web.Request) -> web.Response:
    """Deletes databases, or a database's copies on some nodes, and waits for the nodes to confirm."""
    wished = await body(request, DeletionInput)
    _check_names(wished.database_names)
    wait_s = CONFIRMATION_S
    if wished.time_to_wait_for_confirmation is not None:
        wait_s = min(timespan_s("TimeToWaitForConfirmation", wished.time_to_wait_for_confirmation), CONFIRMATION_S_MAX)
    from_nodes = tuple(wished.from_nodes or ())

    def build(names: list[str]) -> list[Command]:
        for tag in from_nodes:
            the_node(request.app[SERVICES].replica.record, tag)
        return [DeleteDatabase(name=name, hard_delete=wished.hard_delete, from_nodes=from_nodes) for name in names]

    results = await commit_each(request, wished.database_names, build)
    pending = await _pending(request, wished.database_names, wait_s)
    return answer(Deleted(raft_command_index=results[-1].index, pending_deletes=pending))


async def enable(request: web.Request) -> web.Response:
    """Enables databases."""
    return await _set_state(request, disabled=False)


async def disable(request: web.Request) -> web.Response:
    """Disables databases: they take no requests and run no tasks."""
    return await _set_state(request, disabled=True)


async def set_lock(request: web.Request) -> web.Response:
    """Whether databases may be deleted."""
    wished = await body(request, LockInput)
    _check_names(wished.database_names)

    def build(names: list[str]) -> list[Command]:
        return [SetLockMode(name=name, mode=wished.mode) for name in names]

    results = await commit_each(request, wished.database_names, build)
    return answer(Committed(raft_command_index=results[-1].index))


async def list_databases(request: web.Request) -> web.Response:
    """Databases in the order of their names, or only the names."""
    query = Query(request)
    start = query.integer("start", 0)
    size = query.integer("pageSize", PAGE_MAX, high=PAGE_MAX)
    record = request.app[SERVICES].replica.record
    databases = [database for _, database in sorted(record.databases.items())][start : start + size]
    if query.flag("namesOnly", False):
        return answer(DatabaseNames(databases=[database.name for database in databases]))
    summaries = JsonArray(summary(record, database) for database in databases)
    return await request.app[SLICES].answer(JsonObject([("Databases", summaries)]))


async def _set_state(request: web.Request, *, disabled: bool) -> web.Response:
    wished = await body(request, NamesInput)
    _check_names(wished.database_names)
    status = []
    for name in wished.database_names:
        try:
            await commit(request, SetDatabaseState(name=name, disabled=disabled), part=name)
            status.append(StateSet(name=name, disabled=disabled, success=True))
        except ApiError as error:
            status.append(StateSet(name=name, disabled=not disabled, success=False, reason=error.message))
    return answer(StatesSet(status=status))


async def _pending(request: web.Request, names: list[str], wait_s: float) -> list[str]:
    replica = request.app[SERVICES].replica

    def waiting(record: Record) -> list[str]:
        found = (record.database(name) for name in names)
        return sorted({tag for database in found if database for tag in database.deletion_in_progress})

    try:
        async with asyncio.timeout(wait_s):
            await replica.until(lambda record: not waiting(record))
    except TimeoutError:
        pass  # the answer names those for which the wait was in vain
    return waiting(replica.record)


def _settings(wished: DatabaseInput) -> Map[str, str]:
    given = {name: value for name, value in (wished.settings or {}).items() if value is not None}
    grace = given.get(GRACE_SETTING)
    if grace is not None and minutes(grace) is None:
        raise bad_request(
            f"The setting '{GRACE_SETTING}' is '{grace[:20]}'; it must be a whole number of minutes, 0 to "
            f"{GRACE_MIN_MAX}. Correct it, or leave it out."
        )
    return Map(given)


def _check_names(names: list[str]) -> None:
    if not 1 <= len(names) <= NAMES_MAX:
        raise bad_request(f"'DatabaseNames' holds {len(names)} names; it must hold 1 to {NAMES_MAX}.")
    if len({fold(name) for name in names}) < len(names):
        raise bad_request("'DatabaseNames' names a database twice. Name each once.")
