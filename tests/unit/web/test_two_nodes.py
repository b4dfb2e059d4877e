"""Any node answers: two real nodes, one of which joined the other."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from raftnode.cli.main import cli
from raftnode.documents.replication.sender import NODE_HEADER
from tests.unit.web.client import Client
from tests.unit.web.conftest import free_port, running, settings_in

PATIENCE_S = 30


async def eventually(what: str, condition: Callable[[], Awaitable[Any]]) -> Any:
    """What the condition gives, once that is true."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (value := await condition()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return value
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE_S} s: {what}") from None


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Client, Client]]:
    async with (
        running(settings_in(tmp_path / "a")) as a,
        running(settings_in(tmp_path / "b", node__tag="B"), join=a.url) as b,
    ):
        await eventually("the node that joined is a voter", lambda: _votes(a, "B"))
        yield a, b


async def _votes(node: Client, tag: str) -> bool:
    return tag in (await node.get("/cluster/topology")).json["Topology"]["Members"]


async def test_a_command_sent_to_a_follower_reaches_the_leader_and_is_seen_there_at_once(
    pair: tuple[Client, Client],
) -> None:
    for number, node in enumerate(pair):
        assert (await node.put(f"/admin/databases?name=Shop{number}&replicationFactor=2", {})).status == 201
        assert f"Shop{number}" in (await node.get("/databases?namesOnly=true")).json["Databases"]


@pytest.mark.parametrize("leads", [True, False])
async def test_a_node_that_is_asked_to_remove_itself_lets_another_do_it(
    pair: tuple[Client, Client], leads: bool
) -> None:
    a, b = pair
    going, staying = (a, b) if leads else (b, a)
    tag = going.node.tag
    reply = await going.delete(f"/admin/cluster/node?nodeTag={tag}")
    assert reply.status == 200, reply.text
    await eventually("it is gone", lambda: _gone(staying, tag))


async def _gone(node: Client, tag: str) -> bool:
    return tag not in (await node.get("/cluster/topology")).json["Topology"]["AllNodes"]


async def test_of_two_joins_under_one_tag_at_one_moment_one_wins_and_raft_agrees_with_the_record(
    pair: tuple[Client, Client],
) -> None:
    for number, tag in enumerate(("C", "D", "E")):
        joins = [
            {
                "Tag": tag,
                "Url": f"http://127.0.0.1:{port}",
                "ClusterAddress": f"127.0.0.1:{port + 1}",
                "NodeId": f"{port}",
                "Watcher": True,
            }
            for port in (10 + 4 * number, 12 + 4 * number)
        ]
        replies = await asyncio.gather(
            *(node.put("/admin/cluster/node", join) for node, join in zip(pair, joins, strict=True))
        )
        assert sorted(reply.status for reply in replies) == [200, 400]
        assert "is taken" in next(reply.message for reply in replies if reply.status == 400)
        for node in pair:
            known = node.node.replica.record.nodes[tag].cluster_address
            [peer] = [peer for peer in node.node.raft.status.peers if peer.tag == tag]
            assert peer.address == known


async def test_a_new_database_is_known_on_every_node_of_its_group_when_the_answer_comes(
    pair: tuple[Client, Client],
) -> None:
    a, b = pair
    for number in range(10):
        assert (await a.put(f"/admin/databases?name=Shop{number}&replicationFactor=2", {})).status == 201
        assert (await b.put(f"/databases/Shop{number}/docs?id=x", {"n": number})).status == 201


async def test_a_write_that_waits_for_a_replica_is_read_on_the_other_node(pair: tuple[Client, Client]) -> None:
    a, b = pair
    await a.put("/admin/databases?name=Shop&replicationFactor=2", {})
    body = {"Commands": [{"Id": "x", "Document": {"n": 1}, "Type": "PUT"}]}
    path = "/databases/Shop/bulk_docs?numberOfReplicasToWaitFor=1&waitForReplicasTimeout=00:00:20"
    for writer, reader, id in ((a, b, "x"), (b, a, "y")):
        body["Commands"][0]["Id"] = id
        reply = await writer.post(path, body)
        assert reply.status == 201, reply.text
        assert (await reader.get(f"/databases/Shop/docs?id={id}")).json["Results"][0]["n"] == 1


