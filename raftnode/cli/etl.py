"""`raftnode etl list`, `show` and `delete`; `put` stands with the other definitions."""

from urllib.parse import quote

import click
from rich.markup import escape

from raftnode.cli.asking import ask, asks
from raftnode.cli.definitions import IN_DATABASE, delete_task, etl, show_definition, stored_definition
from raftnode.cli.session import Answer, CommandFailed, Session, find_task, talks
from raftnode.cli.tables import print_table
from raftnode.foundation.names import fold
from raftnode.web.views.base import Json
from raftnode.web.views.databases import DatabaseNames
from raftnode.web.views.tasks import TaskInfo, TaskList, TaskStatus

SUFFIX = "Etl"


@etl.command("list")
@click.option("--database", metavar="NAME", help="Only this database.")
@talks
async def list_etls(session: Session, database: str | None) -> None:
    """List the ETL tasks with what they read and where it goes."""
    names = (await session.call("GET", "/databases?namesOnly=true", DatabaseNames)).shown.databases
    wanted = [name for name in names if database is None or fold(name) == fold(database)]
    if database is not None and not wanted:
        wanted = [database]  # and the answer says that there is none
    found: list[tuple[str, TaskInfo]] = []
    shown: list[Json] = []
    for name in wanted:
        listed = await session.call("GET", f"/databases/{quote(name, safe='')}/tasks", TaskList)
        for task, given in zip(listed.shown.ongoing_tasks, listed.json["OngoingTasks"], strict=True):
            if task.task_type.endswith(SUFFIX):
                found.append((name, task))
                shown.append({"Database": name} | given)

    def show(_: object) -> None:
        columns = ("database", "task", "kind", "state", "collections", "connection string")
        print_table("", columns, [_row(*task) for task in found], empty="No ETL tasks.")

    session.show(Answer(shown, found), show)


@etl.command("show")
@click.argument("task")
@IN_DATABASE
@talks
async def show_etl(session: Session, task: str, database: str | None) -> None:
    """Print an ETL task's definition in RavenDB's JSON, as `etl put` takes it."""
    name, found = await _etl(session, task, database)
    kind = found.task_type.removesuffix(SUFFIX)
    show_definition(session, {"EtlType": kind} | await stored_definition(session, name, found))


@etl.command("delete")
@click.argument("task")
@IN_DATABASE
@asks()
@talks
async def delete_etl(session: Session, task: str, database: str | None, yes: bool) -> None:
    """Delete an ETL task with its progress; the same as `raftnode task delete`."""
    ask(f"Delete task {task} with its progress?", yes=yes)
    await delete_task(session, *await _etl(session, task, database))


async def _etl(session: Session, task: str, database: str | None) -> tuple[str, TaskStatus]:
    name, found = await find_task(session, task, database)
    if not found.task_type.endswith(SUFFIX):
        raise CommandFailed(f"Task '{task}' is of kind {found.task_type} and not an ETL.")
    return name, found


def _row(database: str, task: TaskInfo) -> tuple[str, ...]:
    given = task.configuration
    collections = {c for transform in given.get("Transforms") or [] for c in transform.get("Collections") or []}
    everything = any(transform.get("ApplyToAllDocuments") for transform in given.get("Transforms") or [])
    return (
        escape(database), escape(task.task_name), task.task_type, task.task_state,
        "all documents" if everything else escape(", ".join(sorted(collections))),
        escape(given.get("ConnectionStringName") or ""),
    )  # fmt: skip
