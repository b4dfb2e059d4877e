"""Taking in what another store sends: the named cases. Arbitrary schedules are in tests/properties."""

import msgspec
import pytest

from raftnode.documents import change_vector as cv
from raftnode.documents.errors import ReplicationRefused
from raftnode.documents.store import writes
from raftnode.documents.store.cleaning import ConsumedUpTo
from raftnode.documents.store.model import Document, ReplicationBatch
from raftnode.documents.store.store import DocumentStore
from tests.unit.documents.conftest import Opener, batch_of, content, exchange

EVERYBODY = 1 << 40


async def test_what_one_writes_the_other_holds_and_a_repeat_changes_nothing(opened: Opener) -> None:
    a, b = await opened("A"), await opened("B")
    await a.put("x", {"n": 1}, collection="Orders")
    await a.put("y", {"n": 2})
    await a.delete("y")
    batch = await batch_of(a, 0)
    assert await b.merge(batch) == 3
    assert await content(b) == await content(a)
    assert b.change_vector == a.change_vector
    assert await b.accepted_from(a.database_id) == 3
    before = await b.stats()
    assert await b.merge(batch) == 3
    assert await b.stats() == before


async def test_a_stretch_with_a_gap_before_it_is_not_taken(opened: Opener) -> None:
    a, b = await opened("A"), await opened("B")
    await a.put("x", {})
    await a.put("y", {})
    assert await b.merge(await batch_of(a, 1)) == 0
    assert await content(b) == {}
    assert b.change_vector == ""


async def test_part_of_the_order_of_a_node_that_is_then_lost_promises_no_more_than_was_sent(opened: Opener) -> None:
    """A writes x and y, B takes both and overwrites x. C hears the first half of B's order, then B is lost for good.
    In plain etag order C would have got y, counted A's first two writes, and refused x for ever."""
    a, b, c = [await opened(tag) for tag in "ABC"]
    first, second = await a.put("x", {"by": "A"}), await a.put("y", {"by": "A"})
    for etag in (0, 1):
        await b.merge(await batch_of(a, etag, limit=1))
    overwritten = await b.put("x", {"by": "B"})
    half = await batch_of(b, 0, limit=1)
    assert [(d.id, d.body) for d in half.documents] == [("x", overwritten.body)]
    await c.merge(half)
    assert cv.dominates(c.change_vector, first.change_vector), "a successor of it is here"
    assert not cv.dominates(c.change_vector, second.change_vector)
    assert not cv.dominates(c.change_vector, overwritten.change_vector), "B's order was not taken in up to it"
    await exchange(a, c)
    assert await content(c) == await content(a)
    assert set(await content(a)) == {"x", "y"}


async def test_concurrent_writes_end_the_same_everywhere_and_the_loser_is_kept(opened: Opener) -> None:
    stores = [await opened(tag) for tag in "ABC"]
    versions = [await store.put("x", {"by": store.tag}) for store in stores]
    await exchange(*stores)
    winner = max(versions, key=lambda version: (version.last_modified, version.origin.partition("-")[2]))
    for store in stores:
        [held] = await store.get(["x"])
        assert held is not None
        assert (held.body, held.origin, held.resolved, held.flags) == (winner.body, winner.origin, True, "Resolved")
        assert cv.dominates(held.change_vector, cv.merge(*(version.change_vector for version in versions)))
        assert store.change_vector == stores[0].change_vector == held.change_vector
    for store, version in zip(stores, versions, strict=True):
        kept = [revision.body for revision in await store.revisions("X")]
        assert (version.body in kept) == (version != winner), "who wrote the loser keeps it"
        stats = await store.stats()
        assert stats.conflicts == stats.revisions == len(kept)
    next_version = await stores[0].put("x", {"n": 2})
    assert not next_version.resolved


async def test_revisions_of_a_document_are_limited(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "REVISIONS_PER_DOCUMENT_MAX", 3)
    a, b = await opened("A"), await opened("B")
    for n in range(6):
        await a.put("x", {"a": n})
        await b.put("x", {"b": n})
        await exchange(a, b)
    stats = await b.stats()
    assert stats.revisions == len(await b.revisions("x")) == 3
    assert stats.conflicts >= 6 - 3


