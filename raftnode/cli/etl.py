"""`raftnode etl list`, `show` and `delete`; `put` stands with the other definitions."""

import json
from typing import Any
from urllib.parse import quote, urlencode

import click
from rich.markup import escape

from raftnode.cli.asking import ask, asks
from raftnode.cli.definitions import IN_DATABASE, etl
from raftnode.cli.session import CommandFailed, Session, find_task, talks
from raftnode.cli.tables import print_table
from raftnode.foundation.names import fold

SUFFIX = "Etl"


@etl.command("list")
@click.option("--database", metavar="NAME", help="Only this database.")
@talks
async def list_etls(session: Session, database: str | None) -> None:
    """List the ETL tasks with what they read and where it goes."""
    names = (await session.call("GET", "/databases?namesOnly=true"))["Databases"]
    wanted = [name for name in names if database is None or fold(name) == fold(database)]
    if database is not None and not wanted:
        wanted = [database]  # and the answer says that there is none
    found = []
    for name in wanted:
        listed = await session.call("GET", f"/databases/{quote(name, safe='')}/tasks")
        found += [{"Database": name} | t for t in listed["OngoingTasks"] if t["TaskType"].endswith(SUFFIX)]

    def show(_: Any) -> None:
        columns = ("database", "task", "kind", "state", "collections", "connection string")
        print_table("", columns, [_row(task) for task in found], empty="No ETL tasks.")

    session.show(found, show)


@etl.command("show")
@click.argument("task")
@IN_DATABASE
@talks
async def show_etl(session: Session, task: str, database: str | None) -> None:
    """Print an ETL task's definition in RavenDB's JSON, as `etl put` takes it."""
    name, found = await _etl(session, task, database)
    query = urlencode({"key": found["TaskId"], "type": found["TaskType"]})
    stored = (await session.call("GET", f"/databases/{quote(name, safe='')}/task?{query}"))["Configuration"]
    del stored["TaskId"]
    shown = {"EtlType": found["TaskType"].removesuffix(SUFFIX)} | stored
    session.show(shown, lambda given: click.echo(json.dumps(given, indent=2, ensure_ascii=False)))


@etl.command("delete")
@click.argument("task")
@IN_DATABASE
@asks()
@talks
async def delete_etl(session: Session, task: str, database: str | None, yes: bool) -> None:
    """Delete an ETL task with its progress; the same as `raftnode task delete`."""
    ask(f"Delete task {task} with its progress?", yes=yes)
    name, found = await _etl(session, task, database)
    query = urlencode({"id": found["TaskId"], "type": found["TaskType"]})
    answer = await session.call("DELETE", f"/databases/{quote(name, safe='')}/admin/tasks?{query}")
    session.show(answer, f"Task {found['TaskName']} is deleted.")


async def _etl(session: Session, task: str, database: str | None) -> tuple[str, dict[str, Any]]:
    name, found = await find_task(session, task, database)
    if not found["TaskType"].endswith(SUFFIX):
        raise CommandFailed(f"Task '{task}' is of kind {found['TaskType']} and no ETL.")
    return name, found


def _row(task: dict[str, Any]) -> tuple[str, ...]:
    given = task["Configuration"]
    collections = {c for transform in given.get("Transforms") or [] for c in transform.get("Collections") or []}
    everything = any(transform.get("ApplyToAllDocuments") for transform in given.get("Transforms") or [])
    return (
        escape(task["Database"]), escape(task["TaskName"]), task["TaskType"], task["TaskState"],
        "all documents" if everything else escape(", ".join(sorted(collections))),
        escape(given.get("ConnectionStringName") or ""),
    )  # fmt: skip
