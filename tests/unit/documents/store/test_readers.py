"""Reading connections are kept for the next reading, but few of them."""

import os
import sqlite3

import pytest

from raftnode.documents.store import store as stores
from raftnode.documents.store.readers import IdleReaders
from tests.unit.documents.conftest import Opener


def is_open(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return False
    return True


def test_the_one_that_was_not_used_for_longest_is_closed() -> None:
    readers, stores = IdleReaders(2), [object() for _ in range(3)]
    connections = [sqlite3.connect(":memory:") for _ in stores]
    for store, connection in zip(stores, connections, strict=True):
        readers.give_back(store, connection)
    assert [is_open(connection) for connection in connections] == [False, True, True]
    assert readers.take(stores[0]) is None
    assert readers.take(stores[1]) is connections[1]
    assert readers.take(stores[1]) is None, "it has been taken"
    readers.give_back(stores[1], connections[1])
    readers.close(stores[2])
    assert [is_open(connection) for connection in connections] == [False, True, False]
    readers.close(stores[1])


async def test_many_stores_that_are_read_keep_few_connections(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_idle_readers", IdleReaders(3))
    several = [await opened(tag) for tag in "ABCDEFGH"]
    for turn in range(3):
        for store in several:
            await store.put("a", {"turn": turn})
            [document] = await store.get(["a"])
            assert document is not None
    assert len(stores._idle_readers._kept) == 3
    for store in several:
        await store.close()
    assert stores._idle_readers._kept == []


async def test_a_write_that_changes_nothing_leaves_the_file_alone(opened: Opener) -> None:
    store = await opened("A")
    await store.put("a", {})
    log = f"{store.path}-wal"
    before = os.stat(log).st_size
    await store.metadata("nothing")
    assert await store.delete("b") is None
    assert os.stat(log).st_size == before
