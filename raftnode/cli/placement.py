"""`raftnode why`, `what-if`, `drain` and `node traits`: where tasks are, where they would be, and what decides it."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlencode

import click
from rich.markup import escape

from raftnode.cli.cluster import Tag, node
from raftnode.cli.session import Session, find_task, talks
from raftnode.cli.status import coloured, end_by, fares, over, show_quorum, trouble
from raftnode.cli.tables import console, counted, epoch, moment, print_table
from raftnode.record.whatif import TaskMove
from raftnode.web.views.base import Json
from raftnode.web.views.cluster import NodeTraits, WhatIf
from raftnode.web.views.why import Why

IN_DATABASE = click.option("--database", metavar="NAME", help="The task's database, if its name is not unique.")


RUNS_SHOWN = 5


class TagAnd(click.ParamType[tuple[str, str]]):
    """A node's tag and what it is given: TAG=VALUE."""

    name = "tag=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """The tag and the value; a usage error for anything else."""
        if isinstance(value, tuple):
            return value
        tag, equals, given = str(value).partition("=")
        if not equals:
            self.fail(f"{value!r} is not TAG=VALUE, like B=2.", param, ctx)
        return Tag().convert(tag, param, ctx), given


class TagWeight(TagAnd):
    """A node's tag and its weight: TAG=WEIGHT."""

    name = "tag=weight"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """The tag and the weight, still as text; a usage error for anything else."""
        tag, given = super().convert(value, param, ctx)
        if not (given.isascii() and given.isdigit()):
            self.fail(f"the weight {given!r} is not a whole number.", param, ctx)
        return tag, given


@click.command()
@click.argument("task")
@IN_DATABASE
@click.option("--all", "everything", is_flag=True, help="Every run that is kept.")
@talks
async def why(session: Session, task: str, database: str | None, everything: bool) -> None:
    """Say why a task is where it is: the rule, the ranking, what put it there, and its runs."""
    name, found = await find_task(session, task, database)
    given = found.task_name if found.task_type == "Update" else found.task_id
    path = f"/databases/{quote(name, safe='')}/tasks/{quote(str(given), safe='')}/why"
    answer = await session.call("GET", f"{path}?type={found.task_type}", Why)
    session.show(answer, lambda shown: _show_why(shown, everything))
    end_by(answer.shown.quorum, [answer.shown])


@click.command("what-if")
@click.option("--lost", multiple=True, type=Tag(), metavar="TAG", help="If it were lost.")
@click.option("--add", "added", multiple=True, type=Tag(), metavar="TAG", help="If it were added to the groups.")
@click.option("--drain", "drained", multiple=True, type=Tag(), metavar="TAG", help="If it were drained.")
@click.option("--undrain", "undrained", multiple=True, type=Tag(), metavar="TAG", help="If it took part again.")
@click.option("--weight", "weights", multiple=True, type=TagWeight(), help="If it had this weight.")
@click.option("--labels", multiple=True, type=TagAnd(), help="If it had these labels (A=ssd,eu).")
@click.option("--database", "databases", multiple=True, metavar="NAME", help="Only this database.")
@talks
async def what_if(
    session: Session,
    lost: tuple[str, ...],
    added: tuple[str, ...],
    drained: tuple[str, ...],
    undrained: tuple[str, ...],
    weights: tuple[tuple[str, str], ...],
    labels: tuple[tuple[str, str], ...],
    databases: tuple[str, ...],
) -> None:
    """Say which tasks would move, and which would wait. Changes nothing; each option may be repeated."""
    supposed: Json = {
        "Lost": lost,
        "Added": [{"Tag": tag} for tag in added],
        "Drained": drained,
        "Undrained": undrained,
        "Weights": {tag: int(weight) for tag, weight in weights},
        "Labels": {tag: _labels(given) for tag, given in labels},
    }
    if databases:
        supposed["Databases"] = databases
    answer = await session.call("POST", "/cluster/what-if", WhatIf, json=supposed)

    def show(forecast: WhatIf) -> None:
        show_quorum(forecast.quorum)
        _show_moves(forecast.moves, forecast.waits)

    session.show(answer, show)
    end_by(answer.shown.quorum, [])


