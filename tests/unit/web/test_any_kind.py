"""A kind of anybody's, of any name: its tasks and connection strings, through the doors that all kinds share."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from raftnode.cli.main import cli
from raftnode.foundation.masking import MASK
from raftnode.record.model import Database
from raftnode.record.ownership import task_key
from tasks.kinds import registry
from tasks.kinds.registry import ConfigurationError, TaskDefinition
from tasks.runtime.context import TaskContext
from tests.unit.web.client import Client
from tests.unit.web.conftest import running, settings_in
from tests.unit.web.test_two_nodes import eventually

DB = "/databases/Shop"
ENDPOINT = {"Name": "shop", "Type": "Endpoint", "Url": "http://shop", "Password": "s3cret"}
POLLER = {"TaskType": "HttpPoller", "Name": "prices", "ConnectionStringName": "shop", "EverySec": 60}


class HttpPoller:
    """Looks at an endpoint at intervals; this one only says with what it was told to."""

    name = "HTTPPoller"
    """As its author spells it. Nodes call it as its entry point does."""
    connection_type = "Endpoint"

    def parse(self, configuration: Mapping[str, Any], database: Database) -> TaskDefinition:
        if not isinstance(configuration.get("EverySec"), int):
            raise ConfigurationError("EverySec", "is not a whole number; give the seconds between two looks")
        name = str(configuration["Name"])
        return TaskDefinition(
            name=name,
            kind=self.name,
            key=task_key(self.name, name),
            configuration=b"[]" if configuration.get("Odd") else json.dumps(dict(configuration)).encode(),
            disabled=bool(configuration.get("Disabled")),
            connection_string=configuration["ConnectionStringName"],
        )

    def parse_connection(self, configuration: Mapping[str, Any], database: Database) -> None:
        if "Url" not in configuration:
            raise ConfigurationError("Url", f"is missing; add where {database.name} is polled from")

    async def run(self, context: TaskContext) -> None:
        connection = json.loads(context.run.connection or b"{}")
        while True:
            context.info.error = f"{connection['Url']} with {connection['Password']}"
            await context.sleep(json.loads(context.run.task.configuration)["EverySec"])


KIND = HttpPoller()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(registry.BUILT_IN, "http_poller", f"{__name__}:KIND")
    registry._entry_points.cache_clear()
    yield
    registry._entry_points.cache_clear()


@pytest.fixture
async def shop(registered: None, tmp_path: Path) -> AsyncIterator[Client]:
    async with running(settings_in(tmp_path / "data")) as client:
        await client.database()
        reply = await client.put(f"{DB}/admin/connection-strings", ENDPOINT)
        assert reply.status == 200, reply.text
        yield client


async def info(client: Client, **query: Any) -> Any:
    values = "&".join(f"{name}={value}" for name, value in query.items())
    return (await client.get(f"{DB}/task?{values}")).json


async def runs(client: Client) -> bool:
    run = (await info(client, taskName="prices"))["Run"]
    return bool(run and run["Error"] == "http://shop with s3cret")


async def test_a_task_of_it_is_put_run_shown_edited_reset_and_deleted(shop: Client) -> None:
    put = await shop.put(f"{DB}/admin/tasks", POLLER)
    assert put.status == 201, put.text
    assert put.json["Warnings"] == []
    id = put.json["TaskId"]
    await eventually("its body runs with its connection string", lambda: runs(shop))
    shown = await info(shop, key=id, type="HttpPoller")
    assert (shown["TaskType"], shown["TaskState"], shown["Placement"]["Rule"]) == ("HttpPoller", "Enabled", "Hash")
    assert shown["Configuration"] | POLLER == shown["Configuration"]
    [listed] = (await shop.get(f"{DB}/tasks")).json["OngoingTasks"]
    assert (listed["TaskId"], listed["Configuration"]["EverySec"]) == (id, 60)
    edited = await shop.put(f"{DB}/admin/tasks?id={id}", POLLER | {"EverySec": 5}, **{"If-Match": f'"{shown["Etag"]}"'})
    assert (edited.status, edited.json["TaskId"]) == (200, id)
    assert (await info(shop, key=id))["Configuration"]["EverySec"] == 5
    generation = (await info(shop, key=id))["Progress"]["Generation"]
    assert (await shop.post(f"{DB}/admin/tasks/reset?key={id}&type=HttpPoller")).json["TaskId"] == id
    assert (await info(shop, key=id))["Progress"]["Generation"] > generation
    assert (await shop.delete(f"{DB}/admin/tasks?id={id}&type=HttpPoller")).status == 200
    assert (await shop.get(f"{DB}/tasks")).json["OngoingTasks"] == []


async def test_its_connection_strings_and_tasks_have_sections_of_their_own(shop: Client) -> None:
    assert "used" not in (await shop.put(f"{DB}/admin/tasks", POLLER)).text
    record = (await shop.get("/admin/databases?name=Shop")).json
    assert record["EndpointConnectionStrings"] == {"shop": ENDPOINT | {"Password": MASK}}
    assert [task["Name"] for task in record["HttpPollers"]] == ["prices"]
    assert record["SqlEtls"] == record["PeriodicBackups"] == []
    strings = (await shop.get(f"{DB}/admin/connection-strings?type=Endpoint")).json
    assert [user["Kind"] for user in strings["EndpointConnectionStrings"]["shop"]["UsedBy"]] == ["HttpPoller"]
    bad = await shop.put(f"{DB}/admin/connection-strings", {"Name": "x", "Type": "Endpoint"})
    assert bad.message == "Url: is missing; add where Shop is polled from"
    unknown = await shop.put(f"{DB}/admin/connection-strings", {"Name": "x", "Type": "Carrier"})
    assert unknown.status == 501
    assert "This node has Endpoint, Raven, Sql." in unknown.message


@pytest.mark.parametrize(
    ("entry_point", "kind", "section"),
    [
        ("setting", "Setting", "SettingTasks"),
        ("sql_connection_string", "SqlConnectionString", "SqlConnectionStringTasks"),
        ("index", "Index", "Indexs"),
        ("s3_étl", "S3Étl", "S3Étls"),
    ],
)
async def test_a_kind_of_any_name_has_a_section_that_is_no_other_field(
    monkeypatch: pytest.MonkeyPatch, shop: Client, entry_point: str, kind: str, section: str
) -> None:
    before = (await shop.get("/admin/databases?name=Shop")).json
    monkeypatch.setitem(registry.BUILT_IN, entry_point, f"{__name__}:KIND")
    registry._entry_points.cache_clear()
    put = await shop.put(f"{DB}/admin/tasks", POLLER | {"TaskType": kind})
    assert put.status == 201, put.text
    reply = await shop.get("/admin/databases?name=Shop")
    fields = [name for name, _ in json.loads(reply.text, object_pairs_hook=list)]
    assert sorted(set(fields)) == sorted(fields)
    assert [task["Name"] for task in reply.json[section]] == ["prices"]
    assert reply.json | before | {"Etag": reply.json["Etag"]} == reply.json


async def test_a_kind_whose_name_cannot_be_one_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, shop: Client
) -> None:
    for entry_point in ("my-poller", "a/b", "shop.poller"):
        monkeypatch.setitem(registry.BUILT_IN, entry_point, f"{__name__}:KIND")
    registry._entry_points.cache_clear()
    for kind in ("My-poller", "A/b", "Shop.poller"):
        reply = await shop.put(f"{DB}/admin/tasks", POLLER | {"TaskType": kind})
        assert reply.status == 400
        assert f"TaskType: '{kind}' may have letters and digits only; name its entry point" in reply.message


async def test_what_is_wrong_with_a_task_is_named(shop: Client) -> None:
    for given, says in (
        ({"Name": "x"}, "'TaskType' is missing. Add the task's kind; this node knows: "),
        (POLLER | {"TaskType": "Pigeon"}, "no node of the cluster has the task kind 'Pigeon'"),
        (POLLER | {"TaskType": "Update"}, "add a node to the database instead"),
        (POLLER | {"EverySec": "often"}, "EverySec: is not a whole number"),
        (POLLER | {"Odd": True}, "returned a configuration that is not a JSON object"),
        (POLLER | {"TaskId": -1}, "'TaskId' is '-1'"),
    ):
        reply = await shop.put(f"{DB}/admin/tasks", given)
        assert reply.status == 400
        assert says in reply.message
    assert "There is no transform 't'" in (await shop.put(f"{DB}/admin/tasks?reset=t", POLLER)).message
    assert (await shop.get(f"{DB}/tasks")).json["OngoingTasks"] == []


async def test_the_command_line_puts_and_shows_it(shop: Client, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(cli, [*words, "--url", shop.url])
        assert result.exit_code == 0, result.output
        return result.output

    file = tmp_path / "task.json"
    file.write_text(json.dumps(POLLER))
    put = ("task", "put", str(file), "--database", "Shop")
    assert "Task prices is added; A is responsible for it." in await asyncio.to_thread(run, *put)
    told = await asyncio.to_thread(run, "task", "show", "prices", "--json")
    [shown] = [json.loads(line) for line in told.splitlines() if line.startswith("{")]  # the node logs beside it
    assert shown == POLLER | {"Disabled": False, "MentorNode": None, "PinToMentorNode": False}
    file.write_text(json.dumps(shown | {"EverySec": 7}))
    assert "Task prices is edited" in await asyncio.to_thread(run, *put)
    assert (await info(shop, taskName="prices"))["Configuration"]["EverySec"] == 7
