"""`raftnode etl`, `connection-string`, `task` and `pin`: defining tasks and where their data goes."""

import json
import shlex
from typing import BinaryIO
from urllib.parse import quote, urlencode

import click
from rich.markup import escape

from raftnode.cli.asking import ask, asks
from raftnode.cli.session import Answer, CommandFailed, Session, find_task, talks
from raftnode.cli.tables import counted, print_table
from raftnode.foundation.decoding import from_python_json
from raftnode.foundation.names import fold
from raftnode.web.views.base import Committed, Json
from raftnode.web.views.tasks import FailedDocuments, TaskChanged, TaskInfo, TaskList, TaskStatus

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
    await put_definition(session, definition_in(file), database, "etl")


async def put_definition(session: Session, definition: Json, database: str, route: str) -> None:
    """Add a task, or edit the one of the same name, and say who is responsible for it."""
    listed = await session.call("GET", f"/databases/{quote(database)}/tasks", TaskList)
    name = str(definition.get("Name", ""))
    known = next((task for task in listed.shown.ongoing_tasks if fold(task.task_name) == fold(name)), None)
    query = "" if known is None else f"?id={known.task_id}"
    answer = await session.call(
        "PUT", f"/databases/{quote(database)}/admin/{route}{query}", TaskChanged, json=definition
    )
    done = "added" if known is None else "edited"
    said = [f"Task {name} is {done}; {answer.shown.responsible_node or 'nobody'} is responsible for it."]
    warnings = [f"Warning: {warning}" for warning in answer.shown.warnings]
    session.show(answer, "\n".join([*said, *(_undone(known, definition) if known else []), *warnings]))


def _undone(before: TaskInfo, given: Json) -> list[str]:
    """What an edit takes back of commands that were given before, one sentence each: a file may not know of them."""
    quoted, mentor, said = shlex.quote(before.task_name), before.mentor_node, []
    named = given.get("MentorNode") or None
    gone = "MentorNode" in given and mentor != named and not (named is None and given.get("PinToMentorNode"))
    loose = before.pin_to_mentor_node and "PinToMentorNode" in given and not given["PinToMentorNode"]
    if mentor and (gone or loose):
        how, prefer = ("was pinned to", "") if before.pin_to_mentor_node else ("preferred", " --prefer")
        said.append(
            f"It {how} {mentor}, and the file takes that away: raftnode pin {quoted} {mentor}{prefer} sets it again."
        )
    if before.task_state == "Disabled" and given.get("Disabled") is False:
        said.append(f"It was disabled, and the file enables it: raftnode task disable {quoted} disables it again.")
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
    definition = definition_in(file)
    answer = await session.call(
        "PUT", f"/databases/{quote(database)}/admin/connection-strings", Committed, json=definition
    )
    session.show(answer, f"Connection string {definition.get('Name')} is stored.")


@connection_string.command("list")
@DATABASE
@talks
async def list_connection_strings(session: Session, database: str) -> None:
    """List their names by type."""
    path = f"/databases/{quote(database)}/admin/connection-strings"
    answer = await session.call("GET", path, dict[str, dict[str, Json]])
    suffix = "ConnectionStrings"
    found = [(name, kind.removesuffix(suffix)) for kind, group in answer.shown.items() for name in group]
    shown = [{"Name": name, "Type": kind} for name, kind in found]
    none = "No connection strings."
    session.show(Answer(shown, found), lambda rows: print_table("", ("name", "type"), rows, empty=none))


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
    answer = await session.call("DELETE", f"/databases/{quote(database)}/admin/connection-strings?{query}", Committed)
    session.show(answer, f"Connection string {name} is deleted.")


@click.group("task")
def task_group() -> None:
    """One task: put, show, enable, disable, reset, delete, failed, retry."""


@task_group.command("put")
@click.argument("file", type=click.File("rb"))
@DATABASE
@talks
async def put_task(session: Session, file: BinaryIO, database: str) -> None:
    """Add a task of any kind, its TaskType, or edit the one of the same name, from JSON (- reads standard input)."""
    await put_definition(session, definition_in(file), database, "tasks")


@task_group.command("show")
@click.argument("task")
@IN_DATABASE
@talks
async def show_task(session: Session, task: str, database: str | None) -> None:
    """Print a task's definition, as `task put` takes it."""
    name, found = await find_task(session, task, database)
    show_definition(session, {"TaskType": found.task_type} | await stored_definition(session, name, found))


async def stored_definition(session: Session, database: str, found: TaskStatus) -> Json:
    """The task's configuration without its id."""
    query = urlencode({"key": found.task_id, "type": found.task_type})
    answer = await session.call("GET", f"/databases/{quote(database, safe='')}/task?{query}", TaskInfo)
    return {key: value for key, value in answer.shown.configuration.items() if key != "TaskId"}


def show_definition(session: Session, definition: Json) -> None:
    """Print a definition as JSON, in one line for --json."""
    session.show(
        Answer(definition, definition), lambda given: click.echo(json.dumps(given, indent=2, ensure_ascii=False))
    )


