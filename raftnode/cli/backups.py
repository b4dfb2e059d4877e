"""`raftnode backup`: backup tasks, what they have made, and restoring it."""

import asyncio
import sys
from typing import BinaryIO
from urllib.parse import quote, urlencode

import click
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from raftnode.cli.definitions import DATABASE, IN_DATABASE, definition_in, put_definition
from raftnode.cli.session import Answer, CommandFailed, NotFound, Session, TryAgain, find_task, talks
from raftnode.cli.tables import console, print_table
from raftnode.foundation.http_client import HttpUnreachable
from raftnode.web.views.backups import BackupDelayed, BackupStarted, OperationStarted, RestorePoint, RestorePoints
from raftnode.web.views.base import Json
from raftnode.web.views.cluster import ClusterView
from raftnode.web.views.tasks import TaskStatus

KIND = "Backup"
POLL_S = 0.25
TYPES = {"LocalSettings": "Local", "S3Settings": "S3", "AzureSettings": "Azure", "GoogleCloudSettings": "GoogleCloud"}
"""The settings of a place, and RavenDB's name of its type."""

FOLDER = click.option("--folder", metavar="DIR", help="A folder of the node that is asked.")
SETTINGS = click.option(
    "--settings", type=click.File("rb"), metavar="FILE", help="S3Settings, AzureSettings, GoogleCloudSettings as JSON."
)


@click.group()
def backup() -> None:
    """Backup tasks, what they have made, and restoring it."""


@backup.command("put")
@click.argument("file", type=click.File("rb"))
@DATABASE
@talks
async def put_backup(session: Session, file: BinaryIO, database: str) -> None:
    """Add a backup task, or edit the one of the same name, from RavenDB's JSON (- reads standard input)."""
    await put_definition(session, {"TaskType": KIND} | definition_in(file), database, "tasks")


@backup.command("now")
@click.argument("task")
@IN_DATABASE
@click.option("--incremental", is_flag=True, help="Only what has changed since the last backup.")
@talks
async def back_up(session: Session, task: str, database: str | None, incremental: bool) -> None:
    """Make a backup now, on the node that runs the task, and wait until it is made."""
    name, found = await _find(session, task, database)
    query = urlencode({"taskId": found.task_id, "isFullBackup": str(not incremental).lower()})
    path = f"/databases/{quote(name, safe='')}/admin/backup/database?{query}"
    begun = (await session.call("POST", path, BackupStarted)).shown
    answer = await _ended(session, begun.responsible_node, begun.operation_id)
    session.show(answer, f"{answer.shown['Result']['Message']}.")


@backup.command()
@click.argument("task")
@click.argument("duration")
@IN_DATABASE
@talks
async def delay(session: Session, task: str, duration: str, database: str | None) -> None:
    """Make no backup that is due before a time span like 02:00:00 has passed. One that is being made ends."""
    name, found = await _find(session, task, database)
    query = urlencode({"taskId": found.task_id, "duration": duration, "database": name})
    answer = await session.call("POST", f"/admin/backup-task/delay?{query}", BackupDelayed)
    session.show(answer, f"Backup task {found.task_name} makes none before {answer.shown.delay_until[:19]} UTC.")


@backup.command("show")
@click.argument("task")
@IN_DATABASE
@talks
async def show_backup(session: Session, task: str, database: str | None) -> None:
    """Show what a backup task has made: when, by which node, how much, and its last error."""
    name, found = await _find(session, task, database)
    query = urlencode({"name": name, "taskId": found.task_id})
    status = (await session.call("GET", f"/periodic-backup/status?{query}", Json)).shown["Status"]
    key = urlencode({"key": found.task_id, "type": KIND})
    info = (await session.call("GET", f"/databases/{quote(name, safe='')}/task?{key}", Json)).shown
    session.show(Answer({"Status": status, "NextBackup": info["NextBackup"]}, status), lambda s: _show(s, info))


@backup.command()
@FOLDER
@SETTINGS
@talks
async def points(session: Session, folder: str | None, settings: BinaryIO | None) -> None:
    """List the backups of a folder or bucket, and for each whether it is whole."""
    field, given = _place(folder, settings)
    path = f"/admin/restore/points?type={TYPES[field]}"
    answer = await session.call("POST", path, RestorePoints, json=given)

    session.show(answer, _show_points)


@backup.command()
@click.argument("database")
@FOLDER
@SETTINGS
@click.option("--until", metavar="FILE", help="Up to this file of the folder. Default: the newest that is whole.")
@click.option(
    "--encryption-key", "key", type=click.File("rb"), metavar="FILE", help="A file with the key in base64 (- is stdin)."
)
@click.option("--disable-tasks", is_flag=True, help="The database's tasks are restored disabled.")
@click.option("--skip-indexes", is_flag=True, help="Indexes are not restored.")
@talks
async def restore(
    session: Session,
    database: str,
    folder: str | None,
    settings: BinaryIO | None,
    until: str | None,
    key: BinaryIO | None,
    disable_tasks: bool,
    skip_indexes: bool,
) -> None:
    """Make a new DATABASE of a backup, on the node that is asked, and wait until it is there.

    Its tasks run at once, unless --disable-tasks: they may write where those of the old database do.
    """
    field, given = _place(folder, settings)
    wished: Json = {
        "DatabaseName": database,
        "Settings": {field: given},
        "LastFileNameToRestore": until,
        "EncryptionKey": key.read().decode(errors="replace").strip() if key else None,
        "DisableOngoingTasks": disable_tasks,
        "SkipIndexes": skip_indexes,
    }
    begun = (await session.call("POST", "/admin/restore/database", OperationStarted, json=wished)).shown
    answer = await _ended(session, begun.operation_node_tag, begun.operation_id)
    result = answer.shown["Result"]
    skipped = [f"Not restored: {one['Name']}: {one['Reason']}" for one in result["Skipped"]]
    session.show(answer, "\n".join([f"{result['Message']}.", *skipped]))


