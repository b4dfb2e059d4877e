"""`raftnode db ...`."""

from typing import Any
from urllib.parse import quote, urlencode

import click

from raftnode.cli.asking import ask, asks
from raftnode.cli.cluster import Tag
from raftnode.cli.session import NotFound, NotNow, Session, talks
from raftnode.cli.tables import print_table
from raftnode.foundation.http_client import HttpUnreachable


@click.group()
def db() -> None:
    """Databases, their groups and states, and what was deleted softly."""


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
@asks()
@talks
async def delete(session: Session, name: str, nodes: str | None, soft: bool, yes: bool) -> None:
    """Delete a database, or its copies on some nodes."""
    where = f"the copies of {name} on {nodes}" if nodes else f"database {name}"
    with_what = "" if soft else " with their documents" if nodes else " with its documents"
    ask(f"Delete {where}{with_what}?", yes=yes)
    tags = [tag.strip().upper() for tag in nodes.split(",")] if nodes else None
    body = {"DatabaseNames": [name], "HardDelete": not soft, "FromNodes": tags}
    answer = await session.call("DELETE", "/admin/databases", json=body)
    pending = ", ".join(answer["PendingDeletes"])
    rest = f"; {pending} will follow when reachable" if pending else ""
    kept = " Its files are kept: `raftnode db removed` lists them." if soft else ""
    session.show(answer, f"{where[0].upper()}{where[1:]} is deleted{rest}.{kept}")


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


@db.command("removed")
@talks
async def list_removed(session: Session) -> None:
    """List the copies of softly deleted databases: on which node and where their files are."""
    nodes = (await session.call("GET", "/cluster/topology"))["Topology"]["AllNodes"]
    found, silent = [], []
    for tag, url in sorted(nodes.items()):
        if not await session.answers(url):
            silent.append(tag)
            continue
        answer = await session.ask_at(url, "GET", "/admin/databases/removed")
        found += [{"NodeTag": tag} | copy for copy in answer["Removed"]]

    def show(_: Any) -> None:
        rows = [
            (
                one["NodeTag"],
                one["Database"],
                f"{one['Documents']:,}",
                one["DeletedAt"][:19],
                one["Folder"],
                one["Path"],
            )
            for one in found
        ]
        columns = ("node", "database", "documents", "deleted at (UTC)", "folder", "file")
        print_table("", columns, rows, empty="No copies of softly deleted databases.")
        if silent:
            click.echo(f"Not asked, as they do not answer: {', '.join(silent)}.")

    session.show({"Removed": found, "Silent": silent}, show)


@db.command()
@click.argument("folder")
@click.option("--node", "tag", type=Tag(), required=True, help="The node that has it.")
@click.option("--name", metavar="NAME", help="The database's new name. Default: its name before.")
@talks
async def restore(session: Session, folder: str, tag: str, name: str | None) -> None:
    """Make a database of a softly deleted copy again, on its node; `raftnode db removed` lists the FOLDERs.

    Its tasks, connection strings and indexes were deleted with it.
    """
    nodes = (await session.call("GET", "/cluster/topology"))["Topology"]["AllNodes"]
    if tag not in nodes:
        raise NotFound(f"Node '{tag}' is not in the cluster. Known nodes: {', '.join(sorted(nodes))}.")
    query = urlencode({"folder": folder} | ({"name": name} if name else {}))
    try:
        answer = await session.ask_at(nodes[tag], "POST", f"/admin/databases/restore?{query}")
    except HttpUnreachable as error:
        raise NotNow(f"{error}. The files are on node {tag} only; try again when it answers.") from None
    session.show(answer, f"Database {answer['Name']} is there again, on {tag}.")
