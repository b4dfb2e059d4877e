"""A snapshot stays as it was while writes go on, and a store that is built is like one that was written."""

import asyncio
from pathlib import Path

import pytest

from raftnode.documents.errors import StoreClosed
from raftnode.documents.store.building import StoreBuilder
from raftnode.documents.store.snapshot import SnapshotRow
from raftnode.documents.store.store import DocumentStore


async def filled(path: Path, count: int = 20) -> DocumentStore:
    store = await DocumentStore.open(path / "s.sqlite", tag="A", database="Shop")
    for number in range(count):
        await store.put(f"orders/{number}", {"Number": number}, collection="Orders")
    return store


async def test_a_snapshot_is_what_stood_when_it_was_taken(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await store.delete("orders/0")
    async with store.snapshot() as (moment, snapshot):
        vector, etag = store.change_vector, store.last_etag
        await store.put("orders/1", {"Number": 100}, collection="Orders")
        await store.delete("orders/2")
        found: list[SnapshotRow] = []
        after = 0
        while rows := await snapshot.slice(after, deleted=False, bytes_max=30):
            assert len(rows) <= 3
            found += rows
            after = rows[-1][3]
        gone = await snapshot.slice(0, deleted=True, bytes_max=1)
    assert (moment.last_etag, moment.change_vector, moment.documents) == (etag, vector, 19)
    assert [(row[0], row[2]) for row in found] == [(f"orders/{n}", b'{"Number":%d}' % n) for n in range(1, 20)]
    assert [row[0] for row in gone] == ["orders/0"]
    await store.close()


async def test_a_document_that_is_larger_than_a_slice_is_a_slice_of_its_own(tmp_path: Path) -> None:
    store = await filled(tmp_path, 0)
    await store.put("large", {"Text": "x" * 1000}, collection="Orders")
    await store.put("small", {}, collection="Orders")
    async with store.snapshot() as (_, snapshot):
        assert [row[0] for row in await snapshot.slice(0, deleted=False, bytes_max=10)] == ["large"]
        assert [row[0] for row in await snapshot.slice(1, deleted=False, bytes_max=10)] == ["small"]
        assert await snapshot.slice(2, deleted=False, bytes_max=10) == []
    await store.close()


async def test_closing_a_store_ends_its_snapshots(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    async with store.snapshot() as (_, snapshot):
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        with pytest.raises(StoreClosed):
            await snapshot.slice(0, deleted=False, bytes_max=1)
        assert not closing.done()
    await closing
    with pytest.raises(StoreClosed):
        async with store.snapshot():
            pass


async def test_a_store_that_was_built_opens_and_goes_on_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "built" / "s.sqlite"
    builder = StoreBuilder(path, tag="B", database="Again")
    builder.put((f"orders/{n}", "Orders", b'{"Number":%d}' % n, "2026-05-01T00:00:00.0000000Z") for n in range(10))
    builder.put([("ORDERS/1", "orders", b'{"Number":11}', "2026-05-02T00:00:00.0000000Z")])
    builder.put([("x", "Other", b"{}", "2026-05-02T00:00:00.0000000Z")])
    builder.remove(["Orders/2", "nope"])
    assert builder.finish() == 10
    store = await DocumentStore.open(path, tag="B", database="Again")
    stats = await store.stats()
    assert (stats.documents, stats.tombstones, stats.last_etag) == (10, 0, 12)
    assert {name.lower(): count for name, count in stats.collections.items()} == {"orders": 9, "other": 1}
    [changed] = await store.get(["orders/1"])
    assert changed is not None
    assert (changed.id, changed.body, changed.last_modified) == (
        "ORDERS/1", b'{"Number":11}', "2026-05-02T00:00:00.0000000Z",
    )  # fmt: skip
    batch = await store.after(0, limit=100, bytes_max=1 << 20)
    assert len(batch.items) == 10
    assert batch.change_vector == store.change_vector
    await store.put("orders/1", {}, collection="Orders")
    await store.delete("x")
    stats = await store.stats()
    assert (stats.documents, stats.tombstones) == (9, 1)
    await store.close()


def test_a_store_that_is_abandoned_is_gone(tmp_path: Path) -> None:
    builder = StoreBuilder(tmp_path / "s.sqlite", tag="B", database="Again")
    builder.put([("x", "Other", b"{}", "now")])
    builder.abandon()
    assert list(tmp_path.iterdir()) == []
