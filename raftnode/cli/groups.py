"""`raftnode db add-node`, `promote`, `reorder`, `dynamic`, `lock`, `enable`, `disable`: groups and states."""

from urllib.parse import urlencode

import click

from raftnode.cli.cluster import Tag
from raftnode.cli.databases import db
from raftnode.cli.session import CommandFailed, Session, talks
from raftnode.record.model import Topology
from raftnode.web.views.base import Committed, Json
from raftnode.web.views.databases import GroupChanged, StatesSet

MODES = {"off": "Unlock", "error": "PreventDeletesError", "ignore": "PreventDeletesIgnore"}


@db.command("add-node")
@click.argument("name")
@click.argument("tag", type=Tag(), required=False)
@click.option("--mentor", type=Tag(), help="The Member that fills it.")
@talks
async def add_node(session: Session, name: str, tag: str | None, mentor: str | None) -> None:
    """Add a node to a database's group; without TAG, the one with the fewest databases. It is a Promotable until it has
    everything."""
    given = {"name": name, "node": tag, "mentor": mentor}
    query = urlencode({key: value for key, value in given.items() if value})
    answer = await session.call("PUT", f"/admin/databases/node?{query}", GroupChanged)
    session.show(answer, f"{_group(answer.shown)} A Promotable becomes a Member when it is filled.")


@db.command()
@click.argument("name")
@click.argument("tag", type=Tag())
@talks
async def promote(session: Session, name: str, tag: str) -> None:
    """Make a node of the group a Member at once, even if its copy is behind."""
    query = urlencode({"name": name, "node": tag})
    answer = await session.call("POST", f"/admin/databases/promote?{query}", GroupChanged)
    session.show(answer, _group(answer.shown))


@db.command()
@click.argument("name")
@click.argument("tags", type=Tag(), nargs=-1, required=True)
@click.option("--fixed", is_flag=True, help="Keep this order also when nodes are demoted and come back.")
@talks
async def reorder(session: Session, name: str, tags: tuple[str, ...], fixed: bool) -> None:
    """Put the Members into this order; the first is the preferred node."""
    body = {"MembersOrder": tags, "Fixed": fixed}
    answer = await session.call("POST", f"/admin/databases/reorder?{urlencode({'name': name})}", Committed, json=body)
    session.show(answer, f"The Members of {name} are in the order {', '.join(tags)}.")


@db.command()
@click.argument("name")
@click.argument("state", type=click.Choice(["on", "off"]))
@talks
async def dynamic(session: Session, name: str, state: str) -> None:
    """Whether the observer may replace a node of the group that stays away."""
    query = urlencode({"name": name, "enable": str(state == "on").lower()})
    answer = await session.call("POST", f"/admin/databases/dynamic-node-distribution?{query}", Committed)
    may = "replaces" if state == "on" else "does not replace"
    session.show(answer, f"The observer {may} nodes of {name} that stay away.")


@db.command()
@click.argument("name")
@click.argument("mode", type=click.Choice(list(MODES)))
@talks
async def lock(session: Session, name: str, mode: str) -> None:
    """Lock a database against deletion: `error` refuses it, `ignore` lets it do nothing, `off` allows it."""
    body = {"DatabaseNames": [name], "Mode": MODES[mode]}
    answer = await session.call("POST", "/admin/databases/set-lock", Committed, json=body)
    session.show(answer, f"The lock mode of {name} is {MODES[mode]}.")


@db.command()
@click.argument("name")
@talks
async def enable(session: Session, name: str) -> None:
    """Enable a database: it takes requests and runs its tasks."""
    await _set_state(session, name, "enable")


@db.command()
@click.argument("name")
@talks
async def disable(session: Session, name: str) -> None:
    """Disable a database: it takes no requests and runs no tasks; its files stay."""
    await _set_state(session, name, "disable")


async def _set_state(session: Session, name: str, verb: str) -> None:
    # Asked for first, as the answer to a change speaks of each name and is never a 404.
    await session.call("GET", f"/admin/databases?{urlencode({'name': name})}", Json)
    answer = await session.call("POST", f"/admin/databases/{verb}", StatesSet, json={"DatabaseNames": [name]})
    [done] = answer.shown.status
    if not done.success:
        raise CommandFailed(done.reason or "It was refused.")
    session.show(answer, f"Database {done.name} is {verb}d.")


def _group(answer: GroupChanged) -> str:
    group = answer.topology or Topology()
    states = (("Members", group.members), ("Promotables", group.promotables), ("Rehabs", group.rehabs))
    parts = [f"{state}: {', '.join(tags)}" for state, tags in states if tags]
    return f"The group of {answer.name} has {'; '.join(parts)}."
