"""RavenDB's routes of ETL tasks, which are tasks like all others."""

from aiohttp import web

from raftnode.record.model import Database, Task
from raftnode.web.errors import bad_request
from raftnode.web.requests import Query, body
from raftnode.web.routes.task_definitions import check_transform, no_etl, put_task, reset_task
from raftnode.web.views.base import Json
from tasks.kinds.registry import kinds


def routes() -> list[web.RouteDef]:
    """This module's routes. `server.ResetAsPost` hands RESET requests on as POST."""
    path = "/databases/{database}/admin/etl"
    return [web.put(path, put), web.post(path, reset)]


async def put(request: web.Request) -> web.Response:
    """Adds an ETL of RavenDB's `EtlType`, or edits the one of `id`: a task of the kind that ends in Etl."""
    given = await body(request, Json)
    kind = given.get("EtlType")
    if not isinstance(kind, str) or not kind:
        raise bad_request(f"'EtlType' is missing or no text. Add one of: {_types()}.")
    if kind.lower().endswith("etl"):
        raise bad_request(f"'EtlType' is '{kind[:40]}'; write it without 'Etl', as one of: {_types()}.")
    return await put_task(request, f"{kind}Etl", given)


def _types() -> str:
    return ", ".join(name.removesuffix("Etl") for name in kinds() if name.endswith("Etl"))


async def reset(request: web.Request) -> web.Response:
    """Forgets an ETL's progress, or that of one transform where they have their own: it starts again from the first
    document."""
    name, transform = Query(request).required("configurationName"), Query(request).text("transformationName")

    def named(database: Database) -> Task:
        task = database.task_named(name)
        if task is None:
            raise no_etl(database, name)
        if transform is not None:
            check_transform(task.configuration, transform)
        return task

    return await reset_task(request, named, transforms=() if transform is None else (transform,))
