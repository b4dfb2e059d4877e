"""`raftnode cluster licence`: what the licence permits."""

from urllib.parse import urlencode

import click

from raftnode.cli.session import Session, talks
from raftnode.cli.tables import print_table
from raftnode.web.views.licence import LicenceChanged, LicenceFeatures, LicenceStatus

SWITCH = click.Choice(["on", "off"])
MEANINGS = (
    ("highly available tasks", "tasks move when their node is lost", "tasks wait for their node"),
    ("dynamic distribution", "copies that are lost for long are replaced", "no copy is replaced"),
)


@click.group()
def cluster() -> None:
    """The cluster as a whole: its licence."""


@cluster.command()
@click.option("--highly-available-tasks", "tasks", type=SWITCH, help="Whether tasks move when their node is lost.")
@click.option("--dynamic-distribution", "nodes", type=SWITCH, help="Whether copies that are lost are replaced.")
@talks
async def licence(session: Session, tasks: str | None, nodes: str | None) -> None:
    """Show what the licence permits, or set it."""
    given = {"highlyAvailableTasks": tasks, "dynamicNodesDistribution": nodes}
    query = urlencode({name: str(value == "on").lower() for name, value in given.items() if value is not None})
    if query:
        changed = await session.call("POST", f"/admin/license/features?{query}", LicenceChanged)
        session.show(changed, _show)
        return
    status = await session.call("GET", "/license/status", LicenceStatus)
    session.show(status, lambda shown: _show(_features(shown)))


def _features(status: LicenceStatus) -> LicenceFeatures:
    has = status.attributes
    return LicenceFeatures(
        highly_available_tasks=has["highlyAvailableTasks"], dynamic_nodes_distribution=has["dynamicNodesDistribution"]
    )


def _show(shown: LicenceFeatures) -> None:
    values = (shown.highly_available_tasks, shown.dynamic_nodes_distribution)
    rows = [
        (name, "on" if value else "[yellow]off[/]", yes if value else no)
        for (name, yes, no), value in zip(MEANINGS, values, strict=True)
    ]
    print_table("", ("feature", "", "meaning"), rows, empty="")
