import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from raftnode.documents.replication.sender import accepted, decode, receive
from raftnode.documents.store.model import Document, ReplicationBatch
from raftnode.documents.store.store import DocumentStore
from raftnode.web.requests import answer

Opener = Callable[..., Awaitable[DocumentStore]]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens stores in files of their own (or a named one again) and closes them at the end."""
    stores: list[DocumentStore] = []

    async def open_store(tag: str = "A", file: str | None = None) -> DocumentStore:
        path = tmp_path / "databases" / "northwind" / (file or f"{tag}{len(stores)}.sqlite")
        stores.append(await DocumentStore.open(path, tag=tag, database="Northwind"))
        return stores[-1]

    yield open_store
    for store in stores:
        await store.close()


@pytest.fixture
async def store(opened: Opener) -> DocumentStore:
    return await opened()


async def batch_of(source: DocumentStore, after_etag: int, *, limit: int = 1000) -> ReplicationBatch:
    """What the source would send from there on, without looking at what the other side has."""
    batch = await source.after(after_etag, limit=limit, bytes_max=1 << 30)
    return ReplicationBatch(
        source=source.database_id,
        after_etag=after_etag,
        last_etag=batch.last_etag,
        knowledge=batch.change_vector,
        documents=tuple(batch.items),
        purged_last_modified=batch.purged_last_modified,
    )


async def exchange(*stores: DocumentStore) -> None:
    """Everybody sends everything to everybody, until nothing is new."""
    for _ in range(2):
        for source in stores:
            for destination in stores:
                if source is not destination:
                    etag = await destination.accepted_from(source.database_id)
                    await destination.merge(await batch_of(source, etag))


async def content(store: DocumentStore) -> dict[str, tuple[bytes, str]]:
    """The live documents: body and change vector by id."""
    return {d.id: (d.body, d.change_vector) for d in await store.page(size=10_000)}


class ReceivingEnd:
    """A node's receiving end over real HTTP. `broken` makes it fail; `batches` are those that it took in."""

    def __init__(self, store: DocumentStore) -> None:
        self.store = store
        self.url = ""
        self.broken = ""
        self.batches: list[ReplicationBatch] = []

    @property
    def documents(self) -> list[Document]:
        return [document for batch in self.batches for document in batch.documents]

    async def handshake(self, request: web.Request) -> web.Response:
        self._check()
        return answer(await accepted(self.store, request.query["source"]))

    async def take(self, request: web.Request) -> web.Response:
        self._check()
        payload = await request.read()
        state = await receive(self.store, payload)
        self.batches.append(decode(payload))
        return answer(state)

    def _check(self) -> None:
        if self.broken:
            raise web.HTTPServiceUnavailable(text=self.broken, content_type="application/json")


@asynccontextmanager
async def receiving(store: DocumentStore) -> AsyncIterator[ReceivingEnd]:
    """A server on loopback that takes in what is replicated to the store."""
    receiver = ReceivingEnd(store)
    app = web.Application(client_max_size=1 << 28)
    app.add_routes(
        [
            web.get("/replication/{database}/accepted", receiver.handshake),
            web.post("/replication/{database}/documents", receiver.take),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        receiver.url = f"http://{host}:{port}"
        yield receiver
    finally:
        await runner.cleanup()


async def until(condition: Callable[[], object]) -> None:
    """Wait for something to come true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
