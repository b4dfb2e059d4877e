"""Databases: creating, deleting, groups and states."""

from urllib.parse import quote

from raftnode.web.requests import REQUEST_ID, REQUEST_ID_LENGTH_MAX
from tests.unit.web.client import Client


async def test_a_database_is_created_and_its_record_read(client: Client) -> None:
    reply = await client.put("/admin/databases?name=Shop&replicationFactor=1&?raft-request-id=x1", {"Settings": {}})
    assert reply.status == 201
    assert reply.json["Topology"]["Members"] == ["A"]
    assert reply.json["NodesAddedTo"] == [client.url]
    record = (await client.get("/admin/databases?name=shop")).json
    assert record["DatabaseName"] == "Shop"
    assert record["LockMode"] == "Unlock"
    assert record["Etag"] == reply.json["RaftCommandIndex"]


async def test_a_repeated_request_id_gets_the_first_answer_and_another_one_a_conflict(client: Client) -> None:
    first = await client.put("/admin/databases?name=Shop&?raft-request-id=x1", {})
    again = await client.put("/admin/databases?name=Shop&raft-request-id=x1", {})
    header = await client.put("/admin/databases?name=Shop", {}, **{"raft-request-id": "x1"})
    other = await client.put("/admin/databases?name=Shop&raft-request-id=x2", {})
    assert first.status == again.status == header.status == 201
    assert first.json["RaftCommandIndex"] == again.json["RaftCommandIndex"] == header.json["RaftCommandIndex"]
    assert other.status == 409
    assert other.json["Type"].endswith(".ConcurrencyException")


async def test_a_request_id_that_is_used_for_another_request_is_refused_and_nothing_is_done(client: Client) -> None:
    id = {"raft-request-id": "mine"}
    first = await client.put("/admin/databases?name=Shop", {"Settings": {"a": "1", "b": "2"}}, **id)
    spelled = await client.put("/admin/databases?name=Shop", b'{ "Settings": {"b":"2",\n"a":"1"} }', **id)
    assert (first.status, spelled.status) == (201, 201)
    assert first.json["RaftCommandIndex"] == spelled.json["RaftCommandIndex"]
    for path, body in (
        ("/admin/databases?name=Other", {"Settings": {"a": "1", "b": "2"}}),
        ("/admin/databases?name=Shop", {"Settings": {"a": "1"}}),
        ("/databases/Shop/admin/connection-strings", {"Name": "s", "Type": "Sql"}),
    ):
        other = await client.put(path, body, **id)
        assert other.status in (400, 409), other.message
    refused = await client.put("/admin/databases?name=Other", {}, **id)
    assert refused.status == 409
    assert "'mine' was used for another request" in refused.message
    assert (await client.get("/admin/databases?name=Other")).status == 404
    assert (await client.put("/admin/databases?name=Other", {}, **{"raft-request-id": "new"})).status == 201


async def test_the_name_may_come_in_the_body(client: Client) -> None:
    assert (await client.put("/admin/databases", {"DatabaseName": "Shop"})).status == 201


async def test_a_database_without_a_name_or_with_an_unfit_one_is_refused(client: Client) -> None:
    assert "name" in (await client.put("/admin/databases", {})).message
    reply = await client.put("/admin/databases?name=..%2Fetc", {})
    assert reply.status == 400
    assert "may hold only" in reply.message


async def test_more_copies_than_nodes_are_refused(client: Client) -> None:
    reply = await client.put("/admin/databases?name=Shop&replicationFactor=3", {})
    assert reply.status == 400
    assert "Replication factor 3" in reply.message


async def test_an_unknown_node_in_the_group_is_refused(client: Client) -> None:
    reply = await client.put("/admin/databases?name=Shop", {"Topology": {"Members": ["A", "Z"]}})
    assert reply.status == 404
    assert "'Z'" in reply.message


async def test_what_a_creation_cannot_take_is_refused_and_not_dropped(client: Client) -> None:
    reply = await client.put("/admin/databases?name=Shop", {"RavenEtls": [{"Name": "x"}]})
    assert reply.status == 501
    assert "'RavenEtls'" in reply.message
    assert (await client.get("/databases?namesOnly=true")).json == {"Databases": []}


async def test_the_official_clients_empty_record_is_taken(client: Client) -> None:
    body = {
        "DatabaseName": "Shop", "Disabled": False, "Encrypted": False, "EtagForBackup": 0, "DeletionInProgress": None,
        "LockMode": None, "Topology": None, "Sorters": {}, "Indexes": {}, "AutoIndexes": None, "Settings": {},
        "PeriodicBackups": [], "ExternalReplications": [], "RavenConnectionStrings": {}, "SqlConnectionStrings": {},
        "RavenEtls": [], "SqlEtls": [], "Client": None, "TruncatedClusterTransactionCommand": 0,
    }  # fmt: skip
    assert (await client.put("/admin/databases?name=Shop&replicationFactor=1", body)).status == 201


async def test_databases_are_listed_by_name(client: Client) -> None:
    await client.database("b")
    await client.database("A")
    assert (await client.get("/databases?namesOnly=true&start=0&pageSize=25")).json == {"Databases": ["A", "b"]}
    assert (await client.get("/databases?start=1")).json["Databases"][0]["NodesTopology"]["Members"] == [
        {"NodeTag": "A", "NodeUrl": client.url, "ResponsibleNode": None}
    ]


