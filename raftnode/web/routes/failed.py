"""The documents that a task has passed over, and having them tried again."""

from typing import Any

from aiohttp import web

from raftnode.record.commands import Command, RetryFailed
from raftnode.record.model import claim_key
from raftnode.record.ownership import Group
from raftnode.web import views
from raftnode.web.parts import PARTS
from raftnode.web.requests import Query, answer
from raftnode.web.routes.commit import commit
from raftnode.web.routes.runs import gather_runs
from raftnode.web.routes.tasks import modified, named_task, the_task
from raftnode.web.stores import existing_database
from raftnode.web.task_state import add_state


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    path = "/databases/{database}"
    return [
        web.get(f"{path}/tasks/{{task}}/failed", failed),
        web.post(f"{path}/admin/tasks/retry", retry),
    ]


async def failed(request: web.Request) -> web.Response:
    """The documents that the task of that id or name has passed over, oldest first: all that its holder lists, or the
    newest few that every node knows when the holder does not answer (`Unknown` says why)."""
    record = request.app[PARTS].replica.record
    database = existing_database(request)
    task = named_task(request, record, database)
    shown = views.task(record, database, Group(record, database), task)
    runs = await gather_runs(request, [(database, task)], key=claim_key(database.name, task.kind, task.name))
    run = add_state(database, task, shown, runs)
    info: dict[str, Any] | None = run["Info"] if run else None
    documents = info["Errors"] if info else (shown["Progress"] or {}).get("Failures", [])
    return answer(
        {
            "TaskId": task.id,
            "TaskName": task.name,
            "TaskType": task.kind,
            "Failed": shown["Failed"],
            "Documents": documents,
            "Unlisted": max(0, shown["Failed"] - len(documents)),
            "ToldBy": run["Node"] if run else None,
            "Unknown": shown["Unknown"],
        }
    )


async def retry(request: web.Request) -> web.Response:
    """Has a task's documents that were passed over tried again, now or as soon as the task can run."""

    async def checked() -> Command:
        database = existing_database(request)
        return RetryFailed(database=database.name, id=the_task(database, Query(request)).id)

    return modified(request, await commit(request, checked))
