"""Documents over HTTP, as the official client reads and writes them."""

import json
from typing import Any

import pytest

from tests.unit.web.client import Client

DOCS = "/databases/Shop/docs"


@pytest.fixture(autouse=True)
async def shop(client: Client) -> None:
    await client.database()


async def test_a_document_is_written_and_read_back_with_its_metadata(client: Client) -> None:
    body = {"Name": "Ann", "@metadata": {"@collection": "Users", "Raven-Python-Type": "m.User"}}
    put = await client.put(f"{DOCS}?id=users/1-A", body)
    assert put.status == 201
    assert put.json["Id"] == "users/1-A"
    got = await client.get(f"{DOCS}?&id=USERS%2F1-a")
    [document] = got.json["Results"]
    assert document["Name"] == "Ann"
    metadata = document["@metadata"]
    assert metadata.pop("@last-modified").endswith("Z")
    assert metadata == {
        "@id": "users/1-A",
        "@collection": "Users",
        "@change-vector": put.json["ChangeVector"],
        "Raven-Python-Type": "m.User",
    }
    assert got.headers["ETag"] == f'"{put.json["ChangeVector"]}"'


async def test_an_unchanged_document_is_not_sent_again(client: Client) -> None:
    vector = (await client.put(f"{DOCS}?id=a", {"x": 1})).json["ChangeVector"]
    reply = await client.get(f"{DOCS}?id=a", **{"If-None-Match": f'"{vector}"'})
    assert (reply.status, reply.text) == (304, "")
    await client.put(f"{DOCS}?id=a", {"x": 2})
    assert (await client.get(f"{DOCS}?id=a", **{"If-None-Match": f'"{vector}"'})).status == 200


async def test_numbers_keep_every_digit(client: Client) -> None:
    await client.put(f"{DOCS}?id=a", b'{"Price": 18.10, "Big": 12345678901234567890123}')
    text = (await client.get(f"{DOCS}?id=a")).text
    assert "18.10" in text
    assert "12345678901234567890123" in text


async def test_one_missing_document_is_404_and_one_of_several_is_null(client: Client) -> None:
    await client.put(f"{DOCS}?id=a", {"x": 1})
    assert (await client.get(f"{DOCS}?id=b")).status == 404
    results = (await client.get(f"{DOCS}?id=b&id=a")).json["Results"]
    assert results[0] is None
    assert results[1]["x"] == 1


async def test_many_ids_come_in_a_body(client: Client) -> None:
    await client.put(f"{DOCS}?id=a", {"x": 1})
    reply = await client.post(f"{DOCS}?&loadHash=1", {"Ids": ["a", "A", "b"]})
    assert [r and r["x"] for r in reply.json["Results"]] == [1, None]


async def test_included_documents_come_along_through_lists_too(client: Client) -> None:
    await client.put(f"{DOCS}?id=products/1", {"Name": "Chai"})
    await client.put(f"{DOCS}?id=companies/1", {"Name": "Alfreds"})
    order = {"Company": "companies/1", "Lines": [{"Product": "products/1"}, {"Product": "products/9"}]}
    await client.put(f"{DOCS}?id=orders/1", order)
    reply = await client.get(f"{DOCS}?id=orders/1&include=Company&include=Lines[].Product")
    assert set(reply.json["Includes"]) == {"companies/1", "products/1"}


async def test_metadata_only_leaves_the_fields_out(client: Client) -> None:
    await client.put(f"{DOCS}?id=a", {"x": 1})
    [document] = (await client.get(f"{DOCS}?id=a&metadataOnly=true")).json["Results"]
    assert set(document) == {"@metadata"}


async def test_a_write_over_a_stale_change_vector_is_a_conflict(client: Client) -> None:
    first = (await client.put(f"{DOCS}?id=a", {"x": 1})).json["ChangeVector"]
    second = (await client.put(f"{DOCS}?id=a", {"x": 2})).json["ChangeVector"]
    for method in ("PUT", "DELETE"):
        reply = await client.send(method, f"{DOCS}?id=a", {"x": 3}, {"If-Match": f'"{first}"'})
        assert reply.status == 409
        assert reply.json["ActualChangeVector"] == second
        assert reply.json["ExpectedChangeVector"] == first
    assert (await client.put(f"{DOCS}?id=a", {"x": 3}, **{"If-Match": f'"{second}"'})).status == 201


async def test_head_tells_of_a_document_without_sending_it(client: Client) -> None:
    vector = (await client.put(f"{DOCS}?id=a", {"x": 1})).json["ChangeVector"]
    assert (await client.send("HEAD", f"{DOCS}?id=a")).headers["ETag"] == f'"{vector}"'
    assert (await client.send("HEAD", f"{DOCS}?id=b")).status == 404


async def test_a_deleted_document_is_gone_and_deleting_it_again_is_no_error(client: Client) -> None:
    await client.put(f"{DOCS}?id=a", {"x": 1})
    assert (await client.delete(f"{DOCS}?id=a")).status == 204
    assert (await client.delete(f"{DOCS}?id=a")).status == 204
    assert (await client.get(f"{DOCS}?id=a")).status == 404


