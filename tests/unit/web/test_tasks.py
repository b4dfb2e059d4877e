"""Connection strings, ETL, task info and state, indexes."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from raftnode.cli.main import cli
from raftnode.cli.session import FAILING
from raftnode.foundation.masking import MASK
from raftnode.record.commands import BlameTask
from raftnode.web.requests import REQUEST_ID
from tests.unit.web.client import Client

DB = "/databases/Shop"
ETL: dict[str, Any] = {
    "EtlType": "Sql",
    "Name": "orders",
    "ConnectionStringName": "target",
    "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id", "InsertOnlyMode": False}],
    "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({Id: id(this)})"}],
}


OTHER: dict[str, Any] = ETL | {
    "Name": "other",
    "SqlTables": [{"TableName": "Others", "DocumentIdColumn": "Id"}],
    "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOthers({})"}],
}
"""It has a table of its own: no two tasks may write the same."""


@pytest.fixture(autouse=True)
async def shop(client: Client, tmp_path: Path) -> None:
    await client.database()
    reply = await client.put(f"{DB}/admin/connection-strings", _target(tmp_path))
    assert reply.status == 200, reply.text


def _target(tmp_path: Path) -> dict[str, str]:
    return {
        "Type": "Sql",
        "Name": "target",
        "FactoryName": "Microsoft.Data.Sqlite",
        "ConnectionString": f"Data Source={tmp_path}/target.sqlite",
    }


async def _etl(client: Client, **changes: Any) -> int:
    reply = await client.put(f"{DB}/admin/etl", ETL | changes)
    assert reply.status == 201, reply.text
    id: int = reply.json["TaskId"]
    return id


async def test_a_connection_string_is_read_back_with_who_uses_it(client: Client, tmp_path: Path) -> None:
    id = await _etl(client)
    shown = (await client.get(f"{DB}/admin/connection-strings")).json
    users = [{"Kind": "SqlEtl", "Id": id, "Identifier": None, "Name": "orders"}]
    assert shown["SqlConnectionStrings"] == {"target": _target(tmp_path) | {"UsedBy": users}}
    assert shown["RavenConnectionStrings"] == {}
    one = (await client.get(f"{DB}/admin/connection-strings?connectionStringName=TARGET&type=Sql")).json
    assert set(one["SqlConnectionStrings"]) == {"target"}
    none = (await client.get(f"{DB}/admin/connection-strings?connectionStringName=target&type=Raven")).json
    assert none["SqlConnectionStrings"] == {}


async def test_a_used_connection_string_stays_and_an_unused_one_goes(client: Client) -> None:
    id = await _etl(client)
    path = f"{DB}/admin/connection-strings?connectionString=target&type="
    assert "used by: orders" in (await client.delete(path + "Sql")).message
    await client.delete(f"{DB}/admin/tasks?id={id}&type=SqlEtl")
    assert "of type Sql" in (await client.delete(path + "Raven")).message
    assert (await client.delete(path + "Sql")).status == 200
    assert (await client.get(f"{DB}/admin/connection-strings")).json["SqlConnectionStrings"] == {}


@pytest.mark.parametrize(
    ("body", "say"),
    [
        ({"Name": "x"}, "Type"),
        ({"Name": "x", "Type": "Sql", "FactoryName": "Nope", "ConnectionString": "x"}, "FactoryName"),
        ({"Name": "x", "Type": "Olap"}, "Olap"),
        ({"Name": "x", "Type": "Raven", "Database": "d", "TopologyDiscoveryUrls": []}, "TopologyDiscoveryUrls"),
        ({"Name": 7, "Type": "Sql"}, "$.Name"),
    ],
)
async def test_a_connection_string_that_does_not_fit_is_refused(client: Client, body: object, say: str) -> None:
    reply = await client.put(f"{DB}/admin/connection-strings", body)
    assert reply.status in (400, 501)
    assert say in reply.message


async def test_an_etl_is_put_and_shown_with_its_placement(client: Client) -> None:
    id = await _etl(client)
    info = (await client.get(f"{DB}/task?key={id}&type=SqlEtl")).json
    assert (info["TaskId"], info["TaskName"], info["TaskType"], info["TaskState"]) == (
        id,
        "orders",
        "SqlEtl",
        "Enabled",
    )
    assert info["ResponsibleNode"]["NodeTag"] == "A"
    assert info["ResponsibleNode"]["NodeUrl"] == client.url
    assert (info["Placement"]["Node"], info["Placement"]["Rule"]) == ("A", "Hash")
    assert info["Configuration"]["SqlTables"] == ETL["SqlTables"]
    assert info["Progress"]["Processed"] == 0
    by_name = (await client.get(f"{DB}/task?taskName=ORDERS&type=SqlEtl")).json
    assert by_name["TaskId"] == id
    listed = (await client.get(f"{DB}/tasks")).json["OngoingTasks"]
    assert [task["TaskId"] for task in listed] == [id]
    record = (await client.get("/admin/databases?name=Shop")).json
    assert record["SqlEtls"][0]["TaskId"] == id


@pytest.mark.parametrize(
    ("changes", "say"),
    [
        ({"EtlType": None}, "EtlType"),
        ({"EtlType": "Carrier"}, "TaskType"),
        ({"ConnectionStringName": "nope"}, "ConnectionStringName"),
        ({"Transforms": []}, "Transforms"),
        ({"TaskId": "x"}, "TaskId"),
        ({"MentorNode": "Z"}, "MentorNode"),
        ({"Requires": "ssd"}, "Requires"),
        ({"Requires": ["ssd,eu"]}, "Requires: A label must not hold a comma"),
    ],
)
async def test_an_etl_that_does_not_fit_is_refused_by_field(client: Client, changes: dict[str, Any], say: str) -> None:
    reply = await client.put(f"{DB}/admin/etl", ETL | changes)
    assert reply.status == (404 if changes.get("MentorNode") == "Z" else 400)
    assert say in reply.message
    assert (await client.get(f"{DB}/tasks")).json["OngoingTasks"] == []


async def test_a_taken_name_is_refused(client: Client) -> None:
    await _etl(client)
    assert "orders" in (await client.put(f"{DB}/admin/etl", ETL)).message


async def test_scenario_18_an_edit_keeps_the_id_and_a_stale_one_is_refused(client: Client) -> None:
    """RavenDB gives an ETL that is edited a new id, by which it may move. Here it keeps its id and its progress, and
    its node, too, unless a key field was edited."""
    id = await _etl(client)
    etag = (await client.get(f"{DB}/task?key={id}")).json["Etag"]
    edited = ETL | {"MentorNode": "A", "PinToMentorNode": True}
    path = f"{DB}/admin/etl?id={id}"
    reply = await client.put(path, edited, **{"If-Match": f'"{etag}"'})
    assert (reply.status, reply.json["TaskId"]) == (200, id)
    info = (await client.get(f"{DB}/task?key={id}")).json
    assert (info["MentorNode"], info["PinToMentorNode"], info["Placement"]["Rule"]) == ("A", True, "PinnedMentor")
    assert (await client.put(path, edited, **{"If-Match": f'"{etag}"'})).status == 409
    assert (await client.put(path, edited, **{"If-Match": '"x"'})).status == 400
    assert (await client.put(f"{DB}/admin/etl?id=999", OTHER)).status == 404


async def test_a_reset_raises_the_generation_of_the_progress_and_that_of_one_transform_does_not(
    client: Client, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "target.sqlite")) as target:
        target.execute("CREATE TABLE Orders (Id TEXT)")
    await client.put(f"{DB}/docs?id=orders/1", {"@metadata": {"@collection": "Orders"}})
    id = await _etl(client)
    path = f"{DB}/admin/etl?configurationName=orders"

    def deleted() -> int:
        with closing(sqlite3.connect(tmp_path / "target.sqlite")) as target, target:
            return target.execute("DELETE FROM Orders").rowcount

    async def loaded_again() -> int:
        """Waits until the row, which is deleted then, has come; the generation of the progress."""
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(deleted):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        generation: int = (await client.get(f"{DB}/task?key={id}")).json["Progress"]["Generation"]
        return generation

    first = await loaded_again()
    assert (await client.post(f"{path}&transformationName=T", {})).status == 200
    assert await loaded_again() == first
    assert (await client.put(f"{DB}/admin/etl?id={id}&reset=t", ETL)).status == 200
    assert await loaded_again() == first
    assert (await client.post(path, {})).status == 200
    assert await loaded_again() > first
    assert "transform 'nope'" in (await client.post(f"{path}&transformationName=nope", {})).message
    assert "transform 'nope'" in (await client.put(f"{DB}/admin/etl?id={id}&reset=nope", ETL)).message


async def test_a_task_is_disabled_and_enabled(client: Client) -> None:
    id = await _etl(client)
    path = f"{DB}/admin/tasks/state?key={id}&type=SqlEtl&disable="
    assert (await client.post(path + "true")).json["TaskId"] == id
    info = (await client.get(f"{DB}/task?key={id}")).json
    assert (info["TaskState"], info["TaskConnectionStatus"]) == ("Disabled", "NotActive")
    assert info["Configuration"]["Disabled"] is True
    await client.post(path + "false")
    assert (await client.get(f"{DB}/task?key={id}")).json["TaskState"] == "Enabled"
    assert "'disable'" in (await client.post(path)).message


async def test_a_task_with_some_transforms_disabled_is_partially_enabled(client: Client) -> None:
    second = ETL["Transforms"][0] | {"Name": "u", "Disabled": True}
    id = await _etl(client, Transforms=[*ETL["Transforms"], second])
    assert (await client.get(f"{DB}/task?key={id}")).json["TaskState"] == "PartiallyEnabled"


async def test_a_task_is_pinned_and_unpinned(client: Client) -> None:
    id = await _etl(client)
    path = f"{DB}/admin/tasks/pin?key={id}"
    assert (await client.post(f"{path}&node=A")).json["ResponsibleNode"] == "A"
    info = (await client.get(f"{DB}/task?key={id}")).json
    assert (info["MentorNode"], info["PinToMentorNode"]) == ("A", True)
    await client.post(f"{path}&node=A&pinned=false")
    assert (await client.get(f"{DB}/task?key={id}")).json["Placement"]["Rule"] == "Mentor"
    await client.post(path)
    assert (await client.get(f"{DB}/task?key={id}")).json["Placement"]["Rule"] == "Hash"
    assert "'Z'" in (await client.post(f"{path}&node=Z")).message
    assert (await client.post(f"{path}&pinned=true")).json["ResponsibleNode"] == "A"
    info = (await client.get(f"{DB}/task?key={id}")).json
    assert (info["MentorNode"], info["PinToMentorNode"], info["Placement"]["Rule"]) == ("A", True, "PinnedMentor")


async def test_scenario_26_an_edit_of_the_pin_alone_keeps_the_rest_and_a_pin_without_a_mentor_finds_one(
    client: Client,
) -> None:
    """RavenDB's is of a subscription; here it holds for every kind. A pin without a mentor means nothing there, and the
    present holder here."""
    id = await _etl(client, PinToMentorNode=True)

    async def pin() -> tuple[object, ...]:
        info = (await client.get(f"{DB}/task?key={id}")).json
        return info["TaskId"], info["TaskName"], info["MentorNode"], info["PinToMentorNode"]

    assert await pin() == (id, "orders", "A", True)
    for changes, expected in (
        ({"PinToMentorNode": False}, ("A", False)),
        ({}, ("A", False)),
        ({"PinToMentorNode": True}, ("A", True)),
        ({"MentorNode": None}, (None, False)),
    ):
        assert (await client.put(f"{DB}/admin/etl?id={id}", ETL | changes)).status == 200
        assert await pin() == (id, "orders", *expected)


async def test_a_running_task_shows_its_progress(client: Client, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "target.sqlite")) as target:
        target.execute("CREATE TABLE Orders (Id TEXT)")
    id = await _etl(client)
    for number in range(3):
        await client.put(f"{DB}/docs?id=orders/{number}", {"@metadata": {"@collection": "Orders"}})
    async with asyncio.timeout(30):
        while (info := (await client.get(f"{DB}/task?key={id}")).json)["Progress"]["Processed"] < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (info["TaskConnectionStatus"], info["Error"], info["Holder"]) == ("Active", None, "A")
    assert (info["Run"]["State"], info["Run"]["Epoch"]) == ("Running", info["Epoch"])
    assert info["Run"]["Info"]["Errors"] == []
    [task] = (await client.get("/status")).json["Databases"]["Shop"]["Tasks"]
    assert task["RunHere"]["State"] == "Running"


async def test_a_task_that_is_held_back_says_so_and_why(client: Client) -> None:
    id = await _etl(client)
    await _held(client, id)
    epoch = int((await client.get(f"{DB}/task?key={id}")).json["Epoch"])
    for number in range(2):
        blame = BlameTask(key="shop/SqlEtl/orders", epoch=epoch + number, tag="A", reason="in _block")
        assert (await client.node.replica.propose(blame)).value

    async def shown() -> Any:
        [task] = (await client.get("/status")).json["Databases"]["Shop"]["Tasks"]
        return task if task["State"] == "HeldBack" else None

    async with asyncio.timeout(30):
        while not (task := await shown()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert "held back, as 2 of its runs ended their nodes, the last one A: in _block" in task["Error"]
    assert (await client.get(f"{DB}/tasks/orders/why")).json["State"] == "HeldBack"
    done = await asyncio.to_thread(CliRunner().invoke, cli, ["tasks", "--url", client.url])
    assert (done.exit_code, "HeldBack" in done.output) == (FAILING, True)


async def test_why_tells_the_rule_the_ranking_the_cause_and_the_runs(client: Client) -> None:
    id = await _etl(client)
    placed_at = (await client.get(f"{DB}/task?key={id}")).json["Etag"]
    await _held(client, id)
    for given in (id, "orders", "ORDERS"):
        why = (await client.get(f"{DB}/tasks/{given}/why")).json
        assert (why["TaskId"], why["TaskName"], why["TaskType"]) == (id, "orders", "SqlEtl")
        assert why["Placement"] == (await client.get(f"{DB}/task?key={id}")).json["Placement"]
        assert why["Because"] == "A has the highest score of the nodes that may run it."
        assert why["Cause"]["Index"] == placed_at
        assert why["Cause"]["Sentence"].startswith("Task 'orders' was added")
        assert why["Grant"] == {"Index": int(why["Epoch"]), "Generation": 0, "Node": "A", "Rule": "Hash"}
        assert why["Decisions"] == []
        assert why["Runs"] == [{"Epoch": why["Epoch"], "Node": "A", "State": "Held", "Reason": None}]


async def _held(client: Client, id: int, *, after: int = 0) -> int:
    async with asyncio.timeout(30):
        while not ((info := (await client.get(f"{DB}/task?key={id}")).json)["Holder"] and int(info["Epoch"]) > after):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return int(info["Epoch"])


async def test_why_keeps_the_runs_that_ended_and_how(client: Client) -> None:
    id = await _etl(client)
    first = await _held(client, id)
    edited = ETL | {"Transforms": [ETL["Transforms"][0] | {"Collections": ["Orders", "Other"]}]}
    assert (await client.put(f"{DB}/admin/etl?id={id}", edited)).status == 200
    second = await _held(client, id, after=first)
    why = (await client.get(f"{DB}/tasks/{id}/why")).json
    assert [(int(run["Epoch"]), run["State"]) for run in why["Runs"]] == [(second, "Held"), (first, "Released")]
    assert why["Runs"][1]["Reason"]
    assert why["Cause"]["Index"] < first, "an edit that placement does not read moves nothing"


async def test_why_tells_why_nobody_runs_a_task(client: Client) -> None:
    id = await _etl(client, Requires=["ssd"])
    why = (await client.get(f"{DB}/tasks/{id}/why")).json
    assert why["Because"] == "No node of the group may run it: A is ruled out (LabelsMissing)."
    assert (why["Placement"]["Rule"], why["Grant"], why["Runs"]) == ("NoMember", None, [])
    await client.post("/admin/cluster/node/traits?nodeTag=A&labels=ssd")
    await _held(client, id)
    why = (await client.get(f"{DB}/tasks/{id}/why")).json
    assert (why["Cause"]["What"], why["Cause"]["Tag"]) == ("Node", "A")
    assert "labels" in why["Cause"]["Sentence"]
    await client.post(f"{DB}/admin/tasks/state?key={id}&disable=true")
    assert (await client.get(f"{DB}/tasks/{id}/why")).json["Because"] == "Nobody runs it: the task is disabled."


async def test_required_labels_show_in_task_and_configuration(client: Client) -> None:
    id = await _etl(client, Requires=["ssd"])
    info = (await client.get(f"{DB}/task?key={id}")).json
    assert (info["Requires"], info["Configuration"]["Requires"]) == (["ssd"], ["ssd"])


@pytest.mark.parametrize("given", ["999", "nope", "9" * 30, "orders?type=Backup", "A?type=Update"])
async def test_why_of_an_unknown_task_is_a_404(client: Client, given: str) -> None:
    await _etl(client)
    reply = await client.get(f"{DB}/tasks/{given}/why".replace("?type=Backup/why", "/why?type=Backup"))
    assert reply.status == 404


async def test_what_if_tells_what_would_wait_and_changes_nothing(client: Client) -> None:
    id = await _etl(client, MentorNode="A", PinToMentorNode=True)
    before = client.node.replica.record
    for path, more in (("/cluster/what-if", {"Databases": ["Shop"]}), (f"{DB}/tasks/what-if", {})):
        reply = await client.post(path, {"Drained": ["A"]} | more)
        assert reply.status == 200, reply.text
        assert reply.json["Moves"] == []
        [wait] = reply.json["Waits"]
        assert (wait["TaskId"], wait["From"], wait["To"], wait["Rule"]) == (id, "A", "A", "PinnedMentor")
        added = (await client.post(path, {"Added": [{"Tag": "B", "Weight": 100}]} | more)).json
        assert (added["Tasks"], added["Moves"]) == (1, [])
    after = client.node.replica.record
    assert (after.nodes, after.databases["shop"].topology) == (before.nodes, before.databases["shop"].topology)


@pytest.mark.parametrize(
    ("body", "say"),
    [
        ({"Lose": ["A"]}, "unknown field `Lose`"),
        ({"Lost": "A"}, "$.Lost"),
        ({"Lost": ["A"] * 101}, "$.Lost"),
        ({"Lost": ["Z"]}, "'Lost': Node 'Z' is not in the cluster"),
        ({"Weights": {"A": "2"}}, "$.Weights"),
        ({"Weights": {"A": 0}}, "'Weights': Weight 0"),
        ({"Labels": {"A": "ssd"}}, "$.Labels"),
        ({"Added": [{"Tag": "B", "Wait": 2}]}, "$.Added[0]"),
        ({"Added": [{"Tag": "b"}]}, "'Added': Node tag 'b'"),
        ([], "Expected `object`"),
    ],
)
async def test_what_cannot_be_supposed_is_refused_by_field(client: Client, body: Any, say: str) -> None:
    for path in ("/cluster/what-if", f"{DB}/tasks/what-if"):
        reply = await client.post(path, body)
        assert reply.status in (400, 404)
        assert say in reply.message
    assert "Databases" in (await client.post(f"{DB}/tasks/what-if", {"Databases": ["Shop"]})).message
    assert "'Nope'" in (await client.post("/cluster/what-if", {"Databases": ["Nope"]})).message


async def test_a_deleted_task_is_unknown(client: Client) -> None:
    id = await _etl(client)
    assert (await client.delete(f"{DB}/admin/tasks?id={id}&type=SqlEtl")).json["TaskId"] == id
    reply = await client.get(f"{DB}/task?key={id}&type=SqlEtl")
    assert reply.status == 404
    assert str(id) in reply.message


async def test_a_task_is_not_found_under_another_type(client: Client) -> None:
    id = await _etl(client)
    assert (await client.get(f"{DB}/task?key={id}&type=Backup")).status == 404
    assert "'key'" in (await client.get(f"{DB}/task")).message


async def test_index_definitions_are_kept(client: Client) -> None:
    index = {"Name": "Orders/ByCompany", "Maps": ["from o in docs.Orders select new { o.Company }"], "Type": "Map"}
    reply = await client.put(f"{DB}/admin/indexes", {"Indexes": [index]})
    assert reply.status == 201
    assert reply.json["Results"][0]["Index"] == "Orders/ByCompany"
    assert "Error" not in reply.text
    assert (await client.get(f"{DB}/indexes")).json["Results"] == [index]
    assert (await client.get(f"{DB}/indexes?name=orders/bycompany")).json["Results"] == [index]
    assert (await client.get(f"{DB}/indexes?name=nope")).status == 404
    assert "Maps" in (await client.put(f"{DB}/admin/indexes", {"Indexes": [{"Name": "x"}]})).message
    assert (await client.delete(f"{DB}/indexes?name=Orders/ByCompany")).status == 204
    assert (await client.get(f"{DB}/indexes")).json["Results"] == []


async def test_a_password_is_shown_nowhere_and_kept_by_an_edit_that_sends_the_mask_back(client: Client) -> None:
    target = {
        "Name": "secret", "Type": "Sql", "FactoryName": "Npgsql",
        "ConnectionString": "Host=127.0.0.1;Port=9;Database=d;Username=u;Password=s3cret",
    }  # fmt: skip
    assert (await client.put(f"{DB}/admin/connection-strings", target)).status == 200
    id = await _etl(client, ConnectionStringName="secret", Name="to secret")
    for path in (
        f"{DB}/admin/connection-strings", f"{DB}/admin/connection-strings?connectionStringName=secret&type=Sql",
        "/admin/databases?name=Shop", "/databases", "/status", "/status/runs", f"{DB}/tasks", f"{DB}/task?key={id}",
        f"{DB}/tasks/{id}/why", "/admin/cluster/observer/decisions",
    ):  # fmt: skip
        reply = await client.get(path)
        assert reply.status == 200
        assert "s3cret" not in reply.text, path
    [shown] = (
        (await client.get(f"{DB}/admin/connection-strings?type=Sql&connectionStringName=secret"))
        .json["SqlConnectionStrings"]
        .values()
    )
    assert shown["ConnectionString"].endswith(f";Password={MASK}")
    edited = shown | {"ConnectionString": shown["ConnectionString"].replace("Port=9", "Port=10")}
    assert (await client.put(f"{DB}/admin/connection-strings", edited)).status == 200
    stored = client.node.replica.record.databases["shop"].connection_strings["secret"]
    assert b"Port=10" in stored.configuration
    assert b"Password=s3cret" in stored.configuration
    reply = await client.put(f"{DB}/admin/connection-strings", edited | {"Name": "another"})
    assert reply.status == 400
    assert "Give the secret itself" in reply.message


async def test_what_is_not_there_is_a_404_and_the_repeat_of_its_deletion_is_not(client: Client) -> None:
    id = await _etl(client)
    strings = f"{DB}/admin/connection-strings?type=Sql&connectionString="
    for path, body, say in [
        (f"{DB}/admin/tasks?id={id}&type=SqlEtl", None, f"no SqlEtl {id}"),
        (f"{strings}target", None, "no connection string 'target'"),
        ("/admin/databases", {"DatabaseNames": ["Shop"], "HardDelete": True}, "does not exist"),
    ]:
        headers = {REQUEST_ID: f"delete {say}"}
        first, repeat = [await client.delete(path, body, **headers) for _ in range(2)]
        assert (first.status, repeat.status) == (200, 200), repeat.text
        assert first.json["RaftCommandIndex"] == repeat.json["RaftCommandIndex"]
        gone = await client.delete(path, body)
        assert gone.status == 404, gone.text
        assert say in gone.message


async def test_a_node_that_is_not_in_the_cluster_is_a_404_wherever_it_is_named(client: Client) -> None:
    id = await _etl(client)
    for method, path, body in [
        ("POST", f"{DB}/admin/tasks/pin?key={id}&node=Z", None),
        ("PUT", f"{DB}/admin/etl", OTHER | {"MentorNode": "Z"}),
        ("PUT", "/admin/databases/node?name=Shop&node=Z", None),
        ("PUT", "/admin/databases/node?name=Shop&node=A&mentor=Z", None),
        ("POST", "/admin/databases/promote?name=Shop&node=Z", None),
        ("DELETE", "/admin/databases", {"DatabaseNames": ["Shop"], "FromNodes": ["Z"]}),
        ("PUT", "/admin/databases?name=New", {"Topology": {"Members": ["Z"]}}),
    ]:
        reply = await client.send(method, path, body)
        assert reply.status == 404, (path, reply.text)
        assert "ode 'Z' is not in the cluster. Known nodes: A." in reply.message


async def test_a_collection_without_documents_is_warned_of_with_those_there_are(client: Client) -> None:
    metadata = {"@metadata": {"@collection": "Orders"}}
    assert (await client.put(f"{DB}/docs?id=orders/1", metadata)).status == 201
    assert (await client.put(f"{DB}/admin/etl", ETL)).json["Warnings"] == []
    misspelt = [ETL["Transforms"][0] | {"Collections": ["orders", "Oders"]}]
    id = (await client.get(f"{DB}/tasks")).json["OngoingTasks"][0]["TaskId"]
    reply = await client.put(f"{DB}/admin/etl?id={id}", ETL | {"Transforms": misspelt})
    assert reply.json["Warnings"] == ["Collection 'Oders' of task 'orders' has no documents. Known: Orders."]


@pytest.mark.parametrize("text", ["Data Source=target.db", "sqlite:///target.db"])
async def test_a_file_that_depends_on_where_a_node_was_started_is_refused(client: Client, text: str) -> None:
    given = {"Type": "Sql", "Name": "file", "FactoryName": "System.Data.SQLite", "ConnectionString": text}
    reply = await client.put(f"{DB}/admin/connection-strings", given)
    assert reply.status == 400
    assert "names the file 'target.db'" in reply.message
    assert "write an absolute path" in reply.message


async def test_a_table_of_another_task_is_refused_at_every_door(client: Client, tmp_path: Path) -> None:
    await _etl(client)
    other = _target(tmp_path) | {"Name": "other", "ConnectionString": f"Data Source={tmp_path}/other.sqlite"}
    assert (await client.put(f"{DB}/admin/connection-strings", other)).status == 200
    refused = await client.put(f"{DB}/admin/etl", ETL | {"Name": "two"})
    assert refused.status == 400
    assert "'Orders' is written by task 'orders' in the same target" in refused.message
    await _etl(client, Name="two", ConnectionStringName="other")
    refused = await client.put(f"{DB}/admin/connection-strings", _target(tmp_path) | {"Name": "other"})
    assert refused.status == 400
    assert "is written by task" in refused.message
