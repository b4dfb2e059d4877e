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

from raftnode.cli.session import FAILING, CommandFailed, NotFound, NotNow, Session, talks
from raftnode.cli.tables import console, epoch, table

PERIOD_SEC = 0.5
COLOURS = {
    "Running": "green", "Error": "red", "HeldBack": "red", "NoNode": "red", "NotRunning": "red", "Unknown": "yellow",
    "NotClaimed": "yellow", "Disabled": "yellow", "Member": "green", "Rehab": "red",
}  # fmt: skip
TASK_COLUMNS = ("task", "kind", "responsible", "rule", "holder", "epoch", "state", "progress")
FAULTS = ("Error", "HeldBack", "NoNode", "NotRunning")
"""States of a task that is not well. One that is only being moved, or whose node does not answer at once, may be."""


@click.command()
@click.option("--watch", is_flag=True, help="Refresh it until Ctrl-C.")
@click.option("--database", metavar="NAME", help="Only this database.")
@talks
async def status(session: Session, watch: bool, database: str | None) -> None:
    """Show the node, the cluster, the databases and their tasks, with reasons."""
    if not watch:
        answer = await _status(session, database)
        session.show(answer, lambda answer: console().print(_everything(answer, session.url)))
        end_by(answer["Cluster"]["Quorum"], _all_tasks(answer))
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
    else:
        databases = answer["Databases"].values()
        parts = [_tasks(found, title=found["Name"]) for found in databases if found["Tasks"]]
        console().print(Group(*_quorum(answer["Cluster"]["Quorum"]), *(parts or ["No tasks."])))
    end_by(answer["Cluster"]["Quorum"], _all_tasks(answer))


def end_by(quorum: dict[str, Any], tasks: list[dict[str, Any]]) -> None:
    """End the command with a code for scripts when there is no leader, or one of the tasks fails."""
    if quorum["Leader"] is None:
        if click.get_current_context().params.get("as_json"):
            click.echo(f"raftnode: {quorum['Sentence']}", err=True)
        raise click.exceptions.Exit(NotNow.exit_code)
    if any(fails(task) for task in tasks):
        raise click.exceptions.Exit(FAILING)


def fails(task: dict[str, Any]) -> bool:
    """Whether a task is held up, was when it last told, or has passed documents over. One that is off on purpose is
    well."""
    held_up = task["State"] in FAULTS or task["Error"] or task["Failed"]
    return task["State"] != "Disabled" and bool(held_up)


def _all_tasks(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [task for database in answer["Databases"].values() for task in database["Tasks"]]


def show_quorum(quorum: dict[str, Any]) -> None:
    """Say that there is no leader, and what that means, if so."""
    for line in _quorum(quorum):
        console().print(line)


def _quorum(quorum: dict[str, Any]) -> list[RenderableType]:
    return [f"[bold red]{escape(quorum['Sentence'])}[/]"] if quorum["Sentence"] else []


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
    head = (*_quorum(answer["Cluster"]["Quorum"]), _node(answer["Node"], url), _nodes(answer))
    return Group(*head, *(_database(database) for database in databases))


def _node(node: dict[str, Any], url: str) -> RenderableType:
    left = node["LeaseLeftMs"]
    lease = "lease without end" if left is None else f"lease {left} ms" if node["HasLease"] else "[red]no lease[/]"
    leader = node["Leader"] or "none known"
    head = (
        f"[bold]{node['Tag']}[/] at {url}: {coloured(node['Role'])}, leader {leader}, term {node['Term']}, {lease},"
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
            rows.append((tag, coloured(state.removesuffix("s")), escape(why)))
    disabled = "  [yellow]disabled[/]" if database["Disabled"] else ""
    group = table(f"\ndatabase [bold]{escape(database['Name'])}[/]{disabled}", ("node", "state", "why"), rows)
    return Group(group, _tasks(database)) if database["Tasks"] else group


def _tasks(database: dict[str, Any], title: str = "") -> RenderableType:
    """The table, and below it why tasks are not well."""
    found = database["Tasks"]
    below = [f"  {escape(task['TaskName'])}: {reason}" for task in found for reason in trouble(task)]
    return Group(table(escape(title), TASK_COLUMNS, [_task_row(task) for task in found]), *below)


def trouble(task: dict[str, Any]) -> list[str]:
    """Why the task is not well, one line each, as markup."""
    on = [f"on {task['Holder']}"] if task["Holder"] else []
    told = [] if task["State"] in ("Error", "HeldBack") else ["when it last told"]
    where = f" ({', '.join([*on, *told])})" if on or told else ""
    return [
        *([f"[red]{escape(task['Error'])}[/]{where}"] if task["Error"] else []),
        *([f"[yellow]{escape(task['Unknown'])}[/]"] if task["Unknown"] else []),
        *([f"[yellow]{_failed(task)}[/]; raftnode task failed {escape(task['TaskName'])}"] if task["Failed"] else []),
    ]


def fares(task: dict[str, Any]) -> str:
    """How far a task is: "up to date", "12 behind", "up to date, 1 failed"."""
    behind, parts = task["Behind"], []
    if task["State"] == "Unknown":
        parts = ["not known"]
    elif behind is not None:
        parts = [f"{behind:,} behind" if behind else "up to date"]
    return ", ".join([*parts, *([f"{task['Failed']:,} failed"] if task["Failed"] else [])])


def _failed(task: dict[str, Any]) -> str:
    count = task["Failed"]
    return f"{count:,} document{'s are' if count > 1 else ' is'} passed over"


def _task_row(task: dict[str, Any]) -> tuple[str, ...]:
    placement = task["Placement"]
    holder = task["Holder"] or (f"({task['LastHolder']} before)" if task["LastHolder"] else "")
    state = coloured(task["State"])
    if task["TaskState"] == "PartiallyEnabled":
        state += ", [yellow]in part[/]"
    return (
        escape(task["TaskName"]),
        task["TaskType"],
        placement["Node"] or "[red]nobody[/]",
        placement["Rule"],
        holder,
        epoch(task["Epoch"]),
        state,
        fares(task),
    )


def coloured(word: str) -> str:
    colour = COLOURS.get(word)
    return f"[{colour}]{word}[/]" if colour else word
