"""Putting tasks, of any kind that a node of the cluster has. The kind validates the configuration here, at the door."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog
from aiohttp import web

from raftnode.foundation.names import fold
from raftnode.record.commands import PutTask
from raftnode.record.definition import TaskDefinition
from raftnode.record.model import CommandResult, Database, Task
from raftnode.web.commit import commit, unless_repeated
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.forwarding import by_one_that_knows
from raftnode.web.requests import Query, answer, body, etag_of
from raftnode.web.routes.connection_strings import with_secrets
from raftnode.web.routes.tasks import check_mentor, checked_by_kind, modified, the_task
from raftnode.web.stores import existing_database, store_to_read
from raftnode.web.views.base import Json
from raftnode.web.views.tasks import TaskReset, transforms
from tasks.kinds.registry import ResetsTransforms, definable, load, parsed

log = structlog.get_logger(__name__)


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    path = "/databases/{database}/admin/tasks"
    return [web.put(path, put), web.post(f"{path}/reset", reset)]


async def put(request: web.Request) -> web.Response:
    """Adds a task of the kind that `TaskType` names, or edits the one of `id`."""
    given = await body(request, Json)
    kind = given.get("TaskType")
    if not isinstance(kind, str) or not kind:
        raise bad_request(f"'TaskType' is missing. Add the task's kind; this node knows: {', '.join(definable())}.")
    return await put_task(request, kind, given)


async def put_task(request: web.Request, kind: str, given: Json) -> web.Response:
    """Adds a task of that kind, or edits the one of `id`. `reset` (a transform's name, may be repeated) starts it
    again."""
    id = Query(request).integer("id", _task_id(given))
    status = 201 if id == 0 else 200

    async def build() -> PutTask | web.Response:
        return await by_one_that_knows(request, kind) or await _checked(request, kind, id, given)

    command = await unless_repeated(request, build)
    if isinstance(command, CommandResult):
        return modified(request, command, status=status)
    if not isinstance(command, PutTask):
        return command
    result = await commit(request, command)
    return modified(request, result, status=status, warnings=await _unknown_collections(request, command))


async def reset(request: web.Request) -> web.Response:
    """Forgets a task's progress: it starts again from the beginning."""
    query = Query(request)
    return await reset_task(request, lambda database: the_task(database, query))


async def reset_task(
    request: web.Request, find: Callable[[Database], Task], *, transforms: Sequence[str] = ()
) -> web.Response:
    """Forgets the progress of the task that is found in the database, which is put again as it is; only that of these
    transforms, if there are some, and the kind can do that."""

    async def build() -> PutTask:
        database = existing_database(request)
        task = find(database)
        definition = {field: getattr(task, field) for field in TaskDefinition.__struct_fields__}
        how = await checked_by_kind(lambda: _resetting(task.kind, transforms or None))
        return PutTask(database=database.name, id=task.id, etag=task.etag, **how, **definition)

    result = await commit(request, build)
    return answer(TaskReset(task_id=int(result.value), raft_command_index=result.index))


def no_etl(database: Database, name: str) -> ApiError:
    """That there is no ETL of that name, and which tasks there are."""
    known = ", ".join(sorted(task.name for task in database.tasks.values())[:10]) or "none"
    return ApiError("TaskDoesNotExistException", f"Database '{database.name}' has no ETL '{name}'. Tasks: {known}.")


def check_transform(configuration: bytes, name: str) -> None:
    """Refuses the name of a transform that the task has not."""
    known = [str(transform.get("Name")) for transform in transforms(configuration)]
    if fold(name) not in map(fold, known):
        raise bad_request(f"There is no transform '{name}'. The task has: {', '.join(known) or 'none'}.")


async def _checked(request: web.Request, kind: str, id: int, given: Json) -> PutTask:
    """The command of a task that its kind has found good."""
    query, database = Query(request), existing_database(request)
    present = database.tasks.get(id)
    given = with_secrets(given, present.configuration if present else None)
    given = _with_what_stands(given, present)
    definition = await checked_by_kind(lambda: parsed(kind, given | {"TaskId": id}, database))
    check_mentor(request, database, definition.mentor)
    again = query.all("reset")
    for name in again:
        check_transform(definition.configuration, name)
    return PutTask(
        database=database.name,
        id=id,
        etag=_etag(request),
        **(_resetting(kind, again) if again else {}),
        **msgspec.structs.asdict(definition),
    )


def _resetting(kind: str, transforms: Sequence[str] | None) -> dict[str, Any]:
    """The fields of a command that resets these transforms (None: all)."""
    if transforms is not None and isinstance(load(kind), ResetsTransforms):
        return {"reset_transforms": tuple(transforms)}
    return {"reset": True}


async def _unknown_collections(request: web.Request, definition: PutTask) -> list[str]:
    """A sentence for each collection that has no document here: it may be misspelt, or come later."""
    given = [transform.get("Collections") for transform in transforms(definition.configuration)]
    named = {str(name) for collections in given if isinstance(collections, list) for name in collections}
    if not named:
        return []
    try:
        known = (await (await store_to_read(request)).stats()).collections
    except ApiError:  # this node has no copy to look into
        return []
    missing = sorted(named - {name for name in named if fold(name) in {fold(one) for one in known}})
    shown = ", ".join(sorted(name for name in known if not name.startswith("@"))[:20]) or "none"
    found = [f"Collection '{name}' of task '{definition.name}' has no documents. Known: {shown}." for name in missing]
    for warning in found:
        log.warning(warning, database=request.match_info["database"])
    return found


def _with_what_stands(given: Json, present: Task | None) -> Json:
    """An edit that does not speak of a pin, or of being disabled, leaves it: both are set by commands of their own."""
    if present is None:
        return given
    stands: Json = {"Disabled": present.disabled}
    if "MentorNode" not in given:
        stands |= {"MentorNode": present.mentor, "PinToMentorNode": present.pinned}
    return stands | given


def _task_id(given: Json) -> int:
    id = given.get("TaskId") or 0
    if isinstance(id, bool) or not isinstance(id, int) or id < 0:
        raise bad_request(f"'TaskId' is {str(id)[:40]!r}; it must be a whole number, 0 for a new task.")
    return id


def _etag(request: web.Request) -> int | None:
    etag = etag_of(request.headers.get("If-Match"))
    if etag is not None and not (etag.isascii() and etag.isdigit() and len(etag) < 19):
        raise bad_request(f"If-Match is {etag[:40]!r}; it must be the task's Etag.")
    return None if etag is None else int(etag)