async def test_a_replica_that_does_not_come_in_time_is_told_and_the_document_stays(
    pair: tuple[Client, Client],
) -> None:
    a, _ = pair
    await a.put("/admin/databases?name=Shop&replicationFactor=2", {})
    body = {"Commands": [{"Id": "x", "Document": {"n": 1}, "Type": "PUT"}]}
    path = "/databases/Shop/bulk_docs?numberOfReplicasToWaitFor=1&waitForReplicasTimeout=0"
    reply = await a.post(path, body)
    assert reply.status == 500
    assert "only 0 of 1" in reply.message
    assert (await a.post(f"{path}&throwOnTimeoutInWaitForReplicas=false", body)).status == 201
    assert (await a.get("/databases/Shop/docs?id=x")).status == 200


FAILING_ETL = {
    "EtlType": "Sql",
    "Name": "orders",
    "ConnectionStringName": "target",
    "MentorNode": "A",
    "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id"}],
    "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({Id: id(this)})"}],
}
"""Of a target without its table."""


async def test_scenario_27_both_nodes_name_the_same_responsible_node_and_tell_of_the_others_run(
    pair: tuple[Client, Client], tmp_path: Path
) -> None:
    a, b = pair
    await a.put("/admin/databases?name=Shop&replicationFactor=2", {})
    target = {
        "Type": "Sql",
        "Name": "target",
        "FactoryName": "Microsoft.Data.Sqlite",
        "ConnectionString": f"Data Source={tmp_path}/target.sqlite",
    }
    assert (await b.put("/databases/Shop/admin/connection-strings", target)).status == 200
    reply = await b.put("/databases/Shop/admin/etl", FAILING_ETL)
    assert (reply.status, reply.json["ResponsibleNode"]) == (201, "A")
    await b.put("/databases/Shop/docs?id=o/1", {"@metadata": {"@collection": "Orders"}})
    path = "/databases/Shop/task?taskName=orders&type=SqlEtl"

    async def failing(node: Client) -> Any:
        info = (await node.get(path)).json
        return info if info["Run"] and info["Run"]["Error"] else None

    for node, status in ((a, "Reconnect"), (b, "NotOnThisNode")):
        info = await eventually("the missing table shows", lambda node=node: failing(node))  # type: ignore[misc]
        assert (info["Holder"], info["Run"]["Node"], info["TaskConnectionStatus"]) == ("A", "A", status)
        assert "Orders" in info["Error"]
        assert info["Epoch"] == info["Run"]["Epoch"]
    for node, here in ((a, "Error"), (b, None)):
        [task] = (await node.get("/status")).json["Databases"]["Shop"]["Tasks"]
        assert (task["RunHere"] or {}).get("State") == here
        assert (task["Holder"], task["State"], task["Failed"], task["Behind"]) == ("A", "Error", 0, 1)
        assert "Orders" in task["Error"]
        why = (await node.get("/databases/Shop/tasks/orders/why")).json
        assert (why["State"], why["Error"], why["Behind"]) == ("Error", task["Error"], 1)

    # What the record tells would do if A did not answer.
    async def told() -> bool:
        [made] = b.node.replica.record.databases["shop"].progress.values()
        return "Orders" in made.error

    await eventually("the record tells of the error", told)
    assert (await b.delete(f"/databases/Shop/admin/tasks?id={reply.json['TaskId']}&type=SqlEtl")).status == 200

    async def ended() -> bool:
        runs: dict[str, Any] = (await a.get("/status/runs")).json["Runs"]
        return not runs

    await eventually("the deleted task's run ends", ended)


