import asyncio
import re
from pathlib import Path

import msgspec
import pytest

from raftnode.documents.errors import ConcurrencyViolation, DocumentInvalid, StoreBusy, StoreClosed, StoreFailed
from raftnode.documents.store import body, checks, commit
from raftnode.documents.store.model import DeleteDocument, PutDocument
from raftnode.documents.store.store import DocumentStore
from tests.unit.documents.conftest import Opener


async def test_a_document_comes_back_under_its_id_in_any_case(store: DocumentStore) -> None:
    put = await store.put("Orders/1-A", {"Company": "ALFKI", "@metadata": {"@collection": "Orders"}})
    [found, missing] = await store.get(["oRDERS/1-a", "orders/2-a"])
    assert found == put
    assert missing is None
    assert (found.id, found.collection, found.etag) == ("Orders/1-A", "Orders", 1)
    assert found.change_vector == f"A:1-{store.database_id}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z", found.last_modified)


async def test_numbers_keep_every_digit_and_users_metadata_is_kept(store: DocumentStore) -> None:
    text = b'{"price": 14.00, "big": 123456789012345678901234567890, "@metadata": {"@id": "x", "Py-Type": "O"}}'
    put = await store.put("a", text)
    assert put.body == b'{"price":14.00,"big":123456789012345678901234567890,"@metadata":{"Py-Type":"O"}}'
    assert msgspec.json.decode(body.with_metadata(put))["@metadata"] == {
        "Py-Type": "O",
        "@collection": "@empty",
        "@change-vector": put.change_vector,
        "@id": "a",
        "@last-modified": put.last_modified,
    }


async def test_an_update_keeps_the_first_spelling_and_grows_the_vector(store: DocumentStore) -> None:
    first = await store.put("Users/1", {"n": 1})
    second = await store.put("users/1", {"n": 2})
    assert second.id == "Users/1"
    assert second.etag == 2
    assert second.last_modified > first.last_modified
    assert second.change_vector == f"A:2-{store.database_id}"


async def test_an_id_with_a_slash_at_the_end_gets_a_number_and_the_tag(store: DocumentStore) -> None:
    await store.put("users/0000000000000000002-A", {"taken": True})
    first = await store.put("users/", {})
    assert first.id == "users/0000000000000000003-A"
    assert (await store.put("users/", {})).id == "users/0000000000000000004-A"
    assert len((await store.put("", {})).id) == 36


@pytest.mark.parametrize(
    ("id", "document", "complaint"),
    [
        ("a", b"[1]", "must be a JSON object"),
        ("a", b'{"a": ', "not valid JSON"),
        ("a", b'{"a": "\xff"}', "not valid JSON"),
        ("a", b'{"a":' + b"[" * 101 + b"]" * 101 + b"}", "nested deeper than 100"),
        ("a", b'{"a":' + b"[" * 9999 + b"]" * 9999 + b"}", "nested deeper than 100"),
        ("a", {"a": object()}, "cannot be written as JSON"),
        ("a", {"a": "\ud800"}, "cannot be written as JSON"),
        ("a", {"@metadata": []}, "@metadata of document 'a' must be a JSON object"),
        ("a", {"@metadata": {"@collection": 5}}, "@collection"),
        ("a", {"@metadata": {"@collection": "x" * 257}}, "the limit is 256"),
        ("ä" * 257, {}, "514 bytes, the limit is 512"),
        ("a\nb", {}, "control character"),
        ("\ud800", {}, "not valid Unicode"),
        ("orders|", {}, "cluster-wide identity"),
        (7, {}, "must be text"),
    ],
)
async def test_a_bad_document_is_refused_with_the_reason(
    store: DocumentStore, id: str, document: dict[str, object] | bytes, complaint: str
) -> None:
    with pytest.raises(DocumentInvalid, match=re.escape(complaint)):
        await store.put(id, document)
    assert (await store.stats()).documents == 0


async def test_nesting_up_to_the_limit_is_taken(store: DocumentStore) -> None:
    assert await store.put("a", b'{"a":' + b"[" * 99 + b"]" * 99 + b',"b":[[1],[2],{"c":[]}]}')


async def test_a_document_beyond_the_size_limit_is_refused(
    store: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "DOCUMENT_BYTES_MAX", 100)
    with pytest.raises(DocumentInvalid, match="the limit is 100"):
        await store.put("a", {"text": "x" * 100})


