"""`raftnode db ...` and `raftnode import`."""

import json
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import quote

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from raftnode.cli.session import CommandFailed, NotNow, Session, talks
from raftnode.cli.tables import print_table
from raftnode.http import HttpFailed, HttpUnreachable

BATCH_DOCUMENTS_MAX = 1_000
BATCH_BYTES_MAX = 4 << 20


@click.group()
def db() -> None:
    """Databases: create, delete, list."""


@db.command()
@click.argument("name")
@click.option("--nodes", metavar="A,B,E", help="The nodes that hold it. Default: picked by --replication-factor.")
@click.option("--replication-factor", type=click.IntRange(1), default=1, show_default=True, help="On how many nodes.")
@talks
async def create(session: Session, name: str, nodes: str | None, replication_factor: int) -> None:
    """Create a database."""
    members = [tag.strip().upper() for tag in (nodes or "").split(",") if tag.strip()]
    topology = {"Topology": {"Members": members}} if members else {}
    path = f"/admin/databases?name={quote(name)}&replicationFactor={len(members) or replication_factor}"
    answer = await session.call("PUT", path, json={"DatabaseName": name} | topology)
    holders = ", ".join(answer["Topology"]["Members"])
    session.show(answer, f"Database {name} is created on {holders}.")


@db.command()
@click.argument("name")
@click.option("--from", "nodes", metavar="A,B", help="Delete only the copies on these nodes.")
@click.option("--soft", is_flag=True, help="Keep the files on the nodes' disks.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@talks
async def delete(session: Session, name: str, nodes: str | None, soft: bool, yes: bool) -> None:
    """Delete a database, or its copies on some nodes."""
    where = f"the copies of {name} on {nodes}" if nodes else f"database {name}"
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"To delete {where} without being asked, give --yes.")
        click.confirm(f"Delete {where}{'' if soft else ' with its documents'}?", abort=True)
    tags = [tag.strip().upper() for tag in nodes.split(",")] if nodes else None
    body = {"DatabaseNames": [name], "HardDelete": not soft, "FromNodes": tags}
    answer = await session.call("DELETE", "/admin/databases", json=body)
    pending = ", ".join(answer["PendingDeletes"])
    rest = f"; {pending} will follow when reachable" if pending else ""
    session.show(answer, f"{where[0].upper()}{where[1:]} is deleted{rest}.")


@db.command("list")
@talks
async def list_databases(session: Session) -> None:
    """List the databases with their groups."""

    def show(answer: dict[str, Any]) -> None:
        rows = []
        for database in answer["Databases"]:
            group = database["NodesTopology"]
            tags = [", ".join(n["NodeTag"] for n in group[state]) for state in ("Members", "Rehabs", "Promotables")]
            rows.append((database["Name"], *tags, str(database["TasksCount"]), "disabled" * database["Disabled"]))
        print_table("", ("database", "members", "rehabs", "promotables", "tasks", ""), rows, empty="No databases.")

    session.show(await session.call("GET", "/databases"), show)


@click.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--database", required=True, metavar="NAME", help="Into this database.")
@talks
async def import_documents(session: Session, file: BinaryIO, database: str) -> None:
    """Import documents: one JSON object a line, with its id in @metadata.@id (- reads standard input).

    An import that was interrupted may simply be repeated: documents are put by their id.
    """
    answer = await session.call("GET", f"/topology?name={quote(database)}")
    members = [node["Url"].rstrip("/") for node in answer["Nodes"]]
    if not members:
        raise NotNow(f"Database '{database}' has no member that could take documents; see `raftnode status`.")
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), disable=not sys.stderr.isatty(),
    )  # fmt: skip
    count = 0
    with bar:
        task = bar.add_task(f"importing into {database}", total=None)
        for lines in _batches(file):
            await _send(session, members, f"/databases/{quote(database)}/bulk_insert", b"".join(lines))
            count += len(lines)
            bar.update(task, completed=count)
    session.show({"Database": database, "Imported": count}, f"{count} documents are imported into {database}.")


async def _send(session: Session, members: list[str], path: str, body: bytes) -> None:
    """To the first member that takes it; one that does not answer goes to the end. Puts may be repeated."""
    reason: Exception | None = None
    for url in tuple(members):
        try:
            return await session.call_at(url, "POST", path, body=body)
        except HttpFailed as error:
            if error.status != 503:
                raise CommandFailed(error.message) from error
            reason = error
        except HttpUnreachable as error:
            reason = error
        members.append(members.pop(0))
    raise NotNow(f"No member of the database takes the documents: {reason}. Repeat the import later.")


def _batches(file: BinaryIO) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        _check(line, number)
        if batch and (len(batch) >= BATCH_DOCUMENTS_MAX or size + len(line) > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(line if line.endswith(b"\n") else line + b"\n")
        size += len(line)
    if batch:
        yield batch


def _check(line: bytes, number: int) -> None:
    try:
        document = json.loads(line)
        present = bool(document["@metadata"]["@id"])
    except ValueError as error:
        raise CommandFailed(f"Line {number} is not JSON: {error}. Lines before it may be imported already.") from error
    except (KeyError, TypeError):
        present = False
    if not present:
        raise CommandFailed(f"Line {number} has no id in @metadata.@id. Lines before it may be imported already.")