@task_group.command()
@click.argument("task")
@IN_DATABASE
@talks
async def enable(session: Session, task: str, database: str | None) -> None:
    """Enable a task."""
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
@click.option("--transform", metavar="NAME", help="Only this transform, where each has its own progress.")
@asks()
@talks
async def reset(session: Session, task: str, database: str | None, transform: str | None, yes: bool) -> None:
    """Forget an ETL task's progress: it starts again from the first document."""
    ask(f"Forget the progress of task {task}? It starts again from the first document.", yes=yes)
    name, found = await find_task(session, task, database)
    given = {"configurationName": found.task_name, "transformationName": transform}
    query = urlencode({key: value for key, value in given.items() if value is not None})
    answer = await session.call("RESET", f"/databases/{quote(name)}/admin/etl?{query}", Committed)
    what = f"Task {found.task_name}" if transform is None else f"Transform {transform} of task {found.task_name}"
    session.show(answer, f"{what} starts again from the first document.")


@task_group.command()
@click.argument("task")
@IN_DATABASE
@asks()
@talks
async def delete(session: Session, task: str, database: str | None, yes: bool) -> None:
    """Delete a task with its progress."""
    ask(f"Delete task {task} with its progress?", yes=yes)
    await delete_task(session, *await find_task(session, task, database))


@task_group.command()
@click.argument("task")
@IN_DATABASE
@talks
async def failed(session: Session, task: str, database: str | None) -> None:
    """List the documents that a task has skipped: which, when, why."""
    name, found = await find_task(session, task, database)
    given = found.task_name if found.task_type == "Update" else found.task_id
    path = f"/databases/{quote(name, safe='')}/tasks/{quote(str(given), safe='')}/failed"
    answer = await session.call("GET", f"{path}?type={found.task_type}", FailedDocuments)
    session.show(answer, _show_failed)


@task_group.command()
@click.argument("task")
@IN_DATABASE
@talks
async def retry(session: Session, task: str, database: str | None) -> None:
    """Retry the documents that a task has skipped."""
    name, found = await find_task(session, task, database)
    query = urlencode({"key": found.task_id, "type": found.task_type})
    answer = await session.call("POST", f"/databases/{quote(name)}/admin/tasks/retry?{query}", Committed)
    count = found.failed
    what = (
        f"tries {counted(count, 'document')} again"
        if count
        else "has skipped no documents, so there is nothing to retry"
    )
    session.show(answer, f"Task {found.task_name} {what}.")


def _show_failed(answer: FailedDocuments) -> None:
    rows = [
        (escape(one.document_id), one.at[:19], escape(one.transform), escape(one.error)) for one in answer.documents
    ]
    none = "No document is skipped." if not answer.failed else "The documents are not known here."
    print_table("", ("document", "skipped", "transform", "why"), rows, empty=none)
    if answer.unknown:
        click.echo(answer.unknown)
    if answer.unlisted:
        name = shlex.quote(answer.task_name)
        click.echo(
            f"Not listed: {answer.unlisted:,} more. `raftnode task retry {name}` tries the newest 5,000 of them a "
            f"transform as well; `raftnode task reset {name}` carries everything again."
        )


async def delete_task(session: Session, database: str, task: TaskStatus) -> None:
    """Deletes a task that was found, and says so."""
    query = urlencode({"id": task.task_id, "type": task.task_type})
    answer = await session.call("DELETE", f"/databases/{quote(database, safe='')}/admin/tasks?{query}", Committed)
    session.show(answer, f"Task {task.task_name} is deleted.")


async def _set_state(session: Session, task: str, database: str | None, *, disable: bool) -> None:
    name, found = await find_task(session, task, database)
    query = urlencode({"key": found.task_id, "type": found.task_type, "disable": str(disable).lower()})
    answer = await session.call("POST", f"/databases/{quote(name)}/admin/tasks/state?{query}", Committed)
    session.show(answer, f"Task {found.task_name} is {'disabled' if disable else 'enabled'}.")


@click.command()
@click.argument("task")
@click.argument("node", required=False)
@IN_DATABASE
@click.option("--prefer", is_flag=True, help="Prefer NODE, and move on without it when it is not a Member.")
@click.option("--off", is_flag=True, help="Remove the pin or preference.")
@talks
async def pin(session: Session, task: str, node: str | None, database: str | None, prefer: bool, off: bool) -> None:
    """Pin a task to a node: it waits for that node even when it is down. Without NODE to the one that runs it."""
    if (off and (node or prefer)) or (prefer and not node):
        raise click.UsageError("Give a node, nothing, or --off; --prefer needs a node.")
    name, found = await find_task(session, task, database)
    update = not found.task_id
    if update and not (prefer or off):
        raise CommandFailed(
            f"Task '{task}' updates a node: it can prefer a mentor (raftnode pin {task} NODE --prefer), not be pinned."
        )
    where = f"&node={quote((node or '').upper())}" if node else ""
    pinned = "" if off else f"&pinned={str(not prefer).lower()}"
    which = f"type=Update&taskName={quote(found.task_name)}" if update else f"key={found.task_id}"
    path = f"/databases/{quote(name)}/admin/tasks/pin?{which}{where}{pinned}"
    answer = await session.call("POST", path, TaskChanged)
    tag = (node or answer.shown.responsible_node or "").upper()
    done = "is free to run anywhere" if off else f"{'prefers' if prefer else 'is pinned to'} {tag}"
    session.show(answer, f"Task {found.task_name} {done}.")


def definition_in(file: BinaryIO) -> Json:
    """The JSON object of a file. Ends the command for anything else."""
    try:
        value = from_python_json(file.read())
    except ValueError as error:
        raise CommandFailed(f"{file.name} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise CommandFailed(f"{file.name} must hold one JSON object.")
    return value
