"""Several reads in one request."""

from typing import Any

from tests.unit.web.client import Client

DOCS = "/databases/Shop/docs"


async def asked(client: Client, *requests: dict[str, Any]) -> list[Any]:
    reply = await client.post("/databases/Shop/multi_get", {"Requests": list(requests)})
    assert reply.status == 200, reply.text
    results: list[Any] = reply.json["Results"]
    return results


async def test_each_read_is_answered_as_if_it_had_come_alone(client: Client) -> None:
    await client.database()
    await client.send("PUT", f"{DOCS}?id=orders/1", b'{"Price": 12345678901234567890.10, "Of": "orders/2"}')
    await client.put(f"{DOCS}?id=orders/2", {"Price": 2})
    [vector] = (await client.get(f"{DOCS}?id=orders/2")).headers.getall("ETag")
    found, missing, same, body, prefix, wrong = await asked(
        client,
        {"Url": DOCS, "Query": "?&id=orders%2F1&include=Of", "Method": None, "Headers": {}, "Content": None},
        {"Url": DOCS, "Query": "?&id=none"},
        {"Url": DOCS, "Query": "?&id=orders/2", "Headers": {"If-None-Match": vector, "Other": None}},
        {
            "Url": "/databases/shop/docs",
            "Query": "?loadHash=1",
            "Method": "POST",
            "Content": {"Ids": ["orders/2", "x"]},
        },
        {"Url": f"{DOCS}?startsWith=orders/&pageSize=1"},
        {"Url": DOCS, "Query": "?start=x"},
    )
    assert (found["StatusCode"], found["Result"]["Includes"]["orders/2"]["Price"]) == (200, 2)
    assert (missing["StatusCode"], missing["Result"]) == (404, None)
    assert (same["StatusCode"], same["Result"], same["Headers"]["ETag"]) == (304, None, vector)
    assert [item and item["Price"] for item in body["Result"]["Results"]] == [2, None]
    assert len(prefix["Result"]["Results"]) == 1
    assert (wrong["StatusCode"], "'start'" in wrong["Result"]["Message"]) == (400, True)
    text = (await client.post("/databases/Shop/multi_get", {"Requests": [{"Url": DOCS, "Query": "?id=orders/1"}]})).text
    assert "12345678901234567890.10" in text, "no digit is lost"


async def test_what_is_no_read_of_this_database_is_refused_by_name(client: Client) -> None:
    await client.database()
    await client.database("Other")
    for bad in (
        {"Url": DOCS, "Query": "?id=x", "Method": "DELETE"},
        {"Url": "/databases/Other/docs", "Query": "?id=x"},
        {"Url": "/admin/databases"},
        {"Url": f"{DOCS}/../stats"},
        {"Url": "http://[bad/docs"},
    ):
        reply = await client.post("/databases/Shop/multi_get", {"Requests": [{"Url": DOCS}, bad]})
        assert (reply.status, "Requests[1]" in reply.message) == (501, True), reply.text
    many = await client.post("/databases/Shop/multi_get", {"Requests": [{"Url": DOCS}] * 1001})
    assert (many.status, "at most 1000" in many.message) == (400, True)
    assert await asked(client) == []
