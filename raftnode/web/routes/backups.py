"""RavenDB's routes of backup tasks, which are tasks like all others, and what may be asked of a running one."""

import shlex
from datetime import UTC, datetime, timedelta

from aiohttp import web

from raftnode.foundation import timestamps
from raftnode.record.model import Database, Task
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.forwarding import by_node
from raftnode.web.requests import Query, answer, body
from raftnode.web.routes.runs import gather_runs, run_here
from raftnode.web.routes.task_definitions import put_task
from raftnode.web.routes.topology import database_missing
from raftnode.web.services import SERVICES
from raftnode.web.stores import existing_database
from raftnode.web.views.backups import BackupDelayed, BackupStarted, ongoing_operation, status
from raftnode.web.views.base import Json
from tasks.kinds.backup.requests import OPERATION_TYPE, BackupDelay, BackupNow, describe

KIND = "Backup"
DELAY_S_MAX = 1_000 * 24 * 3600


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    path = "/databases/{database}/admin"
    return [
        web.post(f"{path}/periodic-backup", put),
        web.post(f"{path}/backup/database", back_up),
        web.post("/admin/backup-task/delay", delay),
        web.get("/periodic-backup/status", get_status),
    ]


async def put(request: web.Request) -> web.Response:
    """Adds a backup task, or edits the one of `TaskId`."""
    return await put_task(request, KIND, await body(request, Json))


async def back_up(request: web.Request) -> web.Response:
    """Has the task `taskId` make a backup now, on the node that runs it; a full one unless `isFullBackup` is false.
    While it makes one, or is about to, that is the answer."""
    services, query = request.app[SERVICES], Query(request)
    full = query.flag("isFullBackup", True)
    database = existing_database(request)
    task = _the_backup(database, query.integer("taskId"))
    holder = _holder(request, database, task)
    if holder != services.tag:
        return await by_node(request, holder)
    operations, description = services.supervisor.operations, describe(database.name, task.name)
    going = operations.going(OPERATION_TYPE, description)
    if going is not None:
        return answer(BackupStarted(responsible_node=services.tag, operation_id=going.id))
    operation = operations.begin(description, type=OPERATION_TYPE, database=database.name)
    if not services.supervisor.ask(database.claim_key(task), BackupNow(full, operation)):
        operation.failed("the task does not run here")
        raise _not_running(task)
    return answer(BackupStarted(responsible_node=services.tag, operation_id=operation.id))


async def delay(request: web.Request) -> web.Response:
    """Has a backup made only after `duration`. `taskId` is the operation of one that is being made, which ends, or the
    id of a task."""
    services, query = request.app[SERVICES], Query(request)
    duration_s = query.timespan_s("duration", 0.0)
    if duration_s <= 0:
        raise bad_request("'duration' is missing or not positive. Give a time span like 01:00:00.")
    if duration_s > DELAY_S_MAX:
        raise bad_request(f"'duration' is {duration_s:.0f} s, and may be {DELAY_S_MAX}. Disable the task instead.")
    name = query.required("database")
    database = services.replica.record.database(name)
    if database is None:
        raise database_missing(name)
    id = query.integer("taskId")
    task = await _task_of(request, database, id)
    holder = _holder(request, database, task)
    if holder != services.tag:
        return await by_node(request, holder)
    until = datetime.now(UTC) + timedelta(seconds=duration_s)
    key = database.claim_key(task)
    if not services.supervisor.ask(key, BackupDelay(until)):
        raise _not_running(task)
    going = _ongoing(request, key)
    operation = None if going is None else services.supervisor.operations.get(going)
    if operation is not None and operation.cancel is not None:
        operation.cancel()
    return answer(BackupDelayed(task_id=task.id, delay_until=timestamps.of(until), responsible_node=services.tag))


async def get_status(request: web.Request) -> web.Response:
    """What a backup task of database `name` has made, when and where, and its last error."""
    query = Query(request)
    name = query.required("name")
    database = request.app[SERVICES].replica.record.database(name)
    if database is None:
        raise database_missing(name)
    task = _the_backup(database, query.integer("taskId"))
    return answer({"Status": status(task, database.progress.get(task.id)), "IsSharded": False})


def _the_backup(database: Database, id: int) -> Task:
    task = database.tasks.get(id)
    if task is None or task.kind != KIND:
        known = ", ".join(f"{t.id} ({t.name})" for t in database.tasks.values() if t.kind == KIND) or "none"
        message = f"Database '{database.name}' has no backup task {id}. Its backup tasks: {known}."
        raise ApiError("TaskDoesNotExistException", message)
    return task


async def _task_of(request: web.Request, database: Database, id: int) -> Task:
    """The backup task of that id, or whose running backup is the operation of that id."""
    backups = [task for task in database.tasks.values() if task.kind == KIND]
    runs = await gather_runs(request, ((database, task) for task in backups))
    claims = request.app[SERVICES].replica.record.claims
    for task in backups:
        key = database.claim_key(task)
        claim = claims.get(key)
        run, _ = runs.of(key, claim.tag if claim is not None and claim.state == "Held" else None)
        if ongoing_operation(run) == id:
            return task
    return _the_backup(database, id)


def _holder(request: web.Request, database: Database, task: Task) -> str:
    claim = request.app[SERVICES].replica.record.claims.get(database.claim_key(task))
    if claim is None or claim.state != "Held":
        raise _not_running(task)
    return claim.tag


def _ongoing(request: web.Request, key: str) -> int | None:
    """The operation of the backup that is being made on this node."""
    return ongoing_operation(run_here(request.app[SERVICES], key))


def _not_running(task: Task) -> ApiError:
    remedy = f"raftnode {'task enable' if task.disabled else 'why'} {shlex.quote(task.name)}"
    return ApiError("TaskNotRunningException", f"Backup task '{task.name}' runs on no node at the moment: {remedy}.")
