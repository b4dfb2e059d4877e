"""Lazy operations of the official client: several reads in one request."""

import asyncio
from pathlib import Path

from ravendb import DocumentStore

from tests.unit.web.conftest import running, settings_in


class Book:
    def __init__(self, title: str = "", author: str = "") -> None:
        self.title, self.author = title, author


def read(url: str) -> None:
    store = DocumentStore([url], "Shop")
    store.initialize()
    with store.open_session() as session:
        for number in (1, 2):
            session.store(Book(f"book {number}", "authors/1"), f"books/{number}")
        session.store(Book("the author"), "authors/1")
        session.save_changes()
    with store.open_session() as session:
        first = session.advanced.lazily.load("books/1", Book)
        both = session.advanced.lazily.load(["books/1", "books/2"], Book)
        none = session.advanced.lazily.load("books/none", Book)
        prefixed = session.advanced.lazily.load_starting_with("books/", Book)
        requests = session.advanced.number_of_requests
        session.advanced.eagerly.execute_all_pending_lazy_operations()
        assert session.advanced.number_of_requests == requests + 1
        assert first.value.title == "book 1"
        assert {id: book.title for id, book in both.value.items()} == {"books/1": "book 1", "books/2": "book 2"}
        assert none.value is None
        assert sorted(prefixed.value) == ["books/1", "books/2"]
    with store.open_session() as session:
        included = session.advanced.lazily.include("author").load("books/1", Book)
        assert included.value["books/1"].title == "book 1"
        requests = session.advanced.number_of_requests
        assert session.load("authors/1", Book).title == "the author"
        assert session.advanced.number_of_requests == requests, "it came with the book"
    store.close()


async def test_lazy_operations_are_answered_together(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path / "data")) as client:
        await client.database()
        await asyncio.to_thread(read, client.url)
