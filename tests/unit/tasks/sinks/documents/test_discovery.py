"""Where another cluster's database is, asked of real HTTP servers on loopback."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from raftnode.cli.local_cluster import free_ports
from raftnode.foundation.http_client import HttpClient
from raftnode.web.requests import answer
from tasks.kinds.registry import TaskFailed
from tasks.sinks.documents.discovery import discover, reasons

MEMBERS = [{"Url": "http://a:1/", "ClusterTag": "A", "Database": "Shop"}, {"Url": "http://b:1", "ClusterTag": "B"}]


@pytest.fixture
async def node() -> AsyncIterator[str]:
    """A node that knows the database "Shop", and another that it knows in a way of its own."""

    async def topology(request: web.Request) -> web.Response:
        if request.query["name"] == "Shop & Co":
            return answer({"Nodes": MEMBERS, "Etag": 3})
        if request.query["name"] == "Odd":
            return answer({"Nodes": "everywhere"})
        return answer({"Type": "DatabaseDoesNotExistException", "Message": "create it"}, status=503)

    app = web.Application()
    app.add_routes([web.get("/topology", topology)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


async def test_the_members_come_first_then_the_given_addresses(node: str) -> None:
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    async with HttpClient() as http:
        found = await discover(http, "Shop & Co", [dead, f"{node}/", "http://b:1"])
    assert [(one.tag, one.url, one.database) for one in found] == [
        ("A", "http://a:1", "Shop & Co"),
        ("B", "http://b:1", "Shop & Co"),
        ("", dead, "Shop & Co"),
        ("", node, "Shop & Co"),
    ]


@pytest.mark.parametrize(("database", "says"), [("Nope", "create it"), ("Odd", "answers with no topology")])
async def test_every_reason_is_told_when_none_answers(node: str, database: str, says: str) -> None:
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    async with HttpClient() as http:
        with pytest.raises(TaskFailed) as failed:
            await discover(http, database, [dead, node])
    assert f"no node of database '{database}' can be found: {dead}: " in str(failed.value)
    assert f"; {node}: " in str(failed.value)
    assert says in str(failed.value)


def test_addresses_that_failed_in_the_same_way_are_told_together() -> None:
    assert reasons({"http://a": "no", "http://b": "gone", "http://c": "no"}) == "http://a, http://c: no; http://b: gone"