async def test_a_collection_changes_only_by_deleting_first(store: DocumentStore) -> None:
    await store.put("a", {}, collection="Orders")
    with pytest.raises(DocumentInvalid, match="delete it first"):
        await store.put("a", {}, collection="Users")
    assert (await store.put("a", {}, collection="orders")).collection == "Orders"
    await store.delete("a")
    assert (await store.put("a", {}, collection="Users")).collection == "Users"


async def test_the_other_places_of_a_document_are_remembered_up_to_a_limit(store: DocumentStore) -> None:
    for n in range(checks.PLACES_PER_DOCUMENT_MAX + 1):
        await store.put("Orders/1", {}, collection=f"C{n}")
        await store.delete("orders/1")
    with pytest.raises(DocumentInvalid, match="more than 64 other collections or spellings of its id"):
        await store.put("orders/1", {}, collection="Orders")
    again = await store.put("Orders/1", {}, collection="c0")
    assert len(again.formerly) == checks.PLACES_PER_DOCUMENT_MAX
    assert ("Orders/1", "c1") in again.formerly
    assert again.place not in again.formerly
    batch = await store.after(0, limit=10, bytes_max=1 << 20, collections=frozenset({"C5"}))
    assert [document.id for document in batch.items] == ["Orders/1"]


async def test_the_expected_change_vector_is_checked(store: DocumentStore) -> None:
    first = await store.put("a", {}, expected="")
    with pytest.raises(ConcurrencyViolation) as caught:
        await store.put("a", {}, expected="")
    assert (caught.value.expected, caught.value.actual) == ("", first.change_vector)
    second = await store.put("A", {"n": 2}, expected=first.change_vector)
    for stale in (first.change_vector, "nonsense"):
        with pytest.raises(ConcurrencyViolation):
            await store.delete("a", expected=stale)
    tombstone = await store.delete("a", expected=second.change_vector)
    assert tombstone is not None
    assert tombstone.deleted
    with pytest.raises(ConcurrencyViolation, match="does not exist"):
        await store.put("a", {}, expected=second.change_vector)
    with pytest.raises(ConcurrencyViolation):
        await store.delete("a", expected=second.change_vector)
    assert await store.delete("a", expected="") is None
    assert (await store.put("a", {}, expected="")).change_vector == f"A:4-{store.database_id}"


async def test_a_batch_is_all_or_nothing(store: DocumentStore) -> None:
    await store.put("kept", {})
    with pytest.raises(ConcurrencyViolation):
        await store.batch(
            [
                PutDocument(id="a", document={}),
                DeleteDocument(id="kept"),
                PutDocument(id="b", document={}, expected="A:1-x"),
            ]
        )
    stats = await store.stats()
    assert (stats.documents, stats.tombstones, stats.last_etag) == (1, 0, 1)
    results = await store.batch(
        [PutDocument(id="a", document={}), DeleteDocument(id="kept"), DeleteDocument(id="never")]
    )
    assert [result and result.deleted for result in results] == [False, True, None]


async def test_one_failure_in_a_group_harms_no_other(store: DocumentStore) -> None:
    await store.put("taken", {})
    outcomes = await asyncio.gather(
        *(store.put(f"d/{n}", {}) for n in range(50)),
        store.put("taken", {}, expected=""),
        *(store.put(f"e/{n}", {}) for n in range(50)),
        return_exceptions=True,
    )
    failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert [type(error) for error in failed] == [ConcurrencyViolation]
    stats = await store.stats()
    assert (stats.documents, stats.last_etag) == (101, 101)
    batch = await store.after(0, limit=1000, bytes_max=1 << 20)
    assert [item.etag for item in batch.items] == list(range(1, 102))


async def test_too_many_waiting_writes_are_refused(store: DocumentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "PENDING_WRITES_MAX", 5)
    outcomes = await asyncio.gather(*(store.put(f"d/{n}", {}) for n in range(50)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, StoreBusy)]
    assert refused
    assert "the limits are 5" in str(refused[0])
    assert (await store.stats()).documents == 50 - len(refused)


