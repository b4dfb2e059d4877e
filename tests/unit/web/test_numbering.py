"""Numbers that the cluster gives: ranges for ids that clients make (HiLo), and identities."""

import asyncio
from typing import Any

import pytest

from raftnode.foundation import timestamps
from tests.unit.web.client import Client
from tests.unit.web.test_two_nodes import eventually, pair

__all__ = ["pair"]

DB = "/databases/Shop"


async def following(client: Client, **query: Any) -> tuple[int, int]:
    """The next range of `users`."""
    values = {"tag": "users"} | query
    reply = await client.get(f"{DB}/hilo/next?" + "&".join(f"{name}={value}" for name, value in values.items()))
    assert reply.status == 201, reply.text
    assert reply.json["Prefix"] == "users/"
    assert reply.json["LastSize"] == reply.json["High"] - reply.json["Low"] + 1
    return reply.json["Low"], reply.json["High"]


async def shown(client: Client) -> int:
    reply = await client.get(f"{DB}/docs?id=Raven/Hilo/users")
    assert reply.json["Results"][0]["@metadata"]["@collection"] == "@hilo"
    return int(reply.json["Results"][0]["Max"])


async def test_ranges_follow_each_other_and_grow_for_who_is_soon_back(client: Client) -> None:
    await client.database()
    assert await following(client) == (1, 32)
    assert await shown(client) == 32
    now = timestamps.now()
    assert await following(client, lastBatchSize=32, lastRangeAt=now) == (33, 96)
    assert await following(client, lastBatchSize=4096, lastRangeAt=now.removesuffix("Z")) == (97, 1120)
    assert await following(client, lastBatchSize=128, lastRangeAt="2026-01-01T00:00:00.0000000Z") == (1121, 1184)
    assert await following(client, lastMax=2000) == (2001, 2032)
    assert await shown(client) == 2032


async def test_a_range_that_somebody_has_written_into_the_document_counts(client: Client) -> None:
    await client.database()
    await client.put(f"{DB}/docs?id=Raven/Hilo/users", {"Max": 64, "@metadata": {"@collection": "@hilo"}})
    assert await following(client) == (65, 96)
    for written in ({"Max": 7}, {"Max": "x"}, {}):
        await client.put(f"{DB}/docs?id=Raven/Hilo/users", written | {"@metadata": {"@collection": "@hilo"}})
    assert await following(client) == (97, 128)
    assert await shown(client) == 128


async def test_only_the_last_range_is_given_back(client: Client) -> None:
    await client.database()
    await following(client)
    assert (await client.send("PUT", f"{DB}/hilo/return?tag=users&end=32&last=5")).status == 204
    assert await shown(client) == 5
    assert await following(client) == (6, 37)
    assert await following(client) == (38, 69)
    assert (await client.send("PUT", f"{DB}/hilo/return?tag=users&end=37&last=6")).status == 204
    assert await shown(client) == 69
    assert await following(client) == (70, 101)
    wrong = await client.send("PUT", f"{DB}/hilo/return?tag=users&end=5&last=6")
    assert (wrong.status, "'last'" in wrong.message) == (400, True)


@pytest.mark.parametrize("tag", ["x" * 101, "a%0Ab"])
async def test_a_tag_that_is_none_is_refused(client: Client, tag: str) -> None:
    await client.database()
    reply = await client.get(f"{DB}/hilo/next?tag={tag}")
    assert (reply.status, "'tag'" in reply.message) == (400, True)


async def test_whoever_is_asked_no_number_is_given_twice(pair: tuple[Client, Client]) -> None:
    made = await pair[0].put("/admin/databases?name=Shop", {"Topology": {"Members": ["A", "B"]}})
    assert made.status == 201, made.text
    await eventually("B has its copy", lambda: has_copy(pair[1]))
    found = await asyncio.gather(*(following(pair[number % 2]) for number in range(40)))
    numbers = [number for low, high in found for number in range(low, high + 1)]
    assert len(set(numbers)) == len(numbers) == 40 * 32
    values = await asyncio.gather(*(identity(pair[number % 2]) for number in range(20)))
    assert sorted(values) == list(range(1, 21))


async def has_copy(client: Client) -> bool:
    return (await client.get(f"{DB}/stats")).status == 200


async def identity(client: Client, name: str = "users|") -> int:
    reply = await client.post(f"{DB}/identity/next?name={name}")
    assert reply.status == 200, reply.text
    return int(reply.json["NewIdentityValue"])


async def test_identities_are_counted_set_and_shown(client: Client) -> None:
    await client.database()
    assert [await identity(client, name) for name in ("users|", "Users", "orders|")] == [1, 2, 1]

    async def seed(query: str) -> int:
        return int((await client.post(f"{DB}/identity/seed?name=users|&{query}")).json["NewSeedValue"])

    assert await seed("value=10") == 10
    assert await seed("value=5") == 10
    assert await seed("value=5&force=true") == 5
    assert await identity(client) == 6
    await following(client)
    assert (await client.get(f"{DB}/debug/identities")).json == {"orders|": 1, "users|": 6}


async def test_a_document_that_asks_for_an_identity_gets_the_next(client: Client) -> None:
    await client.database()
    first = await client.put(f"{DB}/docs?id=users|", {"Name": "a"})
    assert (first.status, first.json["Id"]) == (201, "users/1")
    ids = ("Users|", "plain", "orders|", "users|")
    commands: list[Any] = [{"Type": "PUT", "Id": id, "ChangeVector": None, "Document": {}} for id in ids]
    gone = {"Type": "DELETE", "Id": "users|", "ChangeVector": None}
    done = await client.post(f"{DB}/bulk_docs", {"Commands": [*commands, gone]})
    assert done.status == 201, done.text
    results = done.json["Results"]
    assert [result["@id"] for result in results[:4]] == ["Users/2", "plain", "orders/1", "users/3"]
    assert (results[4]["Id"], results[4]["Deleted"]) == ("users|", False)
