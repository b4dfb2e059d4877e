"""A store as it is read after a delay: between real stores, with a clock that the test sets."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raftnode.documents.replication.delay import DelayedSource
from raftnode.documents.store.fencing import FencedRequest, FenceToken
from raftnode.documents.store.model import Batch, PutDocument
from raftnode.documents.store.store import DocumentStore

DELAY_S = 60


class HeldClock:
    """The wall clock, in s since 1970."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> int:
        return int(self.now_s * 1_000_000_000)


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
async def store(tmp_path: Path, clock: HeldClock) -> AsyncIterator[DocumentStore]:
    store = await DocumentStore.open(tmp_path / "a.sqlite", tag="A", database="Northwind", clock=clock)
    yield store
    await store.close()


async def read(source: DelayedSource, etag: int = 0) -> Batch:
    return await source.after(etag, limit=100, bytes_max=1 << 20)


async def test_a_version_and_a_deletion_are_handed_out_once_they_are_old_enough(
    store: DocumentStore, clock: HeldClock
) -> None:
    await store.put("a", {})
    source = DelayedSource(store, DELAY_S, clock)
    assert (await read(source)).items == []
    clock.now_s += DELAY_S - 1
    await store.delete("a")
    await store.put("b", {})
    clock.now_s += 2
    # Its first version would be old enough, and is gone: the deletion has taken its place, and is not.
    held = await read(source)
    assert (held.items, held.last_etag, held.change_vector, held.end) == ([], 1, "", True)
    clock.now_s += DELAY_S
    batch = await read(source, 1)
    assert [(item.id, item.deleted) for item in batch.items] == [("a", True), ("b", False)]
    assert (batch.last_etag, batch.change_vector) == (3, store.change_vector)


async def test_a_document_that_changes_all_the_time_holds_no_other_up(store: DocumentStore, clock: HeldClock) -> None:
    source = DelayedSource(store, DELAY_S, clock)
    etag, got = 0, dict[str, int]()
    for n in range(10):
        await store.put("hot", {"n": n})
        await store.put(f"cold/{n}", {})
        clock.now_s += DELAY_S / 2
        batch = await read(source, etag)
        etag = batch.last_etag
        got |= {item.id: n for item in batch.items}
        # Nothing is told of writes after the one that is left out.
        assert batch.change_vector == ""
    assert got == {f"cold/{n}": n + 1 for n in range(9)}
    clock.now_s += DELAY_S
    batch = await read(source, etag)
    assert [item.id for item in batch.items] == ["hot", "cold/9"]
    assert batch.change_vector == store.change_vector


async def test_a_session_that_begins_in_the_middle_tells_nothing_of_what_an_earlier_one_has_left_out(
    store: DocumentStore, clock: HeldClock
) -> None:
    await store.put("hot", {})
    await store.put("cold", {})
    clock.now_s += DELAY_S / 2
    await store.put("hot", {})
    clock.now_s += DELAY_S / 2 + 1
    batch = await read(DelayedSource(store, DELAY_S, clock))
    assert [item.id for item in batch.items] == ["cold"]
    assert batch.last_etag == 2
    later = DelayedSource(store, DELAY_S, clock)
    await store.put("new", {})
    clock.now_s += DELAY_S
    batch = await later.after(2, limit=1, bytes_max=1 << 20)
    assert (batch.last_etag, batch.change_vector) == (3, await store.known_at(3))


async def test_progress_of_tasks_that_write_here_is_told_only_with_all_that_it_counts(
    store: DocumentStore, clock: HeldClock
) -> None:
    source = DelayedSource(store, DELAY_S, clock)
    request = FencedRequest(token=FenceToken("cluster/shop", 7, 1, 1), progress=b'{"n":1}')
    await store.batch([PutDocument(id="x", document={}, collection="Orders")], request)
    assert (await read(source)).fences == ()
    clock.now_s += DELAY_S + 1
    assert [fence.progress for fence in (await read(source)).fences] == [b'{"n":1}']


async def test_it_waits_until_the_next_version_is_old_enough_and_else_for_a_change(
    store: DocumentStore, clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("raftnode.documents.replication.delay.asyncio.sleep", sleep)
    source = DelayedSource(store, DELAY_S, clock)
    await read(source)
    await source.wait_known(0, store.change_vector, 0.01)
    assert waits == []
    await store.put("a", {})
    clock.now_s += 20
    await read(source)
    await source.wait_known(0, store.change_vector, None)
    await source.wait_known(0, store.change_vector, 5)
    clock.now_s += 45
    await source.wait_known(0, store.change_vector, None)
    assert waits == pytest.approx([40, 5, 1])
