"""`raftnode node`, `raftnode reelect`, `raftnode observer`: the cluster itself."""

from typing import Any
from urllib.parse import quote, urlencode

import click
from rich.markup import escape

from raftnode.cli.asking import ask, asks
from raftnode.cli.session import Answer, Session, talks
from raftnode.cli.tables import moment, print_table
from raftnode.web.views.base import Committed, Json
from raftnode.web.views.cluster import ClusterView, LeaderView
from raftnode.web.views.observer import Decisions
from raftnode.web.views.status import NodeView, StatusView


class Tag(click.ParamType[str]):
    """A node's tag, in capitals."""

    name = "tag"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The tag; a usage error for anything else."""
        tag = str(value).upper()
        if not (tag.isascii() and tag.isalpha() and len(tag) <= 4):
            self.fail(f"{value!r} is not a node tag; give 1 to 4 letters.", param, ctx)
        return tag


@click.group()
def node() -> None:
    """Nodes of the cluster: list, add, remove, promote, demote, traits."""


@node.command("list")
@talks
async def list_nodes(session: Session) -> None:
    """List the nodes."""

    # A database of no name: the nodes are wanted, and not every task.
    status = await session.call("GET", "/status?database=.", StatusView)
    topology = await session.call("GET", "/cluster/topology", ClusterView)
    cluster, known = status.shown.cluster, {key: status.json["Cluster"][key] for key in ("Nodes", "SilentUnknown")}

    def show(view: ClusterView) -> None:
        rows = [_node_row(node, view.leader) for _, node in sorted(cluster.nodes.items())]
        columns = ("node", "kind", "address", "weight", "labels", "runs", "")
        print_table("", columns, rows, empty="This node is in no cluster.")
        if cluster.silent_unknown:
            click.echo(cluster.silent_unknown)

    session.show(Answer(topology.json | known, topology.shown), show)


def _node_row(node: NodeView, leader: str | None) -> tuple[str, ...]:
    marks = ["leader"] * (node.tag == leader) + ["[red]silent[/]"] * bool(node.silent)
    marks += ["draining"] * bool(node.draining) + [f"short of resources: {flag}" for flag in node.flags]
    kinds = "not known yet" if node.kinds is None else ", ".join(node.kinds)
    labels = escape(", ".join(node.labels))
    return (node.tag, node.kind, node.url, str(node.weight), labels, escape(kinds), ", ".join(marks))


@node.command()
@click.argument("tag", type=Tag())
@click.argument("address")
@click.argument("cluster_address")
@click.option("--watcher", is_flag=True, help="It does not vote.")
@talks
async def add(session: Session, tag: str, address: str, cluster_address: str, watcher: bool) -> None:
    """Announce a node at ADDRESS (http://host:port) and CLUSTER_ADDRESS (host:port).

    This reserves its tag. Rarely needed: `raftnode run --join URL` on the new node joins without it.
    """
    said = {"tag": tag, "url": address, "clusterAddress": cluster_address, "watcher": str(watcher).lower()}
    answer = await session.call("PUT", f"/admin/cluster/node?{urlencode(said)}", Committed)
    session.show(answer, f"Node {tag} is in the cluster; it takes part once it runs.")


@node.command()
@click.argument("tag", type=Tag())
@click.option("--force", is_flag=True, help="Do not wait until its tasks have moved.")
@asks()
@talks
async def remove(session: Session, tag: str, force: bool, yes: bool) -> None:
    """Remove a node, after its tasks have moved."""
    ask(f"Remove node {tag}? It can come back only with an empty data directory.", yes=yes)
    answer = await session.call("DELETE", f"/admin/cluster/node?nodeTag={tag}&force={str(force).lower()}", Committed)
    session.show(answer, f"Node {tag} is removed.")


@node.command()
@click.argument("tag", type=Tag())
@talks
async def promote(session: Session, tag: str) -> None:
    """Make a watcher a voter."""
    answer = await session.call("POST", f"/admin/cluster/promote?nodeTag={tag}", Committed)
    session.show(answer, f"Node {tag} votes now.")


@node.command()
@click.argument("tag", type=Tag())
@talks
async def demote(session: Session, tag: str) -> None:
    """Make a voter a watcher."""
    answer = await session.call("POST", f"/admin/cluster/demote?nodeTag={tag}", Committed)
    session.show(answer, f"Node {tag} is a watcher now: it runs tasks and does not vote.")


@click.command()
@click.argument("tag", type=Tag(), required=False)
@talks
async def reelect(session: Session, tag: str | None) -> None:
    """Transfer leadership, to TAG if given."""
    answer = await session.call("POST", "/admin/cluster/reelect" + (f"?nodeTag={tag}" if tag else ""), LeaderView)
    session.show(answer, lambda now: click.echo(f"{now.leader or 'Nobody yet'} leads, in term {now.term}."))


@click.group()
def observer() -> None:
    """The cluster observer: its decisions, suspending it."""


@observer.command("log")
@click.option("--database", metavar="NAME", help="Only this database.")
@click.option("--take", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many, the newest.")
@talks
async def show_log(session: Session, database: str | None, take: int) -> None:
    """Show what the observer decided, and why."""

    def show(answer: Decisions) -> None:
        rows = [(moment(d.date), d.database, str(d.term), escape(d.message)) for d in answer.observer_log]
        print_table("", ("date", "database", "term", "decision"), rows, empty="The observer has decided nothing yet.")

    query = f"&database={quote(database)}" if database else ""
    decisions = await session.call("GET", f"/admin/cluster/observer/decisions?take={take}{query}", Decisions)
    if database and not decisions.shown.observer_log:
        # Decisions outlive their database. Where there are none, a misspelt name must not look like good news.
        await session.call("GET", f"/admin/databases?name={quote(database)}", Json)
    session.show(decisions, show)


@observer.command()
@talks
async def suspend(session: Session) -> None:
    """Suspend the observer: no node is demoted, no task moves because its node is lost."""
    answer = await session.call("POST", "/admin/cluster/observer/suspend?value=true", Committed)
    session.show(answer, "The observer is suspended. `raftnode observer resume` resumes it.")


@observer.command()
@talks
async def resume(session: Session) -> None:
    """Resume the observer."""
    answer = await session.call("POST", "/admin/cluster/observer/suspend?value=false", Committed)
    session.show(answer, "The observer is resumed.")
