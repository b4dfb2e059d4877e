"""`raftnode why`, `what-if`, `drain` and `node traits`: where tasks are, where they would be, and what decides it."""

from typing import Any
from urllib.parse import quote, urlencode

import click
from rich.markup import escape

from raftnode.cli.cluster import Tag, node
from raftnode.cli.session import Session, find_task, talks
from raftnode.cli.status import coloured, end_by, fares, show_quorum, trouble
from raftnode.cli.tables import console, counted, epoch, moment, print_table

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
            self.fail(f"the weight {given!r} is no whole number.", param, ctx)
        return tag, given


@click.command()
@click.argument("task")
@IN_DATABASE
@click.option("--all", "everything", is_flag=True, help="Every run that is kept.")
@talks
async def why(session: Session, task: str, database: str | None, everything: bool) -> None:
    """Say why a task is where it is: the rule, the ranking, what put it there, and its runs."""
    name, found = await find_task(session, task, database)
    given = found["TaskName"] if found["TaskType"] == "Update" else found["TaskId"]
    path = f"/databases/{quote(name, safe='')}/tasks/{quote(str(given), safe='')}/why"
    answer = await session.call("GET", f"{path}?type={found['TaskType']}")
    session.show(answer, lambda answer: _show_why(answer, everything))
    end_by(answer["Quorum"], [answer])


@click.command("what-if")
@click.option("--lost", multiple=True, type=Tag(), metavar="TAG", help="This node were lost.")
@click.option("--add", "added", multiple=True, type=Tag(), metavar="TAG", help="This node joined the groups.")
@click.option("--drain", "drained", multiple=True, type=Tag(), metavar="TAG", help="This node were drained.")
@click.option("--undrain", "undrained", multiple=True, type=Tag(), metavar="TAG", help="It took part again.")
@click.option("--weight", "weights", multiple=True, type=TagWeight(), help="This node had this weight.")
@click.option("--labels", multiple=True, type=TagAnd(), help="This node had these labels (A=ssd,eu).")
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
    supposed: dict[str, Any] = {
        "Lost": lost,
        "Added": [{"Tag": tag} for tag in added],
        "Drained": drained,
        "Undrained": undrained,
        "Weights": {tag: int(weight) for tag, weight in weights},
        "Labels": {tag: _labels(given) for tag, given in labels},
    }
    if databases:
        supposed["Databases"] = databases
    answer = await session.call("POST", "/cluster/what-if", json=supposed)
    session.show(answer, _show_forecast)
    end_by(answer["Quorum"], [])


@click.command()
@click.argument("tag", type=Tag())
@click.option("--off", is_flag=True, help="Let it take part again.")
@talks
async def drain(session: Session, tag: str, off: bool) -> None:
    """Hand a node's tasks over, before it is stopped; lists what moves and what waits."""
    answer = await session.call("POST", f"/admin/cluster/{'undrain' if off else 'drain'}?nodeTag={tag}")

    def show(answer: dict[str, Any]) -> None:
        click.echo(f"Node {tag} {'takes part again' if off else 'hands its tasks over'}.")
        _show_forecast(answer)

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
    answer = await session.call("POST", f"/admin/cluster/node/traits?{query}")

    def show(answer: dict[str, Any]) -> None:
        now = answer["Node"]
        click.echo(f"Node {tag} has weight {now['Weight']} and the labels {', '.join(now['Labels']) or '(none)'}.")
        _show_forecast(answer)

    session.show(answer, show)


def _labels(given: str) -> list[str]:
    return [label.strip() for label in given.split(",") if label.strip()]


def _show_why(answer: dict[str, Any], everything: bool) -> None:
    placement, cause = answer["Placement"], answer["Cause"]
    out = console()
    show_quorum(answer["Quorum"])
    out.print(f"[bold]{escape(answer['TaskName'])}[/] ({placement['Rule']}): {escape(answer['Because'])}")
    out.print(", ".join(part for part in (coloured(answer["State"]), fares(answer)) if part))
    for reason in trouble(answer):
        out.print(f"  {reason}")
    out.print(escape(cause["Sentence"]))
    for decision in answer["Decisions"]:
        out.print(f"  {moment(decision['At'])} {escape(decision['Message'])}")
    ranking = [(r["Node"], r["State"], r["Score"], r["RuledOut"] or "") for r in placement["Ranking"]]
    print_table("", ("node", "state", "score", "ruled out"), ranking, empty="The group is empty.")
    runs = [(epoch(r["Epoch"]), r["Node"], r["State"], escape(r["Reason"] or "")) for r in answer["Runs"]]
    shown = runs if everything else runs[:RUNS_SHOWN]
    print_table("", ("epoch", "node", "run", "why it ended"), shown, empty="It has not run yet.")
    if len(shown) < len(runs):
        out.print(f"and {counted(len(runs) - len(shown), 'run')} before these: --all")


def _show_forecast(answer: dict[str, Any]) -> None:
    show_quorum(answer.get("Quorum") or {"Sentence": None})
    moves = [
        (escape(fate["Database"]), escape(fate["TaskName"]), fate["From"] or "nobody", fate["To"], fate["Rule"])
        for fate in answer["Moves"]
    ]
    print_table("", ("database", "moves", "from", "to", "rule"), moves, empty="No task moves.")
    waits = [(escape(fate["Database"]), escape(fate["TaskName"]), escape(fate["Reason"])) for fate in answer["Waits"]]
    print_table("", ("database", "waits", "why"), waits, empty="No task waits.")
