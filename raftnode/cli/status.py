"""`raftnode status` and `raftnode tasks`: who does what, and why."""

import asyncio
import contextlib
import json
import time
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from raftnode.cli.session import CommandFailed, NotFound, Session, talks
from raftnode.cli.tables import console, table

PERIOD_SEC = 0.5
COLOURS = {"Held": "green", "Released": "yellow", "Void": "red", "Running": "green", "Member": "green", "Rehab": "red"}
TASK_COLUMNS = ("task", "kind", "responsible", "rule", "holder", "epoch", "state", "progress")


@click.command()
@click.option("--watch", is_flag=True, help="Show it anew until Ctrl-C.")
@click.option("--database", metavar="NAME", help="Only this database.")
@talks
async def status(session: Session, watch: bool, database: str | None) -> None:
    """Show the node, the cluster, the databases and their tasks, with reasons."""
    if not watch:
        session.show(await _status(session, database), lambda answer: console().print(_everything(answer, session.url)))
        return
    with contextlib.suppress(asyncio.CancelledError):
        await (_stream(session, database) if session.as_json else _watch(session, database))


@click.command()
@click.option("--database", metavar="NAME", help="Only this database.")
@talks
async def tasks(session: Session, database: str | None) -> None:
    """List the ongoing tasks: who is responsible by which rule, who holds them, how far they are."""
    answer = await _status(session, database)
    if session.as_json:
        shown = {name: found["Tasks"] for name, found in answer["Databases"].items()}
        session.show(shown, "")
        return
    databases = answer["Databases"].values()
    parts = [_tasks(found, title=found["Name"]) for found in databases if found["Tasks"]]
    console().print(Group(*parts) if parts else "No tasks.")


async def _status(session: Session, database: str | None) -> dict[str, Any]:
    answer: dict[str, Any] = await session.call("GET", "/status" + (f"?database={database}" if database else ""))
    if database and not answer["Databases"]:
        raise NotFound(f"There is no database '{database}'; `raftnode db list` shows those there are.")
    return answer


async def _watch(session: Session, database: str | None) -> None:
    with Live(console=console(), auto_refresh=False, screen=True) as live:
        while True:
            try:
                live.update(_everything(await _status(session, database), session.url), refresh=True)
            except CommandFailed as failure:
                live.update(f"[red]{escape(failure.message)}[/]", refresh=True)
            await asyncio.sleep(PERIOD_SEC)


async def _stream(session: Session, database: str | None) -> None:
    """One line a look, with the time of it."""
    while True:
        answer = await _status(session, database)
        click.echo(json.dumps({"At": time.time()} | answer))
        await asyncio.sleep(PERIOD_SEC)


def _everything(answer: dict[str, Any], url: str) -> RenderableType:
    databases = answer["Databases"].values()
    return Group(_node(answer["Node"], url), _nodes(answer), *(_database(database) for database in databases))


def _node(node: dict[str, Any], url: str) -> RenderableType:
    left = node["LeaseLeftMs"]
    lease = "lease without end" if left is None else f"lease {left} ms" if node["HasLease"] else "[red]no lease[/]"
    leader = node["Leader"] or "none known"
    head = (
        f"[bold]{node['Tag']}[/] at {url}: {_coloured(node['Role'])}, leader {leader}, term {node['Term']}, {lease},"
        f" applied {node['AppliedIndex']} of {node['CommitIndex']}"
    )
    return Group(head, *(f"  [yellow]{escape(reason)}[/]" for reason in node["NotReady"]))


def _nodes(answer: dict[str, Any]) -> Table:
    leader = answer["Node"]["Leader"]
    rows = []
    for tag, node in answer["Cluster"]["Nodes"].items():
        marks = ["leader"] * (tag == leader) + ["[red]silent[/]"] * bool(node["Silent"])
        marks += ["draining"] * bool(node["Draining"])
        rows.append((tag, node["Kind"], node["Url"], ", ".join(marks)))
    suspended = "  [yellow]the observer is suspended[/]" if answer["Cluster"]["ObserverSuspended"] else ""
    return table(f"cluster{suspended}", ("node", "kind", "address", ""), rows)


def _database(database: dict[str, Any]) -> RenderableType:
    topology = database["Topology"]
    rows = []
    for state in ("Members", "Rehabs", "Promotables"):
        for tag in topology[state]:
            mentor = database["Mentors"].get(tag)
            status = topology["PromotablesStatus"].get(tag, "")
            filled = f"filled by {mentor}" if mentor and state != "Members" else ""
            why = "; ".join(part for part in (topology["DemotionReasons"].get(tag, ""), status, filled) if part)
            rows.append((tag, _coloured(state.removesuffix("s")), escape(why)))
    disabled = "  [yellow]disabled[/]" if database["Disabled"] else ""
    group = table(f"\ndatabase [bold]{escape(database['Name'])}[/]{disabled}", ("node", "state", "why"), rows)
    return Group(group, _tasks(database)) if database["Tasks"] else group


def _tasks(database: dict[str, Any], title: str = "") -> Table:
    return table(escape(title), TASK_COLUMNS, [_task_row(task) for task in database["Tasks"]])


def _task_row(task: dict[str, Any]) -> tuple[str, ...]:
    placement, run = task["Placement"], task["RunHere"]
    holder = task["Holder"] or (f"({task['LastHolder']} before)" if task["LastHolder"] else "")
    state = _coloured(task["ClaimState"] or "NotClaimed")
    if task["TaskState"] != "Enabled":
        state = f"[yellow]{task['TaskState']}[/]"
    if run is not None:
        state += f", {_coloured(str(run['State']))} here"
    progress = task["Progress"]
    done = f"{progress['Processed']:,} documents" if progress else ""
    return (
        escape(task["TaskName"]),
        task["TaskType"],
        placement["Node"] or "[red]nobody[/]",
        placement["Rule"],
        holder,
        str(task["Epoch"] or ""),
        state,
        done,
    )


def _coloured(word: str) -> str:
    colour = COLOURS.get(word)
    return f"[{colour}]{word}[/]" if colour else word
