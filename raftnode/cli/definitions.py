"""`raftnode etl`, `connection-string`, `task` and `pin`: defining tasks and where their data goes."""

from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

import click
from rich.markup import escape

from raftnode.cli.asking import ask, asks
from raftnode.cli.session import CommandFailed, Session, find_task, talks
from raftnode.cli.tables import counted, print_table
from raftnode.foundation.decoding import from_python_json
from raftnode.foundation.names import fold

DATABASE = click.option("--database", required=True, metavar="NAME", help="In this database.")
IN_DATABASE = click.option("--database", metavar="NAME", help="The task's database, if its name is not unique.")


@click.group()
def etl() -> None:
    """ETL tasks: put, list, show, delete."""


@etl.command("put")
@click.argument("file", type=click.File("rb"))
@DATABASE
@talks
async def put_etl(session: Session, file: BinaryIO, database: str) -> None:
    """Add an ETL task, or edit the one of the same name, from RavenDB's JSON (- reads standard input)."""
    definition = _definition(file)
    listed = await session.call("GET", f"/databases/{quote(database)}/tasks")
    name = str(definition.get("Name", ""))
    known = next((task for task in listed["OngoingTasks"] if fold(task["TaskName"]) == fold(name)), None)
    query = "" if known is None else f"?id={known['TaskId']}"
    answer = await session.call("PUT", f"/databases/{quote(database)}/admin/etl{query}", json=definition)
    done = "added" if known is None else "edited"
    said = [f"Task {name} is {done}; {answer['ResponsibleNode'] or 'nobody'} is responsible for it."]
    warnings = [f"Warning: {warning}" for warning in answer.get("Warnings", ())]
    session.show(answer, "\n".join([*said, *(_undone(known, definition) if known else []), *warnings]))


def _undone(before: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """What an edit takes back of commands that were given before, one sentence each: a file may not know of them."""
    name, mentor, said = before["TaskName"], before["MentorNode"], []
    gone = {"MentorNode", "PinToMentorNode"} & given.keys() and mentor != (given.get("MentorNode") or None)
    loose = before["PinToMentorNode"] and "PinToMentorNode" in given and not given["PinToMentorNode"]
    if mentor and (gone or loose):
        how, prefer = ("was pinned to", "") if before["PinToMentorNode"] else ("preferred", " --prefer")
        said.append(
            f"It {how} {mentor}, and the file takes that away: raftnode pin {name} {mentor}{prefer} sets it again."
        )
    if before["TaskState"] == "Disabled" and given.get("Disabled") is False:
        said.append(f"It was disabled, and the file enables it: raftnode task disable {name} disables it again.")
    return said


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
@asks()
@talks
async def delete_connection_string(session: Session, name: str, kind: str, database: str, yes: bool) -> None:
    """Delete one that no task uses."""
    ask(f"Delete connection string {name} of database {database}?", yes=yes)
    query = urlencode({"connectionString": name, "type": kind})
    answer = await session.call("DELETE", f"/databases/{quote(database)}/admin/connection-strings?{query}")
    session.show(answer, f"Connection string {name} is deleted.")


@click.group("task")
def task_group() -> None:
    """One task: enable, disable, reset, delete, failed, retry."""


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
@asks()
@talks
async def reset(session: Session, task: str, database: str | None, yes: bool) -> None:
    """Forget an ETL task's progress: it starts again from the first document."""
    ask(f"Forget the progress of task {task}? It starts again from the first document.", yes=yes)
    name, found = await find_task(session, task, database)
    query = urlencode({"configurationName": found["TaskName"]})
    answer = await session.call("RESET", f"/databases/{quote(name)}/admin/etl?{query}")
    session.show(answer, f"Task {found['TaskName']} starts again from the first document.")


@task_group.command()
@click.argument("task")
@IN_DATABASE
@asks()
@talks
async def delete(session: Session, task: str, database: str | None, yes: bool) -> None:
    """Delete a task with its progress."""
    ask(f"Delete task {task} with its progress?", yes=yes)
    name, found = await find_task(session, task, database)
    query = urlencode({"id": found["TaskId"], "type": found["TaskType"]})
    answer = await session.call("DELETE", f"/databases/{quote(name)}/admin/tasks?{query}")
    session.show(answer, f"Task {found['TaskName']} is deleted.")


@task_group.command()
@click.argument("task")
@IN_DATABASE
@talks
async def failed(session: Session, task: str, database: str | None) -> None:
    """List the documents that a task has passed over: which, when, why."""
    name, found = await find_task(session, task, database)
    given = found["TaskName"] if found["TaskType"] == "Update" else found["TaskId"]
    path = f"/databases/{quote(name, safe='')}/tasks/{quote(str(given), safe='')}/failed"
    answer = await session.call("GET", f"{path}?type={found['TaskType']}")
    session.show(answer, _show_failed)


@task_group.command()
@click.argument("task")
@IN_DATABASE
@talks
async def retry(session: Session, task: str, database: str | None) -> None:
    """Try the documents again that a task has passed over."""
    name, found = await find_task(session, task, database)
    query = urlencode({"key": found["TaskId"], "type": found["TaskType"]})
    answer = await session.call("POST", f"/databases/{quote(name)}/admin/tasks/retry?{query}")
    count = found["Failed"]
    what = (
        f"tries {counted(count, 'document')} again" if count else "has passed no document over: nothing is to be tried"
    )
    session.show(answer, f"Task {found['TaskName']} {what}.")


def _show_failed(answer: dict[str, Any]) -> None:
    rows = [
        (escape(one["DocumentId"]), one["At"][:19], escape(one["Transform"]), escape(one["Error"]))
        for one in answer["Documents"]
    ]
    none = "No document is passed over." if not answer["Failed"] else "The documents are not known here."
    print_table("", ("document", "passed over", "transform", "why"), rows, empty=none)
    if answer["Unknown"]:
        click.echo(answer["Unknown"])
    if answer["Unlisted"]:
        name = answer["TaskName"]
        click.echo(
            f"Not listed: {answer['Unlisted']:,} more. `raftnode task retry {name}` tries the newest 5,000 of them a "
            f"transform as well; `raftnode task reset {name}` carries everything again."
        )


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