async def test_a_deletion_reaches_the_others_and_does_not_come_back_when_its_tombstone_is_gone(opened: Opener) -> None:
    a, b = await opened("A"), await opened("B")
    await a.put("x", {"n": 1})
    late = await batch_of(a, 0)
    await exchange(a, b)
    await b.delete("x")
    await exchange(a, b)
    assert await a.get(["x"]) == [None]
    assert await a.purge_tombstones(ConsumedUpTo(EVERYBODY)) == 1
    assert (await a.stats()).tombstones == 0
    await a.merge(await batch_of(b, 0))
    assert await b.purge_tombstones(ConsumedUpTo(EVERYBODY)) == 1
    await b.merge(late)
    assert await content(b) == {}


async def test_a_document_made_again_beats_the_tombstone_that_another_node_still_has(opened: Opener) -> None:
    a, b = await opened("A"), await opened("B")
    await a.put("x", {"n": 1})
    await a.delete("x")
    await exchange(a, b)
    tombstone = (await batch_of(b, 0)).documents[0]
    assert await a.purge_tombstones(ConsumedUpTo(EVERYBODY)) == 1
    a._writer._clock = lambda: 0  # A's wall clock goes back to 1970.
    again = await a.put("x", {"n": 2})
    assert again.last_modified > tombstone.last_modified
    await exchange(a, b)
    assert await content(b) == {"x": (again.body, again.change_vector)}
    assert (await b.stats()).conflicts == 0


async def test_a_node_filled_without_a_tombstone_still_beats_it(opened: Opener) -> None:
    a, b, c = [await opened(tag) for tag in "ABC"]
    await a.put("x", {"n": 1})
    await a.delete("x")
    await exchange(a, b)
    assert await a.purge_tombstones(ConsumedUpTo(EVERYBODY)) == 1
    await c.merge(await batch_of(a, 0))
    c._writer._clock = lambda: 0
    again = await c.put("x", {"n": 2})
    await exchange(a, b, c)
    for store in (a, b, c):
        assert await content(store) == {"x": (again.body, again.change_vector)}


async def test_a_tombstone_that_came_ahead_of_its_place_stays_until_it_is_counted(opened: Opener) -> None:
    a, b, c = [await opened(tag) for tag in "ABC"]
    await a.put("x", {"n": 1})
    await a.put("x", {"n": 2})
    await b.merge(await batch_of(a, 0))
    late = await batch_of(b, 0)
    await a.put("y", {})
    await a.delete("x")
    ahead = await batch_of(a, 0, limit=1)
    assert ahead.documents[0].deleted
    await c.merge(msgspec.structs.replace(ahead, last_etag=1, knowledge=cv.dot("A", 1, a.database_id)))
    assert await c.purge_tombstones(ConsumedUpTo(EVERYBODY)) == 0, "nothing else keeps the second version out"
    await c.merge(late)
    assert await c.get(["x"]) == [None]


async def test_tombstones_wait_for_everybody(opened: Opener) -> None:
    a = await opened("A")
    for n in range(3):
        await a.put(f"d/{n}", {})
        await a.delete(f"d/{n}")
    assert await a.purge_tombstones(ConsumedUpTo(1)) == 0
    assert await a.purge_tombstones(ConsumedUpTo(2)) == 1
    assert await a.purge_tombstones(ConsumedUpTo(6, ((0, ""),))) == 0
    assert await a.purge_tombstones(ConsumedUpTo(6, ((4, ""),))) == 1
    assert await a.purge_tombstones(ConsumedUpTo(6, ((4, ""), (0, a.change_vector)))) == 0
    assert await a.purge_tombstones(ConsumedUpTo(6, ((0, a.change_vector),))) == 1
    assert (await a.stats()).tombstones == 0
    assert (await a.put("e", {})).etag == 7


