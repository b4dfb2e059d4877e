"""Scenarios 23, 25 and 29: pins of every kind over HTTP and the command line, and what there is none of here."""

import asyncio

import pytest
from click.testing import CliRunner

from raftnode.cli.main import cli
from tests.harness.samples import CONNECTIONS, TASKS
from tests.unit.web.client import Client

DB = "/databases/Shop"


@pytest.fixture(autouse=True)
async def shop(client: Client) -> None:
    assert (await client.put("/admin/databases?name=Shop")).status == 201
    for connection in CONNECTIONS:
        assert (await client.put(f"{DB}/admin/connection-strings", connection)).status == 200


@pytest.mark.parametrize("kind", TASKS)
async def test_scenario_23_a_pin_is_set_with_the_task_or_without_editing_it_and_read_back(
    client: Client, kind: str
) -> None:
    """RavenDB's are subscriptions, which this version has not, backups and external replication; here all kinds."""
    given = TASKS[kind] | {"TaskType": kind, "Name": "pinned", "MentorNode": "A", "PinToMentorNode": True}
    reply = await client.put(f"{DB}/admin/tasks", given)
    assert (reply.status, reply.json["ResponsibleNode"]) == (201, "A"), reply.text
    id = reply.json["TaskId"]

    async def pin() -> tuple[object, ...]:
        info = (await client.get(f"{DB}/task?key={id}&type={kind}")).json
        configuration = info.get("Configuration", info)
        assert (info["MentorNode"], info["PinToMentorNode"]) == (
            configuration["MentorNode"], configuration["PinToMentorNode"]
        )  # fmt: skip
        return info["MentorNode"], info["PinToMentorNode"], info["Placement"]["Rule"]

    async def run(*arguments: str) -> str:
        done = await asyncio.to_thread(CliRunner().invoke, cli, [*arguments, "--url", client.url])
        assert done.exit_code == 0, done.output
        return done.output

    assert await pin() == ("A", True, "PinnedMentor")
    assert (await client.post(f"{DB}/admin/tasks/pin?key={id}")).status == 200
    assert (await pin())[:2] == (None, False)
    assert (await client.post(f"{DB}/admin/tasks/pin?key={id}&pinned=true")).json["ResponsibleNode"] == "A"
    assert await pin() == ("A", True, "PinnedMentor")
    assert "pinned prefers A" in await run("pin", "pinned", "A", "--prefer")
    assert await pin() == ("A", False, "Mentor")
    assert "is free to run anywhere" in await run("pin", "pinned", "--off")
    assert "pinned is pinned to A" in await run("pin", "pinned")
    assert await pin() == ("A", True, "PinnedMentor")


async def test_scenario_25_there_are_no_server_wide_tasks(client: Client) -> None:
    """RavenDB copies a server-wide task, with its mentor and pin, to each database. This version has none: a client
    that asks for one is told so."""
    for path in ("external-replication", "backup"):
        refused = await client.put(f"/admin/configuration/server-wide/{path}", {"MentorNode": "A"})
        assert (refused.status, refused.json["Type"].rpartition(".")[2]) == (404, "RouteNotFoundException")


async def test_scenario_29_there_are_no_sharded_databases(client: Client) -> None:
    """RavenDB refuses a mentor for some tasks of a sharded database. Here no such database is made."""
    sharded = {"Sharding": {"Shards": {"0": {"Members": ["A"]}}}}
    refused = await client.put("/admin/databases?name=Sharded", sharded)
    assert refused.status in (400, 501)
    assert "'Sharding' in a new database's record is not supported" in refused.message
    assert (await client.get("/admin/databases?name=Sharded")).status == 404
