"""Ids as the official client makes them and asks for them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ravendb import DocumentStore
from ravendb.documents.operations.identities import (
    GetIdentitiesOperation,
    NextIdentityForOperation,
    SeedIdentityForOperation,
)

from tests.unit.web.client import Client
from tests.unit.web.conftest import running, settings_in


class Customer:
    def __init__(self, name: str = "") -> None:
        self.name = name


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Client]:
    async with running(settings_in(tmp_path / "data")) as client:
        await client.database()
        yield client


def opened(node: Client) -> DocumentStore:
    store = DocumentStore([node.url], "Shop")
    store.initialize()
    return store


async def test_entities_that_are_stored_without_an_id_get_one_each(node: Client) -> None:
    def store_some(store: DocumentStore) -> list[Any]:
        with store.open_session() as session:
            users = [Customer(f"user {number}") for number in range(40)]
            for user in users:
                session.store(user)
            session.save_changes()
            return [session.advanced.get_document_id(user) for user in users]

    # One a thread: threads of one store count up the same range without a lock.
    stores = [opened(node) for _ in range(8)]
    made = await asyncio.gather(*(asyncio.to_thread(store_some, store) for store in stores))
    ids = {id for some in made for id in some}
    assert len(ids) == 8 * 40
    assert all(id.startswith("customers/") and id.endswith("-A") for id in ids)
    assert (await node.get("/databases/Shop/collections/stats")).json["Collections"] == {"Customers": 320, "@hilo": 1}
    given = await hilo(node)
    for store in stores:
        await asyncio.to_thread(store.close)
    assert await hilo(node) < given, "who closes gives back what is left of the last range"


async def hilo(node: Client) -> int:
    [document] = (await node.get("/databases/Shop/docs?id=Raven/Hilo/customers")).json["Results"]
    return int(document["Max"])


async def test_identities_are_asked_for_set_and_listed(node: Client) -> None:
    store = opened(node)

    def asked() -> None:
        send = store.maintenance.send
        assert send(NextIdentityForOperation("users|")) == 1
        assert send(SeedIdentityForOperation("users", 10)) == 10
        assert send(SeedIdentityForOperation("users", 5)) == 10
        assert send(SeedIdentityForOperation("users", 5, True)) == 5
        with store.open_session() as session:
            session.store(Customer("by an identity"), "users|")
            session.save_changes()
        with store.open_session() as session:
            assert session.load("users/6", Customer).name == "by an identity"
        assert send(GetIdentitiesOperation()) == {"users|": 6}
        store.close()

    await asyncio.to_thread(asked)
