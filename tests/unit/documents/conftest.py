from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from raftnode.documents.store import DocumentStore

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