async def test_a_deleted_database_is_gone_when_the_answer_comes(client: Client) -> None:
    await client.database()
    await client.put("/databases/Shop/docs?id=a", {"x": 1})
    reply = await client.delete("/admin/databases", {"DatabaseNames": ["Shop"], "HardDelete": True})
    assert reply.status == 200
    assert reply.json["PendingDeletes"] == []
    assert (await client.get("/admin/databases?name=Shop")).status == 404
    await client.database()
    assert (await client.get("/databases/Shop/docs?id=a")).status == 404


async def test_deleting_an_unknown_database_is_refused(client: Client) -> None:
    reply = await client.delete("/admin/databases", {"DatabaseNames": ["Nope"]})
    assert reply.status == 404
    assert "'Nope'" in reply.message


async def test_a_locked_database_is_not_deleted(client: Client) -> None:
    await client.database()
    lock = {"DatabaseNames": ["Shop"], "Mode": "PreventDeletesError"}
    assert (await client.post("/admin/databases/set-lock", lock)).status == 200
    reply = await client.delete("/admin/databases", {"DatabaseNames": ["Shop"]})
    assert reply.status == 403
    assert "locked" in reply.message


async def test_an_unknown_lock_mode_is_refused_by_name(client: Client) -> None:
    await client.database()
    reply = await client.post("/admin/databases/set-lock", {"DatabaseNames": ["Shop"], "Mode": "Perhaps"})
    assert reply.status == 400
    assert "$.Mode" in reply.message


async def test_a_disabled_database_takes_no_requests_until_it_is_enabled(client: Client) -> None:
    await client.database()
    reply = await client.post("/admin/databases/disable", {"DatabaseNames": ["Shop", "Nope"]})
    shop, nope = reply.json["Status"]
    assert shop == {"Name": "Shop", "Disabled": True, "Success": True, "Reason": None}
    assert nope["Success"] is False
    assert "does not exist" in nope["Reason"]
    refused = await client.get("/databases/Shop/docs?id=a")
    assert refused.status == 503
    assert "disabled" in refused.message
    await client.post("/admin/databases/enable", {"DatabaseNames": ["Shop"]})
    assert (await client.get("/databases/Shop/docs?id=a")).status == 404


async def test_members_are_reordered_only_as_a_whole(client: Client) -> None:
    await client.database()
    assert (await client.post("/admin/databases/reorder?name=Shop", {"MembersOrder": ["A"]})).status == 200
    reply = await client.post("/admin/databases/reorder?name=Shop", {"MembersOrder": ["B"]})
    assert reply.status == 400
    assert "MembersOrder" in reply.message


async def test_dynamic_distribution_is_switched_by_either_name(client: Client) -> None:
    await client.database()
    for name, value in (("enable", "true"), ("enabled", "false")):
        path = f"/admin/databases/dynamic-node-distribution?name=Shop&{name}={value}"
        assert (await client.post(path)).json["DynamicNodesDistribution"] is (value == "true")
    record = (await client.get("/admin/databases?name=Shop")).json
    assert record["Topology"]["DynamicNodesDistribution"] is False


async def test_no_node_is_left_to_join_a_group_that_has_them_all(client: Client) -> None:
    await client.database()
    assert "Add a node" in (await client.put("/admin/databases/node?name=Shop")).message
    assert "holds database" in (await client.put("/admin/databases/node?name=Shop&node=A")).message


async def test_promoting_a_member_changes_nothing(client: Client) -> None:
    await client.database()
    reply = await client.post("/admin/databases/promote?name=Shop&node=A")
    assert reply.status == 200
    assert reply.json["Topology"]["Members"] == ["A"]


async def test_a_name_of_128_letters_is_usable_whatever_their_bytes(client: Client) -> None:
    name = "д" * 128
    await client.database(quote(name))
    assert (await client.put(f"/databases/{quote(name)}/docs?id=a", {"A": 1})).status == 201
    assert (await client.get("/health/ready")).status == 200
    body = {"DatabaseNames": [name], "HardDelete": True, "TimeToWaitForConfirmation": "00:00:15"}
    reply = await client.delete("/admin/databases", body, **{REQUEST_ID: "r" * REQUEST_ID_LENGTH_MAX})
    assert reply.json["PendingDeletes"] == [], reply.text
    assert (await client.get("/databases?namesOnly=true")).json["Databases"] == []


async def test_a_request_id_that_is_too_long_is_refused(client: Client) -> None:
    reply = await client.put("/admin/databases?name=New", {}, **{REQUEST_ID: "r" * (REQUEST_ID_LENGTH_MAX + 1)})
    assert reply.status == 400
    assert f"{REQUEST_ID} is longer than {REQUEST_ID_LENGTH_MAX}" in reply.message


async def test_a_grace_that_is_no_number_of_minutes_is_refused(client: Client) -> None:
    setting = "Backup.MoveToNewResponsibleNodeGracePeriodInMin"
    for bad in ("soon", "-1", "10081", "1.5", ""):
        refused = await client.put("/admin/databases?name=Shop", {"Settings": {setting: bad}})
        assert refused.status == 400
        assert (
            f"The setting '{setting}' is '{bad}'; it must be a whole number of minutes, 0 to 10080" in refused.message
        )
    assert (await client.put("/admin/databases?name=Shop", {"Settings": {setting: "0"}})).status == 201
