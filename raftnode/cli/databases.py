"""`raftnode db ...`."""

from urllib.parse import quote, urlencode

import click

from raftnode.cli.asking import ask, asks
from raftnode.cli.cluster import Tag
from raftnode.cli.session import Answer, NotFound, Session, TryAgain, talks
from raftnode.cli.tables import print_table
from raftnode.documents.store.removed import RemovedCopy
from raftnode.foundation.http_client import HttpUnreachable
from raftnode.foundation.names import fold
from raftnode.web.views.base import Json
from raftnode.web.views.cluster import ClusterView
from raftnode.web.views.databases import DatabaseList, Deleted, GroupChanged, RemovedCopies


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
    answer = await session.call("PUT", path, GroupChanged, json={"DatabaseName": name} | topology)
    holders = ", ".join(answer.shown.topology.members if answer.shown.topology else ())
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
    verb = "are" if nodes else "is"
    with_what = "" if soft else " with their documents" if nodes else " with its documents"
    ask(f"Delete {where}{with_what}?", yes=yes)
    tags = [tag.strip().upper() for tag in nodes.split(",")] if nodes else None
    body = {"DatabaseNames": [name], "HardDelete": not soft, "FromNodes": tags}
    answer = await session.call("DELETE", "/admin/databases", Deleted, json=body)
    if await _ignores_deletion(session, name):
        session.show(answer, f"Nothing is deleted: the lock mode of {name} is PreventDeletesIgnore.")
        return
    pending = ", ".join(answer.shown.pending_deletes)
    rest = f"; {pending} will follow when reachable" if pending else ""
    kept = " Its files are kept: `raftnode db removed` lists them." if soft else ""
    session.show(answer, f"{where[0].upper()}{where[1:]} {verb} deleted{rest}.{kept}")


async def _ignores_deletion(session: Session, name: str) -> bool:
    """Whether a database is locked so that its deletion is answered like one that was carried out."""
    listed = (await session.call("GET", "/databases", DatabaseList)).shown.databases
    return any(fold(each.name) == fold(name) and each.lock_mode == "PreventDeletesIgnore" for each in listed)


@db.command("list")
@talks
async def list_databases(session: Session) -> None:
    """List the databases with their groups."""

    def show(answer: DatabaseList) -> None:
        rows = []
        for database in answer.databases:
            group = database.nodes_topology
            states = (group.members, group.rehabs, group.promotables)
            tags = [", ".join(node.node_tag for node in nodes) for nodes in states]
            rows.append((database.name, *tags, str(database.tasks_count), "disabled" * database.disabled))
        print_table("", ("database", "members", "rehabs", "promotables", "tasks", ""), rows, empty="No databases.")

    session.show(await session.call("GET", "/databases", DatabaseList), show)


@db.command("removed")
@talks
async def list_removed(session: Session) -> None:
    """List the copies of softly deleted databases: on which node and where their files are."""
    nodes = (await session.call("GET", "/cluster/topology", ClusterView)).shown.topology.all_nodes
    found: list[tuple[str, RemovedCopy]] = []
    shown: list[Json] = []
    silent = []
    for tag, url in sorted(nodes.items()):
        if not await session.answers(url):
            silent.append(tag)
            continue
        answer = await session.ask_at(url, "GET", "/admin/databases/removed", RemovedCopies)
        found += [(tag, copy) for copy in answer.shown.removed]
        shown += [{"NodeTag": tag} | copy for copy in answer.json["Removed"]]

    def show(_: object) -> None:
        rows = [
            (tag, one.database, f"{one.documents:,}", one.deleted_at[:19], one.folder, one.path) for tag, one in found
        ]
        columns = ("node", "database", "documents", "deleted at (UTC)", "folder", "file")
        print_table("", columns, rows, empty="No copies of softly deleted databases.")
        if silent:
            click.echo(f"Not asked, as they do not answer: {', '.join(silent)}.")

    session.show(Answer({"Removed": shown, "Silent": silent}, found), show)


@db.command()
@click.argument("folder")
@click.option("--node", "tag", type=Tag(), required=True, help="The node that has it.")
@click.option("--name", metavar="NAME", help="The database's new name. Default: its name before.")
@talks
async def restore(session: Session, folder: str, tag: str, name: str | None) -> None:
    """Make a database of a softly deleted copy again, on its node; `raftnode db removed` lists the FOLDERs.

    Its tasks, connection strings and indexes were deleted with it.
    """
    nodes = (await session.call("GET", "/cluster/topology", ClusterView)).shown.topology.all_nodes
    if tag not in nodes:
        raise NotFound(f"Node '{tag}' is not in the cluster. Known nodes: {', '.join(sorted(nodes))}.")
    query = urlencode({"folder": folder} | ({"name": name} if name else {}))
    try:
        answer = await session.ask_at(nodes[tag], "POST", f"/admin/databases/restore?{query}", GroupChanged)
    except HttpUnreachable as error:
        raise TryAgain(f"{error}. The files are on node {tag} only; try again when it answers.") from None
    session.show(answer, f"Database {answer.shown.name} is restored on {tag}.")
