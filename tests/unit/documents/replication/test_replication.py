"""Senders and receivers over real HTTP on loopback, between real stores."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import permutations, product

import msgpack
import msgspec
import pytest

from raftnode.documents.errors import ReplicationRefused
from raftnode.documents.replication import sender as replication
from raftnode.documents.replication.sender import Destination, DocumentSender, decode, encode
from raftnode.documents.store.model import ReplicationBatch
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation.http_client import HttpClient
from tests.unit.documents.conftest import Opener, ReceivingEnd, batch_of, content, receiving, until


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient() as client:
        yield client


@asynccontextmanager
async def sending(
    source: DocumentStore, to: ReceivingEnd, http: HttpClient, documents_max: int = 1024
) -> AsyncIterator[DocumentSender]:
    destination = Destination(to.store.tag, to.url, "North wind")
    sender = DocumentSender(source, destination, http, batch_documents_max=documents_max, heard=source.heard_of)
    task = asyncio.create_task(sender.run())
    try:
        yield sender
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_documents_and_deletions_arrive_and_a_new_sender_goes_on_where_the_last_one_ended(
    opened: Opener, http: HttpClient
) -> None:
    a, b = await opened("A"), await opened("B")
    for n in range(25):
        await a.put(f"d/{n}", {"n": n, "text": "x" * 2000})
    await a.delete("d/7")
    async with receiving(b) as receiver:
        async with sending(a, receiver, http, documents_max=10) as sender:
            await until(lambda: sender.status.last_sent_etag == 26)
            assert await content(b) == await content(a)
            assert (sender.status.sent, sender.status.error, len(receiver.batches)) == (25, "", 3)
        await a.put("d/0", {"n": "new"})
        async with sending(a, receiver, http) as sender:
            await until(lambda: sender.status.last_sent_etag == 27)
        assert [d.id for d in receiver.batches[-1].documents] == ["d/0"]
        assert b.change_vector == a.change_vector


async def test_a_sender_that_has_nothing_to_tell_does_not_wake(
    opened: Opener, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await opened("A"), await opened("B")
    waits: list[float | None] = []
    wait_known = a.wait_known

    async def noted(after_etag: int, change_vector: str, timeout_s: float | None) -> None:
        waits.append(timeout_s)
        await wait_known(after_etag, change_vector, timeout_s)

    monkeypatch.setattr(a, "wait_known", noted)
    async with receiving(b) as receiver, sending(a, receiver, http):
        await until(lambda: waits[-1:] == [None])
        await a.put("d/1", {})
        await until(lambda: b.last_etag == 1 and waits[-1:] == [None])


async def test_three_nodes_come_to_the_same_and_nobody_is_sent_its_own(opened: Opener, http: HttpClient) -> None:
    stores = [await opened(tag) for tag in "ABC"]
    async with AsyncExitStack() as stack:
        receivers = [await stack.enter_async_context(receiving(store)) for store in stores]
        for store, receiver in product(stores, receivers):
            if receiver.store is not store:
                await stack.enter_async_context(sending(store, receiver, http))
        for n in range(5):
            for store in stores:
                await store.put(f"{store.tag}/{n}", {"n": n})
        await stores[0].put("same", {"by": "A"})
        await stores[1].put("same", {"by": "B"})
        await until(lambda: stores[0].change_vector.count(":") == 3)
        await until(lambda: len({store.change_vector for store in stores}) == 1)
        first = await content(stores[0])
        assert len(first) == 16
        for store, receiver in zip(stores, receivers, strict=True):
            assert await content(store) == first
            assert not [d.id for d in receiver.documents if d.id.startswith(f"{store.tag}/")]


async def test_what_all_have_heard_is_not_relayed(
    opened: Opener, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replication, "RELAY_DELAY_S", 1.0)
    stores = [await opened(tag) for tag in "ABC"]
    async with AsyncExitStack() as stack:
        receivers = [await stack.enter_async_context(receiving(store)) for store in stores]
        for store, receiver in product(stores, receivers):
            if receiver.store is not store:
                await stack.enter_async_context(sending(store, receiver, http))
        put = await stores[0].put("x", {})
        await until(
            lambda: all(
                store.heard_of(other.database_id) == put.change_vector for store, other in permutations(stores, 2)
            )
        )
        assert [[d.id for d in receiver.documents] for receiver in receivers] == [[], ["x"], ["x"]]


async def test_with_the_way_between_two_cut_the_third_relays(opened: Opener, http: HttpClient) -> None:
    a, b, c = [await opened(tag) for tag in "ABC"]
    async with receiving(b) as rb, receiving(c) as rc, sending(a, rb, http), sending(b, rc, http):
        put = await a.put("x", {})
        await until(lambda: c.change_vector == put.change_vector)
        assert await content(c) == await content(a)


async def test_a_destination_that_fails_is_shown_and_tried_again(opened: Opener, http: HttpClient) -> None:
    a, b = await opened("A"), await opened("B")
    async with receiving(b) as receiver:
        receiver.broken = '{"Type": "Raven.Client.Exceptions.Sleepy", "Message": "not today"}'
        async with sending(a, receiver, http) as sender:
            await a.put("x", {})
            await until(lambda: sender.status.error)
            assert "Sleepy: not today" in sender.status.error
            assert sender.status.last_sent_etag == 0
            receiver.broken = ""
            await until(lambda: sender.status.last_sent_etag == 1)
            assert sender.status.error == ""
        url = receiver.url
    gone = DocumentSender(a, Destination("B", url, "x"), http)
    task = asyncio.create_task(gone.run())
    await until(lambda: "cannot be reached" in gone.status.error)
    task.cancel()
    await asyncio.wait([task])


async def test_a_destination_made_anew_is_filled_anew(opened: Opener, http: HttpClient) -> None:
    a, b = await opened("A"), await opened("B")
    async with receiving(b) as receiver, sending(a, receiver, http) as sender:
        await a.put("x", {})
        await until(lambda: sender.status.last_sent_etag == 1)
        receiver.store = anew = await opened("B")
        await a.put("y", {})
        await until(lambda: anew.change_vector == a.change_vector)
        assert await content(anew) == await content(a)


async def test_replicating_to_oneself_and_from_an_older_copy_is_told(opened: Opener, http: HttpClient) -> None:
    a, b = await opened("A"), await opened("B")
    async with receiving(a) as receiver, sending(a, receiver, http) as sender:
        await until(lambda: "this very database" in sender.status.error)
    await a.put("x", {})
    ahead = msgspec.structs.replace(await batch_of(a, 0), knowledge=f"A:900-{a.database_id}", last_etag=900)
    await b.merge(ahead)
    async with receiving(b) as receiver, sending(a, receiver, http) as sender:
        await until(lambda: "replaced by an older copy" in sender.status.error)


async def test_an_answer_that_is_none_of_ours_is_told(
    opened: Opener, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await opened("A"), await opened("B")
    async with receiving(b) as receiver:
        for answer in ({"DatabaseId": 5}, {"DatabaseId": "x", "AcceptedEtag": 0, "ChangeVector": "?"}):

            async def other(*_: object, answer: object = answer) -> object:
                return answer

            monkeypatch.setattr("tests.unit.documents.conftest.accepted", other)
            async with sending(a, receiver, http) as sender:
                await until(lambda: "cannot be read" in sender.status.error)


async def test_a_store_that_is_closed_under_its_sender_is_told(opened: Opener, http: HttpClient) -> None:
    a, b = await opened("A"), await opened("B")
    async with receiving(b) as receiver, sending(a, receiver, http) as sender:
        await until(lambda: sender.status.at)
        await a.close()
        await until(lambda: "closed" in sender.status.error)


@pytest.mark.parametrize("text", ["short", "long " * 10_000])
async def test_a_batch_travels_unchanged_and_large_ones_are_compressed(store: DocumentStore, text: str) -> None:
    await store.put("x", {"text": text})
    batch = await batch_of(store, 0)
    payload = encode(batch)
    assert decode(payload) == batch
    assert (len(payload) < len(text)) == (text != "short")


def _packed(**change: object) -> bytes:
    good: dict[str, object] = {
        "source": "s" * 22, "after_etag": 0, "last_etag": 1, "knowledge": "", "documents": [], "purged": "",
    }  # fmt: skip
    return b"".join([b"\x00", msgpack.packb(list((good | change).values()))])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x07abc",
        b"\x00\xc1",
        b"\x00" + msgpack.packb({"source": 1}),
        b"\x01not deflated",
        encode(ReplicationBatch("s" * 22, 0, 1, "", ()))[:-2],
        _packed(source="short"),
        _packed(knowledge="?"),
        _packed(after_etag=2),
        _packed(after_etag=-1),
        _packed(last_etag=1 << 63),
        _packed(purged="soon"),
        _packed(documents=[["x"]]),
    ],
)
def test_a_batch_that_is_none_is_refused(payload: bytes) -> None:
    with pytest.raises(ReplicationRefused):
        decode(payload)


def test_a_good_batch_is_taken() -> None:
    assert decode(_packed()) == ReplicationBatch("s" * 22, 0, 1, "", ())


def test_a_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = encode(ReplicationBatch("s" * 22, 0, 1, "", (), "x" * 1_000_000))
    monkeypatch.setattr(replication, "BODY_BYTES_MAX", 1000)
    with pytest.raises(ReplicationRefused, match="more than 1000 bytes"):
        decode(bomb)
