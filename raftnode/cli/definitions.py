"""`raftnode etl`, `connection-string`, `task` and `pin`: defining tasks and where their data goes."""

from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

import click

from raftnode.cli.session import CommandFailed, Session, find_task, talks
from raftnode.cli.tables import print_table
from raftnode.decoding import from_python_json

DATABASE = click.option("--database", required=True, metavar="NAME", help="In this database.")
IN_DATABASE = click.option("--database", metavar="NAME", help="The task's database, if its name is not unique.")


@click.group()
def etl() -> None:
    """ETL tasks: put."""


@etl.command("put")
@click.argument("file", type=click.File("rb"))
@DATABASE
@talks
async def put_etl(session: Session, file: BinaryIO, database: str) -> None:
    """Add an ETL task, or edit the one of the same name, from RavenDB's JSON (- reads standard input)."""
    definition = _definition(file)
    listed = await session.call("GET", f"/databases/{quote(database)}/tasks")
    name = str(definition.get("Name", ""))
    known = next((t["TaskId"] for t in listed["OngoingTasks"] if t["TaskName"].lower() == name.lower()), None)
    query = "" if known is None else f"?id={known}"
    answer = await session.call("PUT", f"/databases/{quote(database)}/admin/etl{query}", json=definition)
    done = "added" if known is None else "edited"
    session.show(answer, f"Task {name} is {done}; {answer['ResponsibleNode'] or 'nobody'} is responsible for it.")


@click.group("connection-string")
def connection_string() -> None:
    """Connection strings, where tasks carry data to: put, list, delete."""


@connection_string.command("put")
@click.argument("file", type=click.File("rb"))
@DATABASE
@talks
async def put_connection_string(session: Session, file: BinaryIO, database: str) -> None:
    """Add or edit a connection string from RavenDB's JSON (- reads standard input)."""
    definition = _definition(file)
    answer = await session.call("PUT", f"/databases/{quote(database)}/admin/connection-strings", json=definition)
    session.show(answer, f"Connection string {definition.get('Name')} is stored.")


@connection_string.command("list")
@DATABASE
@talks
async def list_connection_strings(session: Session, database: str) -> None:
    """List their names by type."""
    answer = await session.call("GET", f"/databases/{quote(database)}/admin/connection-strings")
    suffix = "ConnectionStrings"
    found = [(name, kind.removesuffix(suffix)) for kind, group in answer.items() for name in group or {}]
    shown = [{"Name": name, "Type": kind} for name, kind in found]
    session.show(shown, lambda _: print_table("", ("name", "type"), found, empty="No connection strings."))


@connection_string.command("delete")
@click.argument("name")
@click.option("--type", "kind", default="Sql", show_default=True)
@DATABASE
@talks
async def delete_connection_string(session: Session, name: str, kind: str, database: str) -> None:
    """Delete one that no task uses."""
    query = urlencode({"connectionString": name, "type": kind})
    answer = await session.call("DELETE", f"/databases/{quote(database)}/admin/connection-strings?{query}")
    session.show(answer, f"Connection string {name} is deleted.")


@click.group("task")
def task_group() -> None:
    """One task: enable, disable, reset, delete."""


@task_group.command()
@click.argument("task")
@IN_DATABASE
@talks
async def enable(session: Session, task: str, database: str | None) -> None:
    """Let a task run again."""
    await _set_state(session, task, database, disable=False)


@task_group.command()
@click.argument("task")
@IN_DATABASE
@talks
async def disable(session: Session, task: str, database: str | None) -> None:
    """Stop a task; its progress stays."""
    await _set_state(session, task, database, disable=True)


@task_group.command()
@click.argument("task")
@IN_DATABASE
@talks
async def reset(session: Session, task: str, database: str | None) -> None:
    """Forget an ETL task's progress: it starts anew."""
    name, found = await find_task(session, task, database)
    query = urlencode({"configurationName": found["TaskName"]})
    answer = await session.call("RESET", f"/databases/{quote(name)}/admin/etl?{query}")
    session.show(answer, f"Task {found['TaskName']} starts anew.")


@task_group.command()
@click.argument("task")
@IN_DATABASE
@talks
async def delete(session: Session, task: str, database: str | None) -> None:
    """Delete a task with its progress."""
    name, found = await find_task(session, task, database)
    query = urlencode({"id": found["TaskId"], "type": found["TaskType"]})
    answer = await session.call("DELETE", f"/databases/{quote(name)}/admin/tasks?{query}")
    session.show(answer, f"Task {found['TaskName']} is deleted.")


async def _set_state(session: Session, task: str, database: str | None, *, disable: bool) -> None:
    name, found = await find_task(session, task, database)
    query = urlencode({"key": found["TaskId"], "type": found["TaskType"], "disable": str(disable).lower()})
    answer = await session.call("POST", f"/databases/{quote(name)}/admin/tasks/state?{query}")
    session.show(answer, f"Task {found['TaskName']} is {'disabled' if disable else 'enabled'}.")


@click.command()
@click.argument("task")
@click.argument("node", required=False)
@IN_DATABASE
@click.option("--prefer", is_flag=True, help="Prefer the node, and move on without it when it is not a Member.")
@click.option("--off", is_flag=True, help="Take pin and preference away.")
@talks
async def pin(session: Session, task: str, node: str | None, database: str | None, prefer: bool, off: bool) -> None:
    """Pin a task to a node: it waits for that node even when it is down."""
    if off == bool(node) or (off and prefer):
        raise click.UsageError("Give a node, or --off.")
    name, found = await find_task(session, task, database)
    if not found["TaskId"]:
        raise CommandFailed(f"Task '{task}' fills a node and belongs to its mentor; it cannot be pinned.")
    where = "" if off else f"&node={quote((node or '').upper())}&pinned={'false' if prefer else 'true'}"
    answer = await session.call("POST", f"/databases/{quote(name)}/admin/tasks/pin?key={found['TaskId']}{where}")
    done = "is free to run anywhere" if off else f"{'prefers' if prefer else 'is pinned to'} {(node or '').upper()}"
    session.show(answer, f"Task {found['TaskName']} {done}.")


def _definition(file: BinaryIO) -> dict[str, Any]:
    try:
        value = from_python_json(file.read())
    except ValueError as error:
        raise CommandFailed(f"{file.name} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise CommandFailed(f"{file.name} must hold one JSON object.")
    return value
