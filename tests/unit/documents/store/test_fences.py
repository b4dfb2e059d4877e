"""The destination's side of the fence of ETL tasks: the named cases. Arbitrary schedules are in tests/properties."""

import msgspec
import pytest

from raftnode.documents.errors import DocumentInvalid, FenceStale
from raftnode.documents.replication.sender import decode, encode
from raftnode.documents.store import writes
from raftnode.documents.store.cleaning import ConsumedUpTo
from raftnode.documents.store.fencing import TOKENS_PER_DOCUMENT_MAX, FencedRequest, FenceToken, raised
from raftnode.documents.store.model import DeleteDocument, Document, PutDocument, ReplicationBatch
from raftnode.documents.store.store import DocumentStore
from tests.unit.documents.conftest import Opener, batch_of, exchange

EVERYBODY = 1 << 40
SOURCE = "cluster/shop"


def request(epoch: int, sequence: int, *, task: int = 7, progress: bytes | None = None) -> FencedRequest:
    return FencedRequest(token=FenceToken(SOURCE, task, epoch, sequence), progress=progress)


def put(id: str, content: str, collection: str = "Orders") -> PutDocument:
    return PutDocument(id=id, document={"by": content}, collection=collection)


async def with_fences(source: DocumentStore, after_etag: int) -> ReplicationBatch:
    batch = await source.after(after_etag, limit=1000, bytes_max=1 << 30)
    return msgspec.structs.replace(await batch_of(source, after_etag), fences=batch.fences)


async def standing(store: DocumentStore, id: str) -> Document | None:
    [found] = await store.get([id])
    return found


async def shows(store: DocumentStore, id: str, content: str | None) -> bool:
    found = await standing(store, id)
    return (found and found.body) == (content and b'{"by":"%s"}' % content.encode())


async def test_a_request_of_an_earlier_run_changes_nothing(opened: Opener) -> None:
    store = await opened()
    await store.batch([put("x", "new")], request(20, 1))
    with pytest.raises(
        FenceStale, match=r"a newer run of ETL task 7 of cluster/shop has been heard of here \(epoch 20"
    ):
        await store.batch([put("x", "old"), put("y", "old")], request(10, 99))
    assert await shows(store, "x", "new")
    assert await shows(store, "y", None)
    with pytest.raises(FenceStale, match="a later request of the run"):
        await store.batch([put("x", "delayed")], request(20, 1))
    await store.batch([put("x", "another task")], request(5, 1, task=8))
    assert await shows(store, "x", "another task"), "tasks are fenced one by one"


async def test_to_make_itself_known_is_enough_and_lasts(opened: Opener) -> None:
    store = await opened(file="x.sqlite")
    assert (await store.pass_fence(request(20, 3))).progress == b""
    await store.batch([put("x", "1")], request(20, 4, progress=b'{"n":1}'))
    await store.close()
    again = await opened(file="x.sqlite")
    with pytest.raises(FenceStale):
        await again.pass_fence(request(19, 9))
    known = await again.pass_fence(request(21, 1))
    assert (known.progress, known.progress_place, known.place) == (b'{"n":1}', (20, 4), (21, 1))


async def test_a_refused_operation_leaves_neither_progress_nor_place(opened: Opener) -> None:
    store = await opened()
    with pytest.raises(DocumentInvalid):
        await store.batch([put("x", "1"), DeleteDocument(id="no-slash", prefixed=True)], request(20, 2, progress=b"{}"))
    assert await shows(store, "x", None)
    assert (await store.pass_fence(request(20, 1))).progress == b""


