"""Ongoing tasks: who is responsible, by which rule, who holds them, and how far they are; and changing them."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import structlog
from aiohttp import web

from raftnode.foundation.masking import masked
from raftnode.foundation.names import fold
from raftnode.record.commands import Command, DeleteTask, SetTaskPin, SetTaskState, SetUpdateMentor
from raftnode.record.model import CommandResult, Database, Record, Task
from raftnode.record.ownership import UPDATE_KIND, PlacementGroup, mentor_of, responsible_node, task_named
from raftnode.web.commit import commit
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.requests import Query, answer
from raftnode.web.routes.cluster import the_node
from raftnode.web.routes.runs import ClusterRuns, gather_run, gather_runs
from raftnode.web.services import SERVICES
from raftnode.web.sliced_json import SLICES, JsonArray, JsonObject
from raftnode.web.stores import existing_database
from raftnode.web.views.base import members, view
from raftnode.web.views.runs import RunView
from raftnode.web.views.tasks import TaskChanged, TaskInfo, TaskView, configuration, no_such_task, task_view
from tasks.kinds.registry import ConfigurationError, ShowsMore, ShowsProgress, described, known, load, loaded

log = structlog.get_logger(__name__)
Checked = TypeVar("Checked")


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    path = "/databases/{database}"
    return [
        web.get(f"{path}/tasks", list_tasks),
        web.get(f"{path}/task", get_task),
        web.post(f"{path}/admin/tasks/state", set_state),
        web.post(f"{path}/admin/tasks/pin", pin),
        web.delete(f"{path}/admin/tasks", delete),
    ]


async def list_tasks(request: web.Request) -> web.Response:
    """All ongoing tasks of the database."""
    database = existing_database(request)
    tasks = sorted(database.tasks.values(), key=lambda task: task.id)
    runs = await gather_runs(request, ((database, task) for task in tasks))
    kinds = await request.app[SLICES].all(task.kind for task in tasks)
    await load_kinds(set(kinds))
    record = request.app[SERVICES].replica.record
    group = PlacementGroup(record, database)
    shown = JsonArray(task_info(request, record, database, group, task, runs) for task in tasks)
    subscriptions = ("SubscriptionsCount", kinds.count("Subscription"))
    return await request.app[SLICES].answer(
        JsonObject([("OngoingTasks", shown), subscriptions, ("PullReplications", [])])
    )


async def get_task(request: web.Request) -> web.Response:
    """One task, by `key` or `taskName`. Details of its run are asked of the node that holds it."""
    database = existing_database(request)
    task = the_task(database, Query(request))
    runs = await gather_run(request, database, task)
    await load_kinds({task.kind})
    record = request.app[SERVICES].replica.record
    shown = task_info(request, record, database, PlacementGroup(record, database), task, runs)
    return await request.app[SLICES].answer(shown)


async def set_state(request: web.Request) -> web.Response:
    """Enables or disables a task; its progress stays."""
    query = Query(request)
    disable = query.flag("disable")

    async def build() -> Command:
        database = existing_database(request)
        return SetTaskState(database=database.name, id=the_task(database, query).id, disabled=disable)

    return modified(request, await commit(request, build))


async def pin(request: web.Request) -> web.Response:
    """Sets a task's mentor node and whether the task is pinned to it; an empty `node` takes both away, unless `pinned`
    is set: then the task is pinned to the node that holds it."""
    query = Query(request)
    mentor = query.text("node")
    if fold(query.text("type") or "") == fold(UPDATE_KIND):
        return await _prefer(request, query.required("taskName"), mentor)
    pinned = query.flag("pinned", mentor is not None)

    async def build() -> Command:
        database = existing_database(request)
        task = the_task(database, query)
        check_mentor(request, database, mentor)
        return SetTaskPin(database=database.name, id=task.id, mentor=mentor, pinned=pinned)

    return modified(request, await commit(request, build))


async def _prefer(request: web.Request, tag: str, mentor: str | None) -> web.Response:
    """Sets the Member that updates a Promotable or Rehab."""
    if Query(request).flag("pinned", False):
        raise bad_request(
            f"The update of {tag} can prefer a mentor and not be pinned to it: without that one nobody would update "
            f"{tag}. Set pinned=false."
        )

    async def checked() -> Command:
        return SetUpdateMentor(name=existing_database(request).name, tag=tag.upper(), mentor=mentor)

    result = await commit(request, checked)
    record = request.app[SERVICES].replica.record
    database = record.database(request.match_info["database"])
    responsible = mentor_of(record, database, tag.upper()) if database is not None else None
    return answer(TaskChanged(task_id=0, raft_command_index=result.index, responsible_node=responsible))


async def delete(request: web.Request) -> web.Response:
    """Deletes a task with its progress."""
    query = Query(request)

    async def build() -> Command:
        database = existing_database(request)
        return DeleteTask(database=database.name, id=the_task(database, query).id)

    return modified(request, await commit(request, build))


def the_task(database: Database, query: Query) -> Task:
    """The task that `key` (or `id`) or `taskName` names; answers 404 if there is none of that type."""
    name, kind = query.text("taskName"), query.text("type")
    if not name and not query.has("id") and not query.has("key"):
        raise bad_request("Query value 'key' or 'taskName' is missing. Add ?key=... or ?taskName=...")
    id = query.integer("id" if query.has("id") else "key", 0 if name else None)
    task = database.task_named(name) if name and not id else database.tasks.get(id)
    if task is None or (kind is not None and fold(task.kind) != fold(kind)):
        what = f"{kind or 'task'} {id or repr(name)}"
        raise ApiError("TaskDoesNotExistException", no_such_task(database, what))
    return task


def named_task(request: web.Request, record: Record, database: Database) -> Task:
    """The task that the path names by id or name, of kind `type` if that is given; answers 404 if there is none."""
    given = request.match_info["task"]
    kind = Query(request).text("type") or ""
    task: Task | None
    if fold(kind) == fold(UPDATE_KIND):
        task = task_named(record, database, UPDATE_KIND, given)
    elif given.isascii() and given.isdigit() and len(given) <= 19:
        task = database.tasks.get(int(given))
    else:
        task = database.task_named(given)
    if task is None or (kind and fold(task.kind) != fold(kind)):
        raise ApiError("TaskDoesNotExistException", no_such_task(database, f"{kind or 'task'} '{given[:80]}'"))
    return task


def check_mentor(request: web.Request, database: Database, mentor: str | None) -> None:
    """Refuses a mentor outside the cluster or the group."""
    group = database.topology.all_nodes
    if mentor is not None:
        the_node(request.app[SERVICES].replica.record, mentor, called="MentorNode")
    if mentor is not None and mentor not in group:
        raise bad_request(
            f"MentorNode '{mentor}' is not in the group of database '{database.name}'. Choose one of: "
            f"{', '.join(group) or 'none'}."
        )


async def checked_by_kind(check: Callable[[], Checked]) -> Checked:
    """What a task kind makes of its input. Off the loop: the first use of a kind imports heavy libraries."""
    try:
        return await asyncio.to_thread(check)
    except ConfigurationError as error:
        raise bad_request(str(error)) from None


def modified(
    request: web.Request, result: CommandResult, *, status: int = 200, warnings: Sequence[str] = ()
) -> web.Response:
    """The answer to a change of a task, whose id is the result's value. `warnings` are of what was done, but may not be
    meant."""
    record, id = request.app[SERVICES].replica.record, int(result.value)
    database = record.database(request.match_info["database"])
    task = database.tasks.get(id) if database else None
    responsible = responsible_node(record, database, task).node if database and task else None
    changed = TaskChanged(task_id=id, raft_command_index=result.index, responsible_node=responsible, warnings=warnings)
    return answer(changed, status=status)


async def load_kinds(kinds: Iterable[str]) -> None:
    """Imports the kinds of these names, off the loop, as far as this node has them: they show fields of their own."""
    for kind in kinds:
        if loaded(kind) is None and known(kind):
            with suppress(ConfigurationError):
                await asyncio.to_thread(load, kind)


def task_info(
    request: web.Request, record: Record, database: Database, group: PlacementGroup, task: Task, runs: ClusterRuns
) -> JsonObject:
    """RavenDB's task info, with our placement, claim, progress, state and run beside it, and the kind's own fields."""
    shown, run = task_view(record, database, group, task, runs.of)
    run = run if shown.holder else None
    info = view(
        TaskInfo,
        shown,
        error=shown.error or shown.unknown,
        task_connection_status=_connection_status(request.app[SERVICES].tag, shown, run),
        run=run,
        configuration=configuration(task),
    )
    return JsonObject([*members(info), *_shown_by_kind(database, task, run)])


def _shown_by_kind(database: Database, task: Task, run: RunView | None) -> Iterable[tuple[str, Any]]:
    kind = loaded(task.kind)
    details = run.info.details if run and run.info else {}
    try:
        if isinstance(kind, ShowsProgress):
            return masked(dict(kind.shown_with(task, database.progress.get(task.id), details))).items()
        if not isinstance(kind, ShowsMore):
            return ()
        string = database.connection_strings.get(fold(task.connection_string or ""))
        return masked(dict(kind.shown(task, string.configuration if string else None, details))).items()
    except Exception as error:
        # A plug-in's defect must not hide its task.
        log.warning("A task kind failed to show a task.", kind=task.kind, task=task.name, reason=described(error))
        return ()


def _connection_status(tag: str, shown: TaskView, run: RunView | None) -> str:
    if shown.task_state == "Disabled":
        return "NotActive"
    if shown.placement.node is None:
        return "None"
    if shown.placement.node != tag:
        return "NotOnThisNode"
    if run is None:
        return "NotActive"
    return "Active" if run.state == "Running" else "Reconnect" if run.error else "NotActive"