async def test_the_log_of_old_places_is_thinned(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "OLD_PLACES_MIN", 0)
    a, b = await opened("A"), await opened("B")
    for n in range(20):
        await a.put("hot", {"n": n})
        await a.put(f"d/{n}", {})
    assert [d.id for d in (await a.after(0, limit=1, bytes_max=1)).items] == ["hot"]
    await a.purge_tombstones(ConsumedUpTo(40))
    assert [d.id for d in (await a.after(0, limit=1, bytes_max=1)).items] == ["hot"], "not worth it yet"
    for n in range(40):
        await a.put("hot", {"n": n})
    await a.purge_tombstones(ConsumedUpTo(80))
    first = await a.after(0, limit=1, bytes_max=1)
    assert [d.id for d in first.items] == ["d/0"]
    assert first.change_vector == "", "what stood before is not known any more"
    whole = await a.after(0, limit=100, bytes_max=1 << 20)
    assert (len(whole.items), whole.end, whole.change_vector) == (21, True, a.change_vector)
    await exchange(a, b)
    assert await content(b) == await content(a)


async def test_notes_of_knowledge_are_limited(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "KNOWLEDGE_ROWS_MAX", 4)
    a, b = await opened("A"), await opened("B")
    for n in range(30):
        await a.put(f"d/{n}", {})
        await b.merge(await batch_of(a, n))
    [(notes,)] = b._writer._connection.execute("SELECT count(*) FROM knowledge").fetchall()
    assert notes <= 4
    for etag in range(31):
        told = cv.etag_of((await b.after(0, limit=max(etag, 1), bytes_max=1 << 20)).change_vector, a.database_id)
        assert told <= max(etag, 1)
    assert b.change_vector == a.change_vector


async def test_a_batch_is_limited_by_documents_and_bytes_and_collections(store: DocumentStore) -> None:
    for n in range(10):
        await store.put(f"d/{n}", {"text": "x" * 100}, collection="Even" if n % 2 == 0 else "Odd")
    first = await store.after(0, limit=3, bytes_max=1 << 20)
    assert ([d.id for d in first.items], first.last_etag, first.end) == (["d/0", "d/1", "d/2"], 3, False)
    assert first.change_vector == f"A:3-{store.database_id}"
    assert len((await store.after(0, limit=100, bytes_max=250)).items) == 2
    assert len((await store.after(0, limit=100, bytes_max=1)).items) == 1
    odd = await store.after(0, limit=2, bytes_max=1 << 20, collections=frozenset({"odd"}))
    assert ([d.id for d in odd.items], odd.last_etag, odd.end) == (["d/1", "d/3"], 5, False)
    rest = await store.after(9, limit=2, bytes_max=1 << 20, collections=frozenset({"Odd"}))
    assert ([d.id for d in rest.items], rest.last_etag, rest.end) == (["d/9"], 10, True)
    nothing = await store.after(10, limit=2, bytes_max=1)
    assert (nothing.items, nothing.last_etag, nothing.end) == ([], 10, True)


async def test_a_database_does_not_take_in_itself(store: DocumentStore) -> None:
    with pytest.raises(ReplicationRefused, match="cannot replicate to itself"):
        await store.merge(ReplicationBatch(store.database_id, 0, 1, "", ()))


@pytest.mark.parametrize("in_knowledge", [True, False])
async def test_a_file_that_was_replaced_by_an_older_copy_is_found_out(opened: Opener, in_knowledge: bool) -> None:
    a, b = await opened("A"), await opened("B")
    lost = cv.dot("A", 900, a.database_id)
    item = Document("x", "@empty", b"{}", 1, lost, "2026-01-01T00:00:00.0000000Z", origin=lost)
    batch = ReplicationBatch(b.database_id, 0, 1, lost if in_knowledge else "", () if in_knowledge else (item,))
    with pytest.raises(ReplicationRefused, match="replaced by an older copy"):
        await a.merge(batch)
    assert await a.accepted_from(b.database_id) == 0


@pytest.mark.parametrize(
    "change",
    [{"last_modified": "yesterday"}, {"origin": ""}, {"origin": "A:2-" + "z" * 22}, {"id": ""}, {"change_vector": "?"}],
)
async def test_a_malformed_document_is_refused_and_the_whole_batch_with_it(
    opened: Opener, change: dict[str, str]
) -> None:
    a, b = await opened("A"), await opened("B")
    await a.put("x", {})
    await a.put("y", {})
    batch = await batch_of(a, 0)
    bad = msgspec.structs.replace(batch.documents[1], **change)
    with pytest.raises(ReplicationRefused, match="malformed"):
        await b.merge(msgspec.structs.replace(batch, documents=(batch.documents[0], bad)))
    assert await content(b) == {}