@click.command()
@click.argument("tag", type=Tag())
@click.option("--off", is_flag=True, help="End the drain: the node takes tasks again.")
@talks
async def drain(session: Session, tag: str, off: bool) -> None:
    """Hand a node's tasks over, before it is stopped; lists what moves and what waits."""
    answer = await session.call("POST", f"/admin/cluster/{'undrain' if off else 'drain'}?nodeTag={tag}", NodeTraits)

    def show(done: NodeTraits) -> None:
        click.echo(f"Node {tag} {'takes tasks again' if off else 'is drained: its tasks move'}.")
        _show_moves(done.moves, done.waits)

    session.show(answer, show)


@node.command()
@click.argument("tag", type=Tag())
@click.option("--weight", type=click.IntRange(1, 100), help="Twice the weight gets twice the tasks.")
@click.option("--labels", metavar="A,B", help="What tasks may require of it; empty for none.")
@talks
async def traits(session: Session, tag: str, weight: int | None, labels: str | None) -> None:
    """Set a node's weight, its labels, or both; lists what moves and what waits."""
    given = {"weight": weight, "labels": labels}
    if weight is None and labels is None:
        raise click.UsageError("Nothing is to be set: give --weight, --labels or both.")
    query = urlencode({"nodeTag": tag} | {name: value for name, value in given.items() if value is not None})
    answer = await session.call("POST", f"/admin/cluster/node/traits?{query}", NodeTraits)

    def show(done: NodeTraits) -> None:
        if done.node is not None:
            labels = ", ".join(done.node.labels) or "(none)"
            click.echo(f"Node {tag} has weight {done.node.weight} and the labels {labels}.")
        _show_moves(done.moves, done.waits)

    session.show(answer, show)


def _labels(given: str) -> list[str]:
    return [label.strip() for label in given.split(",") if label.strip()]


def _show_why(answer: Why, everything: bool) -> None:
    placement, cause = answer.placement, answer.cause
    out = console()
    show_quorum(answer.quorum)
    out.print(f"[bold]{escape(answer.task_name)}[/] ({placement.rule}): {escape(answer.because)}")
    out.print(", ".join(part for part in (coloured(answer.state), fares(answer)) if part))
    for reason in (*trouble(answer), *over(answer)):
        out.print(f"  {reason}")
    out.print(escape(cause.sentence))
    for decision in answer.decisions:
        out.print(f"  {moment(decision.at)} {escape(decision.message)}")
    ranking = [(r.node, r.state, r.score, r.ruled_out or "") for r in placement.ranking]
    print_table("", ("node", "state", "score", "ruled out"), ranking, empty="The group is empty.")
    runs = [(epoch(r.epoch), r.node, r.state, escape(r.reason or "")) for r in answer.runs]
    shown = runs if everything else runs[:RUNS_SHOWN]
    print_table("", ("epoch", "node", "run", "why it ended"), shown, empty="It has not run yet.")
    if len(shown) < len(runs):
        out.print(f"and {counted(len(runs) - len(shown), 'run')} before these: --all")


def _show_moves(moves: Iterable[TaskMove], waits: Iterable[TaskMove]) -> None:
    moving = [
        (escape(move.database), escape(move.task_name), move.source or "nobody", move.target or "nobody", move.rule)
        for move in moves
    ]
    print_table("", ("database", "moves", "from", "to", "rule"), moving, empty="No task moves.")
    waiting = [(escape(move.database), escape(move.task_name), escape(move.reason or "")) for move in waits]
    print_table("", ("database", "waits", "why"), waiting, empty="No task waits.")