async def test_what_a_holder_has_passed_over_is_told_by_any_node_also_when_it_has_gone(
    tmp_path: Path,
) -> None:
    target = tmp_path / "target.sqlite"
    with contextlib.closing(sqlite3.connect(target)) as connection:
        connection.execute("CREATE TABLE Orders (Id TEXT, N INT CHECK (N < 100))")
    place = {"FactoryName": "Microsoft.Data.Sqlite", "ConnectionString": f"Data Source={target}"}
    etl = {
        "EtlType": "Sql",
        "Name": "orders",
        "ConnectionStringName": "target",
        "MentorNode": "A",
        "PinToMentorNode": True,
        "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id"}],
        "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({N: this.N})"}],
    }
    path = "/databases/Shop/tasks/orders/failed"
    async with running(settings_in(tmp_path / "b", node__tag="B")) as b:
        async with running(settings_in(tmp_path / "a", node__tag="A"), join=b.url) as a:
            await eventually("the node that joined is a voter", lambda: _votes(b, "A"))
            await b.put("/admin/databases?name=Shop&replicationFactor=2", {})
            await b.put("/databases/Shop/admin/connection-strings", {"Type": "Sql", "Name": "target"} | place)
            assert (await b.put("/databases/Shop/admin/etl", etl)).status == 201
            for n in range(12):
                document = {"N": 500 if n else 1, "@metadata": {"@collection": "Orders"}}
                written = f"/databases/Shop/docs?id=o/{n:02}"

                async def put(path: str = written, document: dict[str, Any] = document) -> bool:
                    return (await a.put(path, document)).status == 201

                await eventually("the node has its copy and takes the document", put)

            async def listed() -> Any:
                shown = (await b.get(path)).json
                return shown if shown["Failed"] == 11 and shown["ToldBy"] else None

            shown = await eventually("eleven documents have failed", listed)
            assert (len(shown["Documents"]), shown["ToldBy"], shown["Unknown"]) == (11, "A", None)
            assert (await a.get(path)).json == shown
            [task] = (await b.get("/status")).json["Databases"]["Shop"]["Tasks"]
            assert (task["State"], task["Failed"], task["Behind"]) == ("Running", 11, 0)
            await eventually("every node is told", lambda: _told(b, 11))
        later = (await b.get(path)).json
    assert (later["Failed"], later["Unlisted"], later["ToldBy"]) == (11, 1, None)
    assert later["Documents"] == shown["Documents"][1:]
    assert "CHECK constraint failed" in later["Documents"][0]["Error"]


async def _told(node: Client, failed: int) -> bool:
    return [made.failed for made in node.node.replica.record.databases["shop"].progress.values()] == [failed]


async def test_leadership_is_handed_over_from_any_node(pair: tuple[Client, Client]) -> None:
    a, b = pair
    for node, tag in ((b, "B"), (b, "A")):
        reply = await node.post(f"/admin/cluster/reelect?nodeTag={tag}")
        assert (reply.status, reply.json["Leader"]) == (200, tag), reply.text

    async def settled() -> bool:
        return all([(await node.get("/health/ready")).status == 200 for node in (a, b)])

    await eventually("both nodes are ready again", settled)


async def test_the_leaders_reports_are_given_by_any_node(pair: tuple[Client, Client]) -> None:
    async def reported(node: Client) -> Any:
        stats = (await node.get("/admin/cluster/maintenance-stats")).json
        return stats.get("B", {}).get("Report")

    for node in pair:
        report = await eventually("the leader has the report", lambda node=node: reported(node))  # type: ignore[misc]
        assert "databases" in report


async def test_any_node_says_which_nodes_are_silent(pair: tuple[Client, Client]) -> None:
    gone = {"Tag": "C", "Url": f"http://127.0.0.1:{free_port()}", "ClusterAddress": f"127.0.0.1:{free_port()}"}
    assert (await pair[0].put("/admin/cluster/node", gone | {"NodeId": "f" * 32, "Watcher": True})).status == 200

    async def told(node: Client) -> bool:
        cluster = (await node.get("/status?database=.")).json["Cluster"]
        assert cluster["SilentUnknown"] is None
        return {tag: one["Silent"] for tag, one in cluster["Nodes"].items()} == {"A": False, "B": False, "C": True}

    for node in pair:
        await eventually("C is silent, and nobody else", lambda node=node: told(node))  # type: ignore[misc]
        status = (await node.get("/cluster/topology")).json["Status"]
        assert {tag: one["Connected"] for tag, one in status.items() if tag in "BC"}["C"] is False
        done = await asyncio.to_thread(CliRunner().invoke, cli, ["node", "list", "--url", node.url])
        assert [line.split()[0] for line in done.output.splitlines() if line.rstrip().endswith("silent")] == ["C"], (
            done.output
        )
    assert (await pair[0].delete("/admin/cluster/node?nodeTag=C&force=true")).status == 200

    async def left_out() -> bool:
        leader = (await pair[0].get("/cluster/topology")).json["Leader"]
        told = {node.node.tag: (await node.get("/cluster/silence")).json for node in pair}
        why = f"Which nodes are silent is not known: only the leader {leader} knows."
        return told.pop(leader, None) == {"Silent": [], "SilentUnknown": None} and list(told.values()) == [
            {"Silent": None, "SilentUnknown": why}
        ]

    await eventually("the leader leaves out who was removed, and the other node names the leader", left_out)