async def test_pages_are_by_id_with_a_prefix_and_else_newest_first(store: DocumentStore) -> None:
    for id, collection in [("b/2", "B"), ("a/1", "A"), ("B/1", "B"), ("b/3", "B"), ("b%", "C")]:
        await store.put(id, {}, collection=collection)
    await store.delete("b/3")
    assert [d.id for d in await store.page(prefix="b/")] == ["B/1", "b/2"]
    assert [d.id for d in await store.page()] == ["b%", "B/1", "a/1", "b/2"]
    assert [d.id for d in await store.page(start=1, size=2)] == ["B/1", "a/1"]
    assert [d.id for d in await store.page(collection="b")] == ["B/1", "b/2"]


async def test_counts_follow_every_change(store: DocumentStore) -> None:
    await store.put("a", {}, collection="Orders")
    await store.put("b", {}, collection="orders")
    await store.put("c", {})
    await store.delete("c")
    stats = await store.stats()
    assert stats.collections == {"orders": 2}
    assert (stats.documents, stats.tombstones, stats.last_etag) == (2, 1, 4)
    assert stats.size_bytes > 0
    assert stats.database_change_vector == f"A:4-{store.database_id}"
    await store.put("c", {}, collection="Users")
    assert (await store.stats()).collections == {"orders": 2, "Users": 1}
    assert (await store.stats()).tombstones == 0


async def test_everything_is_there_after_opening_again(opened: Opener) -> None:
    store = await opened(file="x.sqlite")
    await store.put("a", {"n": 1}, collection="Orders")
    await store.delete("a")
    await store.put("b", {"n": 2})
    await store.set_metadata("cursor", "1")
    await store.set_metadata("cursor", "2")
    before = await store.stats()
    await store.close()
    again = await opened(file="x.sqlite")
    assert again.database_id == store.database_id
    after = await again.stats()
    assert msgspec.structs.replace(after, size_bytes=0) == msgspec.structs.replace(before, size_bytes=0)
    assert await again.metadata("cursor") == "2"
    assert await again.metadata("other") is None
    assert (await again.put("c", {})).etag == 4
    assert again.last_etag == 4


async def test_waiting_ends_with_a_change_or_with_the_time(store: DocumentStore) -> None:
    assert await store.wait_changed(0, 0.01) == 0
    waiter = asyncio.create_task(store.wait_changed(0, None))
    await asyncio.sleep(0)
    assert not waiter.done()
    await store.put("a", {})
    assert await waiter == 1
    assert await store.wait_changed(0, None) == 1


async def test_a_closed_store_says_so_and_wakes_who_waits(store: DocumentStore) -> None:
    waiter = asyncio.create_task(store.wait_changed(9, None))
    writer = asyncio.create_task(store.put("a", {}))
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    assert (await writer).etag == 1
    with pytest.raises(StoreClosed, match="closed"):
        await waiter
    with pytest.raises(StoreClosed):
        await store.get(["a"])
    with pytest.raises(StoreClosed):
        await store.put("b", {})


async def test_a_cancelled_reader_leaves_its_place_to_others(store: DocumentStore) -> None:
    for n in range(20):
        await store.put(f"d/{n}", {"text": "x" * 1000})
    readers = [asyncio.create_task(store.page(size=20)) for _ in range(20)]
    await asyncio.sleep(0)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    assert len(await store.page(size=100)) == 20


async def test_a_cancelled_writer_harms_no_other(store: DocumentStore) -> None:
    writes = [asyncio.create_task(store.put(f"d/{n}", {})) for n in range(20)]
    await asyncio.sleep(0)
    writes[3].cancel()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) == 1
    assert (await store.put("last", {})).etag >= 20


async def test_a_clock_that_goes_back_does_not_make_an_update_older(tmp_path: Path) -> None:
    times = iter([1_700_000_000_000_000_000, 0])
    store = await DocumentStore.open(tmp_path / "x.sqlite", tag="A", database="x", clock=lambda: next(times))
    first = await store.put("a", {})
    second = await store.put("a", {"n": 2})
    assert (first.last_modified, second.last_modified) == (
        "2023-11-14T22:13:20.0000000Z",
        "2023-11-14T22:13:20.0000001Z",
    )
    await store.close()


async def test_a_path_too_long_for_sqlite_is_named_with_its_setting(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d" * 100] * 5)
    with pytest.raises(
        StoreFailed, match=r"has \d+ bytes and SQLite opens up to 504: give node.data_dir a shorter one"
    ):
        await DocumentStore.open(deep / "x.sqlite", tag="A", database="Shop", mark=tmp_path / "mark")
