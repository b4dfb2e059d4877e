"""JSON patches of documents over HTTP, one by one and in batches."""

from typing import Any

from tests.unit.web.client import Client

DB = "/databases/Shop"


async def stored(client: Client) -> Any:
    [document] = (await client.get(f"{DB}/docs?id=orders/1")).json["Results"]
    return {key: value for key, value in document.items() if key != "@metadata"}, document["@metadata"]


def add(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def command(*operations: dict[str, Any], **more: Any) -> dict[str, Any]:
    patch = {"Type": "JsonPatch", "Id": "orders/1", "ChangeVector": None, "JsonPatch": {"Operations": operations}}
    return patch | more


async def orders(client: Client) -> None:
    await client.database()
    body = {"Lines": [1], "@metadata": {"@collection": "Orders", "By": "me"}}
    assert (await client.put(f"{DB}/docs?id=orders/1", body)).status == 201


async def test_a_document_is_changed_at_the_places_that_are_named(client: Client) -> None:
    await orders(client)
    _, before = await stored(client)
    done = await client.send("PATCH", f"{DB}/json-patch?id=Orders/1", {"Operations": [add("/Lines/-", 2)]})
    assert (done.status, done.json["Status"]) == (200, "Patched"), done.text
    document, metadata = await stored(client)
    assert document == {"Lines": [1, 2]}
    assert done.json["ModifiedDocument"] == document | {"@metadata": metadata}
    assert (metadata["@id"], metadata["@collection"], metadata["By"]) == ("orders/1", "Orders", "me")
    assert metadata["@change-vector"] != before["@change-vector"]
    test = {"Operations": [{"op": "test", "path": "/Lines/1", "value": 2}]}
    assert (await client.send("PATCH", f"{DB}/json-patch?id=orders/1", test)).json["Status"] == "NotModified"
    assert (await stored(client))[1] == metadata


async def test_a_patch_that_does_not_fit_changes_nothing_and_neither_does_its_batch(client: Client) -> None:
    await orders(client)
    before = await stored(client)
    copies = [{"op": "copy", "from": "/x", "path": f"/x{number}"} for number in range(30)]
    for bad, says in (
        (command(add("/None/x", 1)), "'orders/1' does not fit: Operations[0]"),
        (command(add("/x", 1), Id="orders/none"), "no document 'orders/none'"),
        (command(add("/x", 1), ChangeVector="A:1-AAAAAAAAAAAAAAAAAAAAAA"), "was expected"),
        (command(add("/x", "x" * 900_000), *copies), "Use several patches"),
        ({"Type": "JsonPatch", "Id": "orders/1"}, "Commands[1]"),
    ):
        put = {"Type": "PUT", "Id": "new", "Document": {}}
        reply = await client.post(f"{DB}/bulk_docs", {"Commands": [put, bad]})
        assert reply.status in (400, 409, 413), reply.text
        assert says in reply.message
    assert await stored(client) == before
    assert (await client.get(f"{DB}/docs?id=new")).status == 404


async def test_later_commands_of_a_batch_see_what_earlier_ones_have_done(client: Client) -> None:
    await orders(client)
    commands = [
        {"Type": "PUT", "Id": "orders/1", "Document": {"N": 1, "@metadata": {"@collection": "Orders"}}},
        command(add("/M", {}), add("/M/k", "v")),
        command({"op": "move", "from": "/M/k", "path": "/K"}, ReturnDocument=True),
        command({"op": "test", "path": "/K", "value": "v"}),
    ]
    reply = await client.post(f"{DB}/bulk_docs", {"Commands": commands})
    assert reply.status == 201, reply.text
    _, first, second, third = reply.json["Results"]
    assert (first["PatchStatus"], first["ModifiedDocument"]) == ("Patched", None)
    assert second["ModifiedDocument"]["K"] == "v"
    assert (third["PatchStatus"], third["ChangeVector"]) == ("NotModified", second["ChangeVector"])
    assert (await stored(client))[0] == {"N": 1, "M": {}, "K": "v"}


async def test_a_batch_is_refused_if_a_document_has_changed_that_its_session_has_read(client: Client) -> None:
    await orders(client)
    _, metadata = await stored(client)

    async def sent(**tracked: str) -> int:
        tracks = {
            "Type": "BatchTrackChanges",
            "TrackedEntities": {id.replace("_", "/"): v for id, v in tracked.items()},
        }
        reply = await client.post(
            f"{DB}/bulk_docs", {"Commands": [tracks, {"Type": "PUT", "Id": "new", "Document": {}}]}
        )
        if reply.status == 201:
            assert [result["Type"] for result in reply.json["Results"]] == ["BatchTrackChanges", "PUT"]
        return reply.status

    vector = metadata["@change-vector"]
    assert await sent(orders_1=vector, orders_2="") == 201
    assert await sent() == 201
    assert await sent(orders_1="") == 409
    assert await sent(orders_1=vector, new="") == 409
    await client.put(f"{DB}/docs?id=orders/1", {"Other": 1, "@metadata": {"@collection": "Orders"}})
    assert await sent(orders_1=vector) == 409