async def test_a_removed_node_is_drained_and_gone_even_when_it_leads(pair: tuple[Client, Client]) -> None:
    a, _ = pair
    await a.post("/admin/cluster/reelect?nodeTag=B")
    await a.put("/admin/databases?name=Shop&replicationFactor=2", {})
    reply = await a.delete("/admin/cluster/node?nodeTag=B")
    assert reply.status == 200, reply.text
    assert reply.json["Topology"]["AllNodes"] == {"A": a.url}
    assert (await a.get("/topology?name=Shop")).json["Nodes"][0]["ClusterTag"] == "A"


async def test_without_a_majority_the_node_says_so_and_documents_go_on(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "a", cluster__proposal_timeout_ms="200")
    async with running(settings) as a:
        async with running(settings_in(tmp_path / "b", node__tag="B"), join=a.url) as b:
            await eventually("the node that joined is a voter", lambda: _votes(a, "B"))
            assert (await b.put("/admin/databases?name=Shop&replicationFactor=2", {})).status == 201

        async def unready() -> Any:
            reply = await a.get("/health/ready")
            return reply.json if reply.status == 503 else None

        why = await eventually("the node is not ready", unready)
        assert (why["Ready"], why["Role"]) == (False, "Candidate")
        assert "has no lease" in why["Reasons"][0]
        node = (await a.get("/status")).json["Node"]
        assert (node["Role"], node["HasLease"], node["LeaseLeftMs"], node["Leader"]) == ("Candidate", False, 0, None)
        supposed = await a.post("/cluster/what-if", {"Lost": ["B"]})
        for quorum in ((await a.get("/status")).json["Cluster"]["Quorum"], supposed.json["Quorum"]):
            assert quorum == {
                "Leader": None,
                "Voters": ["A", "B"],
                "Answering": ["A"],
                "Sentence": "No leader: nothing runs; 1 of 2 voters answers.",
            }
        for command in (["status"], ["tasks"], ["what-if", "--lost", "B"]):
            done = await asyncio.to_thread(CliRunner().invoke, cli, [*command, "--url", a.url])
            assert (done.exit_code, "No leader: nothing runs; 1 of 2 voters answers." in done.output) == (5, True)
        cluster = (await a.get("/status?database=.")).json["Cluster"]
        assert {node["Silent"] for node in cluster["Nodes"].values()} == {None}
        assert cluster["SilentUnknown"] == "Which nodes are silent is not known: there is no leader."
        listed = await asyncio.to_thread(CliRunner().invoke, cli, ["node", "list", "--url", a.url])
        assert cluster["SilentUnknown"] in listed.output
        refused = await a.put("/admin/databases?name=Other", {})
        assert refused.status == 503
        assert refused.json["Type"] == "Raven.Client.Exceptions.Cluster.NoLeaderException"
        assert "raft-request-id" in refused.message
        assert (await a.put("/databases/Shop/docs?id=x", {"n": 1})).status == 201
        assert (await a.get("/health/live")).status == 200


async def test_only_a_node_of_the_cluster_replicates_into_it(pair: tuple[Client, Client]) -> None:
    a, b = pair
    assert (await a.put("/admin/databases?name=Shop", {"Topology": {"Members": ["A"]}})).status == 201
    handshake = "/replication/Shop/accepted?source=x"
    assert (await a.get(handshake, **{NODE_HEADER: b.node.http.node_id})).status == 200
    assert (await a.delete("/admin/cluster/node?nodeTag=B&force=true")).status == 200
    for stranger in (b.node.http.node_id, "", "é"):
        for reply in (
            await a.get(handshake, **{NODE_HEADER: stranger}),
            await a.post("/replication/Shop/documents", b"\x00\x80", **{NODE_HEADER: stranger}),
        ):
            assert reply.status == 409
            says = "has to join again with an empty data directory" if stranger else f"send the header {NODE_HEADER}"
            assert says in reply.message