async def test_the_progress_of_all_tasks_together_has_a_limit(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in memory, and a batch of replication with more than a batch may have would never be taken."""
    monkeypatch.setattr(writes, "PROGRESS_BYTES_MAX", 100)
    store = await opened()
    await store.pass_fence(request(20, 1, progress=b"x" * 60))
    await store.pass_fence(request(20, 2, progress=b"x" * 70))
    with pytest.raises(DocumentInvalid, match="40 bytes, and that of others which have written here 70; the limit is"):
        await store.pass_fence(request(20, 1, task=8, progress=b"x" * 40))
    assert (await store.pass_fence(request(20, 1, task=8, progress=b"x" * 30))).progress == b"x" * 30


async def test_what_ends_with_a_slash_is_deleted_by_prefix_or_not_at_all(opened: Opener) -> None:
    a, b = [await opened(tag) for tag in "AB"]
    await a.batch([put("x/1", "stands")], request(20, 1))
    await exchange(a, b)
    await a.batch([DeleteDocument(id="x/")], request(20, 2))
    await exchange(a, b)
    assert await shows(a, "x/1", "stands")
    assert await shows(b, "x/1", "stands")


async def test_the_newer_run_s_version_wins_on_every_node_whatever_the_clocks_say(opened: Opener) -> None:
    a, b, c = [await opened(tag) for tag in "ABC"]
    await b.batch([put("x", "new")], request(20, 1))
    await a.batch([put("x", "late")], request(10, 5))
    assert (await standing(a, "x")).last_modified > (await standing(b, "x")).last_modified  # type: ignore[union-attr]
    await exchange(a, b, c)
    for store in (a, b, c):
        assert await shows(store, "x", "new")
        with pytest.raises(FenceStale):
            await store.batch([put("x", "later still")], request(10, 6))


async def test_a_user_s_edit_rests_on_what_it_edits(opened: Opener) -> None:
    """It beats that and all before it, and the next of the task beats it."""
    a, b = await opened("A"), await opened("B")
    await a.batch([put("x", "1")], request(10, 2))
    await exchange(a, b)
    await a.put("x", {"by": "user"}, collection="Orders")
    with pytest.raises(FenceStale):
        await b.batch([put("x", "0")], request(10, 1))
    await exchange(a, b)
    assert await shows(b, "x", "user")
    await b.batch([put("x", "2")], request(10, 3))
    await a.put("x", {"by": "user again"}, collection="Orders")
    await exchange(a, b)
    assert await shows(a, "x", "2")
    assert await shows(b, "x", "2")


async def test_what_a_task_deletes_is_not_made_by_an_earlier_request_on_another_node(opened: Opener) -> None:
    a, b = await opened("A"), await opened("B")
    await b.batch([DeleteDocument(id="x")], request(20, 1))
    await a.batch([put("x", "late")], request(10, 1))
    await exchange(a, b)
    assert await shows(a, "x", None)
    assert await shows(b, "x", None)


async def test_what_cannot_be_there_leaves_no_tombstone(opened: Opener) -> None:
    store = await opened()
    long = "x" * 513
    operations = [DeleteDocument(id=long), DeleteDocument(id=f"{long}/", prefixed=True), DeleteDocument(id="a\nb")]
    assert await store.batch(operations, request(1, 1)) == [None, None, None]
    assert (await store.stats()).tombstones == 0


async def test_once_a_tombstone_is_purged_every_node_knows_the_run(opened: Opener) -> None:
    """So that a late request cannot raise the dead: a tombstone is purged when every node has had it."""
    a, b, c = [await opened(tag) for tag in "ABC"]
    await a.batch([put("x", "1")], request(10, 1))
    await exchange(a, b, c)
    await a.batch([DeleteDocument(id="x")], request(20, 1))
    await exchange(a, b, c)
    for store in (a, b, c):
        assert await store.purge_tombstones(ConsumedUpTo(EVERYBODY)) == 1
    for store in (a, b, c):
        with pytest.raises(FenceStale):
            await store.batch([put("x", "late")], request(10, 2))
    await exchange(a, b, c)
    assert await shows(c, "x", None)


async def test_a_deletion_by_prefix_reaches_what_another_node_was_late_to_write(opened: Opener) -> None:
    a, b, c = [await opened(tag) for tag in "ABC"]
    prefix = DeleteDocument(id="x/people/", prefixed=True)
    await a.batch([prefix, put("x/people/", "late", "People")], request(10, 1))
    await b.batch([prefix, put("x/people/", "new", "People")], request(20, 1))
    await exchange(a, c)
    assert len(await c.page(prefix="x/people/")) == 1
    await exchange(a, b, c)
    for store in (a, b, c):
        assert [d.body for d in await store.page(prefix="x/people/")] == [b'{"by":"new"}']
    [child] = await a.page(prefix="x/people/")
    assert child.id.endswith("-B")
    assert child.collection == "People"


async def test_a_deletion_by_prefix_beats_an_earlier_request_also_where_a_user_has_made_the_same_id(
    opened: Opener,
) -> None:
    a, b = await opened("A"), await opened("B")
    [made] = await a.batch([put("x/people/", "late", "People")], request(10, 1))
    assert made is not None
    await b.batch([DeleteDocument(id="x/people/", prefixed=True)], request(20, 1))
    await b.put(made.id, {"by": "user"}, collection="People")
    await exchange(a, b)
    assert await shows(a, made.id, None)
    assert await shows(b, made.id, None)
    assert b'{"by":"user"}' in [revision.body for revision in await b.revisions(made.id)]


async def test_who_is_no_etl_task_deletes_by_a_prefix_too(opened: Opener) -> None:
    store = await opened()
    for id in ("x/1", "x/2", "y/1"):
        await store.put(id, {})
    [last] = await store.batch([DeleteDocument(id="X/", prefixed=True)])
    assert last is not None
    assert [d.id for d in await store.page(prefix="")] == ["y/1"]
    assert (await store.stats()).tombstones == 2
    assert await store.batch([DeleteDocument(id="z/", prefixed=True)]) == [None]


async def test_an_etl_task_may_change_the_collection_of_a_document(opened: Opener) -> None:
    store = await opened()
    await store.put("x", {}, collection="Orders")
    await store.batch([put("x", "1", "Archive")], request(1, 1))
    found = await standing(store, "x")
    assert found is not None
    assert (found.collection, found.formerly) == ("Archive", (("x", "orders"),))


async def test_progress_reaches_another_node_only_with_all_that_it_counts(opened: Opener) -> None:
    a, b = await opened("A"), await opened("B")
    await a.batch([put("x", "1")], request(10, 1, progress=b'{"n":1}'))
    await a.batch([put("y", "1")], request(10, 2, progress=b'{"n":2}'))
    first = await a.after(0, limit=1, bytes_max=1 << 30)
    assert first.fences == ()
    await b.merge(await batch_of(a, 0, limit=1))
    assert (await b.pass_fence(request(10, 3))).progress == b""
    await b.merge(decode(encode(await with_fences(a, 1))))
    known = await b.pass_fence(request(10, 4))
    assert (known.progress, known.progress_place) == (b'{"n":2}', (10, 2))
    older = msgspec.structs.replace(await with_fences(a, 0), fences=())
    await b.merge(older)
    assert (await b.pass_fence(request(10, 5))).progress == b'{"n":2}'


async def test_a_batch_of_an_earlier_version_has_no_tokens(opened: Opener) -> None:
    """What the wire lacks has its default, and what an earlier version does not know it leaves out."""
    a, b = await opened("A"), await opened("B")
    await a.put("x", {"n": 1})
    now = msgspec.msgpack.decode(msgspec.msgpack.encode(await batch_of(a, 0)))
    then = [*now[:4], [document[:10] for document in now[4]], now[5]]
    await b.merge(msgspec.convert(then, ReplicationBatch))
    found = await standing(b, "x")
    assert found is not None
    assert found.fences == ()


async def test_too_many_tasks_for_a_document_or_a_database_are_refused(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened()
    for task in range(TOKENS_PER_DOCUMENT_MAX):
        await store.batch([put("x", "1")], request(1, 1, task=task))
    with pytest.raises(DocumentInvalid, match="written by more than 16 ETL tasks"):
        await store.batch([put("x", "1")], request(1, 1, task=99))
    await store.batch([DeleteDocument(id="x")], request(1, 2, task=99))
    monkeypatch.setattr(writes, "FENCES_MAX", TOKENS_PER_DOCUMENT_MAX + 1)
    with pytest.raises(DocumentInvalid, match="17 ETL tasks have written here"):
        await store.pass_fence(request(1, 1, task=100))


def test_a_token_that_is_raised_or_added_makes_a_version_greater() -> None:
    tokens = raised((), FenceToken("a", 1, 5, 5))
    for token in (
        FenceToken("a", 1, 5, 6),
        FenceToken("a", 1, 6, 1),
        FenceToken("a", 2, 1, 1),
        FenceToken("0", 9, 1, 1),
    ):
        assert raised(tokens, token) > tokens
        assert raised(tokens, token) == tuple(sorted(raised(tokens, token), reverse=True))
