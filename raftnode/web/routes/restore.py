"""Restoring backups: what can be restored from a place, and making a database of it on this node."""

import asyncio
from functools import partial

from aiohttp import web

from raftnode.foundation.background import watched
from raftnode.record.commands.base import CommandRefused, check_database_name
from raftnode.web.commit import asked
from raftnode.web.errors import ApiError, bad_request, of_result
from raftnode.web.requests import Query, answer, body, fitting, request_id
from raftnode.web.restores import DatabaseRestore, RestoreWish, remove_unfinished
from raftnode.web.routes.removed import RESTORING
from raftnode.web.services import SERVICES, Services
from raftnode.web.views.backups import OperationStarted, restore_points
from raftnode.web.views.base import Json
from tasks.kinds.backup import catalog
from tasks.kinds.backup.configuration import (
    BackupEncryptionSettings,
    DestinationSettings,
    check_destinations,
    key_of,
    read_key,
)
from tasks.kinds.backup.destinations import LocalSettings
from tasks.kinds.registry import ConfigurationError
from tasks.sinks.objects.target import ObjectTarget, ObjectTargetFailed

RESTORE = "DatabaseRestore"
FIELDS = {"local": "LocalSettings", "s3": "S3Settings", "azure": "AzureSettings", "googlecloud": "GoogleCloudSettings"}
RESTORES: web.AppKey[set["asyncio.Task[None]"]] = web.AppKey("restores", set)
"""Those that are under way. They end with the node."""
AT_ONCE = 2
"""So many read at a time, as each holds some blocks of a backup in memory; the others wait."""
TURNS = web.AppKey("restore turns", asyncio.Semaphore)


class RestorePlace(DestinationSettings, frozen=True, kw_only=True, rename="pascal"):
    """Where backups are: a folder, or RavenDB's `Settings` with those of one destination."""

    backup_location: str | None = None
    settings: DestinationSettings | None = None


class RestoreInput(RestorePlace, frozen=True, kw_only=True, rename="pascal"):
    """RavenDB's restore configuration."""

    database_name: str
    last_file_name_to_restore: str | None = None
    encryption_key: str | None = None
    backup_encryption_settings: BackupEncryptionSettings | None = None
    disable_ongoing_tasks: bool = False
    skip_indexes: bool = False


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.post("/admin/restore/points", points), web.post("/admin/restore/database", restore)]


async def points(request: web.Request) -> web.Response:
    """The backups of a place, of `type` Local, S3, Azure or GoogleCloud, and for each whether it is whole."""
    kind = Query(request).required("type").lower()
    if kind not in FIELDS:
        raise bad_request(f"'type' is {kind[:40]!r}; it must be Local, S3, Azure or GoogleCloud.")
    given = await body(request, Json)
    field = FIELDS[kind]
    settings = given.get(field, given)
    target = _target(fitting({field: settings}, DestinationSettings))
    try:
        return answer(restore_points(await catalog.folders(target), target.folder))
    except ObjectTargetFailed as error:
        raise _unreachable(error) from None
    finally:
        await target.close()


async def restore(request: web.Request) -> web.Response:
    """Makes a new database, on this node, of the backups of a place. Answers at once, with the operation that tells how
    far it is. A repeat of a request, under its id, gets the operation of the first as long as this node knows it."""
    services, given = request.app[SERVICES], await body(request, Json)
    wished = fitting(given, RestoreInput)
    id, asks = request_id(request), await asked(request)
    first = services.supervisor.operations.of_request(id) if id else None
    if first is not None:
        if first.asked != asks:
            message = (
                f"The raft-request-id '{id}' was used for another request, which began operation {first.id}. Give each "
                "request an id of its own, and a repeat the very same request."
            )
            raise ApiError("RequestIdUsedException", message)
        return answer(OperationStarted(operation_id=first.id, operation_node_tag=services.tag))
    wish = _wish(services, wished)
    operation = services.supervisor.operations.begin(f"Restore of database {wish.name}", type=RESTORE)
    operation.request, operation.asked = id, asks
    work = DatabaseRestore(services, wish, operation, request.app[RESTORING], request.app[TURNS])
    task = watched(work.run(), f"restore of {wish.name}", lambda error: None, may_end=True)
    operation.cancel = partial(_cancel, task)
    request.app[RESTORES].add(task)
    task.add_done_callback(request.app[RESTORES].discard)
    return answer(OperationStarted(operation_id=operation.id, operation_node_tag=services.tag))


def _wish(services: Services, wished: RestoreInput) -> RestoreWish:
    """What is to be restored. Refuses a name that is taken or is none, and a place or key that cannot be."""
    name = wished.database_name
    try:
        check_database_name(name)
    except CommandRefused as refused:
        raise of_result(refused.error) from None
    if services.replica.record.database(name) is not None:
        raise ApiError("ConcurrencyException", f"Database '{name}' exists. Give the new one another DatabaseName.")
    return RestoreWish(
        name=name,
        target=_target(_place(wished)),
        last=wished.last_file_name_to_restore,
        key=_key(wished),
        without_tasks=wished.disable_ongoing_tasks,
        without_indexes=wished.skip_indexes,
    )


async def remove_unfinished_restores(app: web.Application) -> None:
    """What an earlier process of this node left goes."""
    await remove_unfinished(app[SERVICES])


async def end_restores(app: web.Application) -> None:
    """Ends those that are under way."""
    running: set[asyncio.Task[None]] = app[RESTORES]
    tasks = list(running)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _place(wished: RestoreInput) -> DestinationSettings:
    if wished.backup_location:
        return DestinationSettings(local_settings=LocalSettings(folder_path=wished.backup_location))
    return wished.settings or wished


def _target(settings: DestinationSettings) -> ObjectTarget:
    try:
        check_destinations(settings)
        found = settings.destinations()
        if len(found) > 1:
            raise ConfigurationError("Settings", f"{len(found)} places are given; give one")
        return found[0].target()
    except ConfigurationError as error:
        raise bad_request(str(error)) from None
    except ObjectTargetFailed as error:
        raise _unreachable(error) from None


def _key(wished: RestoreInput) -> bytes | None:
    try:
        if wished.encryption_key:
            return read_key("EncryptionKey", wished.encryption_key)
        return key_of(wished.backup_encryption_settings)
    except ConfigurationError as error:
        raise bad_request(str(error)) from None


def _unreachable(error: ObjectTargetFailed) -> ApiError:
    return ApiError("BackupUnreachableException", f"{error}.")


def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
