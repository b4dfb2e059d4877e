"""`raftnode why`, `what-if`, `drain` and `node traits` against a real node."""

import asyncio
import json

import pytest
from click.testing import CliRunner, Result

from raftnode.cli.main import cli
from raftnode.cli.session import FAILING
from tests.unit.web.client import Client
from tests.unit.web.routes import ROUTES


@pytest.fixture(autouse=True)
async def shop(client: Client) -> None:
    await client.database()
    bodies = {route.id: route.body for route in ROUTES}
    target = bodies["PUT", "/databases/{database}/admin/connection-strings"] | {"Name": "target"}
    assert (await client.put("/databases/Shop/admin/connection-strings", target)).status == 200
    etl = bodies["PUT", "/databases/{database}/admin/etl"]
    changes = {"Name": "orders", "Disabled": False, "PinToMentorNode": True, "Requires": []}
    assert (await client.put("/databases/Shop/admin/etl", etl | changes)).status == 201


async def run(client: Client, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, cli, [*arguments, "--url", client.url])


async def test_why_shows_the_rule_the_ranking_and_the_cause(client: Client) -> None:
    shown = await run(client, "why", "orders")
    assert shown.exit_code in (0, FAILING), shown.output
    for part in ("PinnedMentor", "It is pinned to A", "Task 'orders' was added", "ruled out"):
        assert part in shown.output
    answer = json.loads((await run(client, "why", "ORDERS", "--json")).output)
    assert answer["Placement"]["Node"] == "A"
    assert (await run(client, "why", "nope")).exit_code == 4


async def test_what_if_shows_what_would_move_and_wait(client: Client) -> None:
    shown = await run(client, "what-if", "--drain", "a", "--weight", "A=2", "--labels", "A=ssd,eu", "--add", "B")
    assert shown.exit_code == 0, shown.output
    assert "No task moves." in shown.output
    assert "it is pinned, and A would drain" in shown.output
    assert (await run(client, "what-if", "--lost", "Z")).exit_code == 4
    assert (await run(client, "what-if", "--weight", "A")).exit_code == 2
    assert (await run(client, "what-if", "--weight", "A=x")).exit_code == 2
    assert (await run(client, "what-if", "--database", "nope")).exit_code == 4
    assert client.node.replica.record.nodes["A"].draining is False


async def test_a_node_is_drained_and_takes_part_again(client: Client) -> None:
    drained = await run(client, "drain", "A")
    assert "is drained: its tasks move" in drained.output
    assert "it is pinned" in drained.output
    assert client.node.replica.record.nodes["A"].draining is True
    assert "takes tasks again" in (await run(client, "drain", "A", "--off")).output
    assert client.node.replica.record.nodes["A"].draining is False


async def test_a_nodes_weight_and_labels_are_set(client: Client) -> None:
    shown = await run(client, "node", "traits", "A", "--weight", "3", "--labels", "ssd,eu")
    assert "weight 3 and the labels ssd, eu" in shown.output
    assert "(none)" in (await run(client, "node", "traits", "A", "--labels", "")).output
    assert (await run(client, "node", "traits", "A")).exit_code == 2
