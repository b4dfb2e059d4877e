"""Each command that reads an answer, against a real node: as text, and as the JSON that the node gave."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raftnode.cli.main import cli
from tests.unit.web.client import Client
from tests.unit.web.conftest import running, settings_in
from tests.unit.web.test_tasks import ETL

IN = ("--database", "Shop")
COMMANDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("status",), "lease without end"),
    (("tasks",), "orders"),
    (("why", "orders"), "A has the highest score of the nodes that may run it."),
    (("what-if", "--lost", "A"), "0 of 1 voters would be left"),
    (("what-if", "--add", "F", "--weight", "F=100"), "No task waits."),
    (("connection-string", "list", *IN), "target"),
    (("etl", "list"), "Orders"),
    (("etl", "show", "orders"), '"EtlType": "Sql"'),
    (("task", "show", "orders"), '"TaskType": "SqlEtl"'),
    (("task", "failed", "orders"), "No document is skipped."),
    (("task", "retry", "orders"), "has skipped no documents"),
    (("task", "disable", "orders"), "Task orders is disabled."),
    (("task", "enable", "orders"), "Task orders is enabled."),
    (("task", "reset", "orders", "--yes"), "Task orders starts again from the first document."),
    (("task", "reset", "orders", "--transform", "t", "--yes"), "Transform t of task orders starts again from the"),
    (("pin", "orders", "A"), "Task orders is pinned to A."),
    (("pin", "orders", "--off"), "Task orders is free to run anywhere."),
    (("pin", "orders"), "Task orders is pinned to A."),
    (("pin", "orders", "--off"), "Task orders is free to run anywhere."),
    (("node", "list"), "SqlEtl, Update"),
    (("node", "traits", "A", "--weight", "2", "--labels", "ssd"), "Node A has weight 2 and the labels ssd."),
    (("drain", "A"), "Node A is drained: its tasks move."),
    (("drain", "A", "--off"), "Node A takes tasks again."),
    (("observer", "log"), "The observer has decided nothing yet."),
    (("observer", "suspend"), "The observer is suspended."),
    (("observer", "resume"), "The observer is resumed."),
    (("document", "list", *IN), "orders/1"),
    (("document", "get", "orders/1", *IN), '"Company": "x"'),
    (("cluster", "licence"), "copies that are lost for long are replaced"),
    (("cluster", "licence", "--highly-available-tasks", "off"), "tasks wait for their node"),
    (("cluster", "licence", "--highly-available-tasks", "on"), "tasks move when their node is lost"),
    (("cluster", "licence", "--dynamic-distribution", "off"), "no copy is replaced"),
    (("db", "list"), "Shop"),
    (("db", "reorder", "Shop", "A"), "The Members of Shop are in the order A."),
    (("db", "promote", "Shop", "A"), "The group of Shop has Members: A."),
    (("db", "dynamic", "Shop", "on"), "The observer replaces nodes of Shop that stay away."),
    (("db", "lock", "Shop", "ignore"), "The lock mode of Shop is PreventDeletesIgnore."),
    (("db", "delete", "SHOP", "--yes"), "Nothing is deleted: the lock mode of SHOP is PreventDeletesIgnore."),
    (("db", "lock", "Shop", "off"), "The lock mode of Shop is Unlock."),
    (("db", "disable", "Shop"), "Database Shop is disabled."),
    (("db", "enable", "Shop"), "Database Shop is enabled."),
    (("db", "removed"), "gone"),
    (("node", "promote", "A"), "Node A votes now."),
)


@pytest.fixture(autouse=True)
async def shop(client: Client, tmp_path: Path) -> None:
    target = {
        "Type": "Sql", "Name": "target", "FactoryName": "Microsoft.Data.Sqlite",
        "ConnectionString": f"Data Source={tmp_path}/target.sqlite",
    }  # fmt: skip
    with closing(sqlite3.connect(tmp_path / "target.sqlite")) as connection:
        connection.execute("CREATE TABLE Orders (Id)")
    document = {"Company": "x", "@metadata": {"@collection": "Orders"}}
    for path, body in (
        ("/admin/databases?name=Shop", {}),
        ("/admin/databases?name=gone", {}),
        ("/databases/Shop/admin/connection-strings", target),
        ("/databases/Shop/docs?id=orders/1", document),
        ("/databases/Shop/admin/etl", ETL),
    ):
        assert (await client.put(path, body)).status < 300
    assert (await client.delete("/admin/databases", {"DatabaseNames": ["gone"]})).status == 200


async def test_documents_are_reached_at_the_given_address_when_the_announced_one_is_not(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "inside", node__url="http://inside.invalid:8080")
    orders = tmp_path / "orders.jsonl"
    orders.write_text('{"Company": "x", "@metadata": {"@id": "orders/1"}}\n')
    async with running(settings, at=f"http://127.0.0.1:{settings.http.port}") as client:

        async def asked(*words: str) -> Result:
            return await asyncio.to_thread(CliRunner().invoke, cli, [*words, "--url", client.url])

        await client.database("Inside")
        imported = await asked("import", str(orders), "--database", "Inside")
        assert "1 document imported into Inside." in imported.output
        shown = await asked("document", "get", "orders/1", "--database", "Inside")
        assert '"Company": "x"' in shown.output
        await asked("db", "disable", "Inside")
        for words in (("import", str(orders)), ("document", "get", "orders/1")):
            refused = await asked(*words, "--database", "Inside")
            assert refused.exit_code == 5
            assert "Database 'Inside' is disabled. Enable it with `raftnode db enable Inside`" in refused.output
            assert ".." not in refused.output


async def test_each_is_said_in_words_and_passed_on_as_json(client: Client) -> None:
    def asked(*words: str) -> str:
        result = CliRunner().invoke(cli, [*words, "--url", client.url])
        assert result.exit_code == 0, (words, result.output, result.exception)
        return result.output

    for words, says in COMMANDS:
        assert says in await asyncio.to_thread(asked, *words), words
        lines = (await asyncio.to_thread(asked, *words, "--json")).splitlines()
        answers: list[Any] = [
            json.loads(line) for line in lines if line.startswith(("{", "["))
        ]  # the node logs beside it
        assert len(answers) == 1, words