async def test_ids_are_made_where_they_are_asked_for(client: Client) -> None:
    assert (await client.put(f"{DOCS}?id=orders/", {"x": 1})).json["Id"].startswith("orders/0")
    assert len((await client.put(DOCS, {"x": 1})).json["Id"]) == 36


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"@metadata": 1}'])
async def test_what_is_no_document_is_refused(client: Client, body: bytes) -> None:
    reply = await client.put(f"{DOCS}?id=a", body)
    assert reply.status == 400
    assert "'a'" in reply.message


async def test_the_newest_documents_come_first_and_prefixes_by_id(client: Client) -> None:
    for id in ("b/2", "a/1", "b/1", "b/10"):
        await client.put(f"{DOCS}?id={id}", {"x": 1})

    async def ids(query: str) -> list[str]:
        return [d["@metadata"]["@id"] for d in (await client.get(f"{DOCS}?{query}")).json["Results"]]

    assert await ids("start=0&pageSize=2") == ["b/10", "b/1"]
    assert await ids("startsWith=B/") == ["b/1", "b/10", "b/2"]
    assert await ids("startsWith=b/&start=1&pageSize=1") == ["b/10"]
    assert await ids("startsWith=b/&matches=1*") == ["b/1", "b/10"]
    assert await ids("startsWith=b/&matches=1?|2") == ["b/10", "b/2"]
    assert await ids("startsWith=b/&exclude=?") == ["b/10"]
    assert await ids("startsWith=b/&startAfter=b/1") == ["b/10", "b/2"]


async def test_statistics_count_documents_by_collection(client: Client) -> None:
    await client.put(f"{DOCS}?id=a", {"@metadata": {"@collection": "Users"}})
    await client.put(f"{DOCS}?id=b", {"@metadata": {"@collection": "Orders"}})
    await client.delete(f"{DOCS}?id=b")
    stats = (await client.get("/databases/Shop/stats")).json
    assert (stats["CountOfDocuments"], stats["CountOfTombstones"]) == (1, 1)
    assert stats["DatabaseChangeVector"].startswith("A:")
    assert stats["SizeOnDisk"]["SizeInBytes"] > 0
    assert stats["TempBuffersSizeOnDisk"]["SizeInBytes"] == 0, "official clients fail without it"
    assert (await client.get("/databases/Shop/collections/stats")).json["Collections"] == {"Users": 1}


async def test_an_unknown_database_is_announced_as_official_clients_expect(client: Client) -> None:
    for path in ("/databases/Nope/docs?id=a", "/topology?name=Nope", "/databases/Nope/tasks"):
        reply = await client.get(path)
        assert reply.status == 503
        assert reply.headers["Database-Missing"] == "Nope"
        assert "DatabaseDoesNotExistException" in reply.json["Type"]


async def test_a_batch_is_all_or_nothing(client: Client) -> None:
    commands: list[dict[str, Any]] = [
        {"Id": "a", "ChangeVector": None, "Document": {"x": 1, "@metadata": {"@collection": "Users"}}, "Type": "PUT"},
        {"Id": "b", "ChangeVector": "", "Document": {"x": 2}, "Type": "PUT"},
        {"Id": "c", "ChangeVector": None, "Type": "DELETE"},
    ]
    reply = await client.post("/databases/Shop/bulk_docs", {"Commands": commands})
    assert reply.status == 201
    a, b, c = reply.json["Results"]
    assert (a["Type"], a["@id"], a["@collection"]) == ("PUT", "a", "Users")
    assert b["@change-vector"].startswith("A:")
    assert (c["Type"], c["Id"], c["Deleted"]) == ("DELETE", "c", False)
    again = await client.post("/databases/Shop/bulk_docs", {"Commands": [commands[0] | {"Id": "d"}, commands[1]]})
    assert again.status == 409
    assert again.json["Id"] == "b"
    assert (await client.get(f"{DOCS}?id=d")).status == 404


@pytest.mark.parametrize(
    ("command", "status", "say"),
    [
        ({"Type": "PATCH", "Id": "a"}, 501, "PATCH"),
        ({"Type": "PUT", "Id": "a"}, 400, "Document"),
        ({"Type": "DELETE"}, 400, "Id"),
        ({"Id": "a"}, 400, "Type"),
        ({"Type": "PUT", "Id": 7, "Document": {}}, 400, "Id"),
    ],
)
async def test_a_command_that_does_not_fit_is_refused(client: Client, command: object, status: int, say: str) -> None:
    reply = await client.post("/databases/Shop/bulk_docs", {"Commands": [command]})
    assert reply.status == status
    assert say in reply.message


async def test_a_cluster_wide_transaction_is_refused(client: Client) -> None:
    reply = await client.post("/databases/Shop/bulk_docs", {"Commands": [], "TransactionMode": "ClusterWide"})
    assert reply.status == 501


