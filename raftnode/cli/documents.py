"""`raftnode document ...`: reading documents, to see what is there."""

from urllib.parse import quote, urlencode

import click

from raftnode.cli.session import Answer, NoDocument, NotFound, Session, TryAgain, in_json, talks
from raftnode.cli.tables import print_table
from raftnode.foundation.http_client import HttpUnreachable
from raftnode.web.views.base import Json
from raftnode.web.views.databases import DatabaseTopology

DATABASE = click.option("--database", required=True, metavar="NAME", help="In this database.")


@click.group()
def document() -> None:
    """Documents: get, list."""


@document.command()
@click.argument("id")
@DATABASE
@talks
async def get(session: Session, id: str, database: str) -> None:
    """Print a document as JSON."""
    found = await _docs(session, database, {"id": id})
    if found is None:
        raise NotFound(f"Database '{database}' has no document '{id}'.")
    answer = Answer(found["Results"][0], found["Results"][0])
    session.show(answer, lambda shown: click.echo(in_json(shown, indent=2)))


@document.command("list")
@DATABASE
@click.option("--prefix", metavar="TEXT", help="Only those whose ids begin so, by id. Else the newest first.")
@click.option("--take", type=click.IntRange(1, 1000), default=25, show_default=True, help="How many.")
@talks
async def list_documents(session: Session, database: str, prefix: str | None, take: int) -> None:
    """List documents by id."""
    query = {"pageSize": str(take), "metadataOnly": "true"} | ({"startsWith": prefix} if prefix else {})
    found = await _docs(session, database, query)
    shown = [one["@metadata"] for one in (found or {"Results": []})["Results"]]

    def show(_: object) -> None:
        rows = [(m["@id"], m["@collection"], m["@last-modified"][:19], m["@change-vector"]) for m in shown]
        print_table("", ("id", "collection", "modified (UTC)", "change vector"), rows, empty="No documents.")

    session.show(Answer(shown, shown), show)


async def _docs(session: Session, database: str, query: dict[str, str]) -> Json | None:
    """The answer of a Member, None if there is no such document."""
    topology = await session.call("GET", f"/topology?{urlencode({'name': database})}", DatabaseTopology)
    path = f"/databases/{quote(database, safe='')}/docs?{urlencode(query)}"
    reason = "it has none"
    for url in session.and_given(node.url for node in topology.shown.nodes):
        try:
            return (await session.ask_at(url, "GET", path, Json)).shown
        except NoDocument:
            return None
        except (HttpUnreachable, TryAgain) as error:
            reason = str(error)
    raise TryAgain(f"No Member of database '{database}' returned it: {reason.rstrip('.')}. See `raftnode status`.")
