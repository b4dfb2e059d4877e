"""The documents that a task has skipped, and having them tried again."""

from collections.abc import Callable, Sequence

from aiohttp import web

from raftnode.record.commands import Command, RetryFailed
from raftnode.record.model import Database, FailedDocument, Task
from raftnode.record.ownership import PlacementGroup
from raftnode.web.commit import commit
from raftnode.web.requests import Query, answer
from raftnode.web.routes.runs import gather_run
from raftnode.web.routes.task_definitions import check_transform, no_etl
from raftnode.web.routes.tasks import modified, named_task, the_task
from raftnode.web.services import SERVICES
from raftnode.web.stores import existing_database
from raftnode.web.views.tasks import FailedDocuments, task_view


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    path = "/databases/{database}"
    return [
        web.get(f"{path}/tasks/{{task}}/failed", failed),
        web.post(f"{path}/admin/tasks/retry", retry),
        web.post(f"{path}/etl/retry-batch", retry_batch),
    ]


async def failed(request: web.Request) -> web.Response:
    """The documents that the task of that id or name has skipped, oldest first: all that its holder lists, or the
    newest few that every node knows when the holder does not answer (`Unknown` says why)."""
    record = request.app[SERVICES].replica.record
    database = existing_database(request)
    task = named_task(request, record, database)
    runs = await gather_run(request, database, task)
    shown, run = task_view(record, database, PlacementGroup(record, database), task, runs.of)
    documents: Sequence[FailedDocument] = shown.progress.failures if shown.progress else ()
    if run is not None and run.info is not None:
        documents = run.info.errors or ()
    return answer(
        FailedDocuments(
            task_id=task.id,
            task_name=task.name,
            task_type=task.kind,
            failed=shown.failed,
            documents=documents,
            unlisted=max(0, shown.failed - len(documents)),
            told_by=run.node if run else None,
            unknown=shown.unknown,
        )
    )


async def retry(request: web.Request) -> web.Response:
    """Has a task's documents that were skipped tried again, now or as soon as the task can run."""
    return await _retried(request, lambda database: the_task(database, Query(request)))


async def retry_batch(request: web.Request) -> web.Response:
    """The same for an ETL by the name that RavenDB gives to each of its transforms, `task/transform`; that of the task
    does as well. A task that waits after a failure goes on at once."""
    name = Query(request).required("name")

    def named(database: Database) -> Task:
        task, transform = database.task_named(name), ""
        if task is None:
            before, _, transform = name.rpartition("/")
            task = database.task_named(before)
        if task is None:
            raise no_etl(database, name)
        if transform:
            check_transform(task.configuration, transform)
        return task

    return await _retried(request, named)


async def _retried(request: web.Request, find: Callable[[Database], Task]) -> web.Response:
    async def build() -> Command:
        database = existing_database(request)
        return RetryFailed(database=database.name, id=find(database).id)

    return modified(request, await commit(request, build))