async def test_more_replicas_than_the_group_has_cannot_be_waited_for(client: Client) -> None:
    command: dict[str, Any] = {"Id": "a", "Document": {"x": 1}, "Type": "PUT"}
    path = "/databases/Shop/bulk_docs??&waitForReplicasTimeout=00:00:01&numberOfReplicasToWaitFor="
    assert (await client.post(path + "majority", {"Commands": [command]})).status == 201
    reply = await client.post(path + "2", {"Commands": [command | {"Id": "b"}]})
    assert reply.status == 400
    assert "numberOfReplicasToWaitFor" in reply.message
    assert (await client.get(f"{DOCS}?id=b")).status == 404


async def test_an_import_takes_an_array_of_commands(client: Client) -> None:
    assert (await client.get("/databases/Shop/operations/next-operation-id")).json["NodeTag"] == "A"
    items = [{"Id": f"u/{n}", "Type": "PUT", "Document": {"n": n, "s": '}"{\\'}} for n in range(1200)]
    reply = await client.post("/databases/Shop/bulk_insert?id=1", items)
    assert (reply.status, reply.text) == (200, "")
    assert (await client.get("/databases/Shop/stats")).json["CountOfDocuments"] == 1200
    assert (await client.get(f"{DOCS}?id=u/1199")).json["Results"][0]["s"] == '}"{\\'


async def test_an_import_takes_one_document_a_line(client: Client) -> None:
    lines = [{"@metadata": {"@id": f"u/{n}", "@collection": "Users"}, "Type": "x", "Document": n} for n in range(3)]
    body = "\n".join(json.dumps(line) for line in lines).encode() + b"\n"
    assert (await client.post("/databases/Shop/bulk_insert", body)).status == 200
    [document] = (await client.get(f"{DOCS}?id=u/2")).json["Results"]
    assert (document["Type"], document["Document"], document["@metadata"]["@collection"]) == ("x", 2, "Users")


@pytest.mark.parametrize(
    ("rest", "say"),
    [
        (b', {"Id": "b", "Type": "PUT", "Document": {"x"', "ends within item 2 (line 1)"),
        (b", 7]", "Before item 2"),
        (b"", "without the closing ']'"),
        (b', {"Id": "b", "Type": "PATCH", "Document": {}}]', "PATCH"),
        (b', {"x": 1}]', "@metadata.@id"),
        (b', {"Id": "b", "Type": "PUT", "Document": {"x" 1}}]', "not valid JSON"),
        (b"]}", "too many"),
    ],
)
async def test_a_broken_import_says_where_and_how_much_is_written(client: Client, rest: bytes, say: str) -> None:
    body = b'[{"Id": "a", "Type": "PUT", "Document": {"x": 1}}' + rest
    reply = await client.post("/databases/Shop/bulk_insert", body)
    assert reply.status in (400, 501)
    assert say in reply.message
    written = reply.json["Written"]
    assert f" {written} document{' before it is' if written == 1 else 's before it are'} written." in reply.message


async def test_an_import_names_the_line_and_counts_what_is_written(client: Client) -> None:
    good = '{"@metadata": {"@id": "a/%d", "@collection": "As"}}'
    for wrong, say in [
        ('{"@metadata": {"@id": "bad"}, "v": NaN}', "not valid JSON"),
        ('{"@metadata": {"@id": "bad"}, "v": -Infinity}', "not valid JSON"),
        ('{"@metadata": {"@id": "%s"}}' % ("x" * 600), "the limit is 512"),
        ('{"@metadata": {"@id": "a/1", "@collection": "Bs"}}', "cannot become one of 'Bs'"),
        ('{"@metadata": {"@id": "bad", "@collection": 7}}', "@collection"),
        ('{"@metadata": 7}', "@metadata"),
    ]:
        body = "\n\n".join([*(good % n for n in range(700)), wrong, good % 700]).encode()
        reply = await client.post("/databases/Shop/bulk_insert", body)
        assert reply.status == 400
        assert reply.message.startswith("Item 701 (line 1401) of the import: ")
        assert say in reply.message
        assert reply.message.endswith(" 700 documents before it are written.")
        assert {key: reply.json[key] for key in ("Item", "Line", "Written")} == {
            "Item": 701, "Line": 1401, "Written": 700,
        }  # fmt: skip
        assert (await client.get(f"{DOCS}?id=a/699")).status == 200
        assert (await client.get(f"{DOCS}?id=a/700")).status == 404


async def test_an_import_may_begin_with_a_byte_order_mark_and_be_no_utf_16(client: Client) -> None:
    item = '{"@metadata": {"@id": "a"}, "v": "é"}'
    for text in (item, f"[{item}]"):
        reply = await client.post("/databases/Shop/bulk_insert", text.encode("utf-8-sig") * 2)
        assert reply.status == 200, reply.text
    reply = await client.post("/databases/Shop/bulk_insert", item.encode("utf-16"))
    assert reply.status == 400
    assert "UTF-8" in reply.message
