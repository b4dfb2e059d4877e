"""RavenDB's route of the progress of ETL tasks."""

from aiohttp import web

from raftnode.record.ownership import PlacementGroup
from raftnode.web.requests import answer
from raftnode.web.routes.runs import gather_runs
from raftnode.web.services import SERVICES
from raftnode.web.stores import existing_database
from raftnode.web.views.etl_progress import EtlProgress, etl_task_progress
from raftnode.web.views.tasks import task_view


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.get("/databases/{database}/etl/progress", progress)]


async def progress(request: web.Request) -> web.Response:
    """How far each script of each ETL is, on whatever node it runs: the holders are asked."""
    database = existing_database(request)
    tasks = [task for _, task in sorted(database.tasks.items()) if task.kind.endswith("Etl")]
    runs = await gather_runs(request, ((database, task) for task in tasks))
    record = request.app[SERVICES].replica.record
    group = PlacementGroup(record, database)
    results = []
    for task in tasks:
        shown, run = task_view(record, database, group, task, runs.of)
        results.append(etl_task_progress(task, run, shown.figures))
    return answer(EtlProgress(results=results))