async def _find(session: Session, task: str, database: str | None) -> tuple[str, TaskStatus]:
    name, found = await find_task(session, task, database)
    if found.task_type != KIND:
        raise CommandFailed(f"Task '{task}' is of kind {found.task_type}, and no backup.")
    return name, found


async def _ended(session: Session, tag: str, id: int) -> Answer[Json]:
    """The operation, which that node knows, once it has ended well; how far it is meanwhile. Ends the command with the
    reason if it failed."""
    nodes = (await session.call("GET", "/cluster/topology", ClusterView)).shown.topology.all_nodes
    if tag not in nodes:
        raise NotFound(f"Node '{tag}' is not in the cluster any more.")
    bar = Progress(TextColumn("{task.description}"), BarColumn(), disable=not sys.stderr.isatty())
    with bar:
        line = bar.add_task("waiting", total=None)
        while True:
            try:
                answer = await session.ask_at(nodes[tag], "GET", f"/operations/state?id={id}", Json)
            except HttpUnreachable as error:
                raise TryAgain(f"{error}. Node {tag} knows how it ends: raftnode backup show.") from None
            if answer.shown["Status"] != "InProgress":
                break
            bar.update(line, description=(answer.shown["Progress"] or {}).get("Message", "waiting"))
            await asyncio.sleep(POLL_S)
    if answer.shown["Status"] != "Completed":
        reason = (answer.shown["Result"] or {}).get("Message") or "it was ended by a user"
        raise CommandFailed(f"{answer.shown['Description']} has failed: {reason}")
    return answer


def _place(folder: str | None, settings: BinaryIO | None) -> tuple[str, Json]:
    """The field of the settings of a place, and these."""
    if (folder is None) == (settings is None):
        raise click.UsageError("Give either --folder or --settings.")
    if settings is None:
        return "LocalSettings", {"FolderPath": folder}
    given = definition_in(settings)
    found = [field for field in TYPES if given.get(field)]
    if len(found) != 1:
        raise CommandFailed(f"{settings.name} must have one of {', '.join(TYPES)}.")
    return found[0], given[found[0]]


def _show(status: Json, info: Json) -> None:
    following = info["NextBackup"]
    going = info["OnGoingBackup"]
    lines = [
        ("runs on", info["Holder"] or "nobody"),
        ("destinations", ", ".join(info["BackupDestinations"])),
        ("last full", _time(status["LastFullBackup"])),
        ("last incremental", _time(status["LastIncrementalBackup"])),
        ("going on", f"since {_time(going['StartTime'])}" if going else "no"),
        ("next", "" if following is None else f"{_time(following['DateTime'])}, {_part(following['IsFull'])}"),
        ("folder", status["FolderName"] or ""),
        ("newest file", f"{status['FileName'] or 'none'}, {status['SizeInBytes']:,} bytes"),
        ("encrypted", "yes" if info["IsEncrypted"] else "no"),
        ("last error", "" if status["Error"] is None else escape(status["Error"]["Exception"])),
    ]
    print_table("", ("", ""), lines, empty="")
    rows = [
        (tag, _time(one["LastFullBackup"]), _time(one["LastIncrementalBackup"]), str(one["Backups"]),
         f"{one['SizeInBytes']:,}", escape(one["Error"] or ""))
        for tag, one in status["Nodes"].items()
    ]  # fmt: skip
    print_table("", ("node", "last full", "last incremental", "backups", "bytes", "error"), rows, empty="No backups.")


def _time(text: str | None) -> str:
    return "never" if text is None else f"{text[:19]} UTC"


def _part(full: bool) -> str:
    return "full" if full else "incremental"


def _show_points(found: RestorePoints) -> None:
    """A table for each folder, under its place: what `restore` takes as --folder, and in the rows as --until."""
    columns = ("database", "time (UTC)", "kind", "documents", "bytes", "file", "")
    begun = [one.files for one in found.list if one.files]
    for files in begun:
        console().print(escape(files[0].location), soft_wrap=True)
        print_table("", columns, [_row(point) for point in files], empty="")
    if not begun:
        console().print("No backups.")


def _row(point: RestorePoint) -> tuple[str, ...]:
    return (
        escape(point.database_name),
        point.date_time[:19],
        ("incremental" if point.is_incremental else "full") + (", encrypted" if point.is_encrypted else ""),
        "" if point.documents is None else f"{point.documents:,}",
        f"{point.size_in_bytes:,}",
        escape(point.file_name),
        "whole" if point.is_whole else escape(f"not whole: {point.problem}"),
    )
