"""Patches as the official client's sessions send them: by JSON patch where that can say it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from ravendb import DocumentStore
from ravendb.documents.session.misc import OptimisticConcurrencyMode, SessionOptions
from ravendb.exceptions.raven_exceptions import ConcurrencyException

from tests.unit.web.conftest import running, settings_in


class Invoice:
    def __init__(self, total: int = 0, lines: list[str] | None = None, notes: dict[str, str] | None = None) -> None:
        self.total, self.lines, self.notes = total, lines or [], notes or {}


def patch(url: str) -> None:
    store = DocumentStore([url], "Shop")
    store.initialize()
    with store.open_session() as session:
        session.store(Invoice(1, ["a", "b"], {"by": "me"}), "invoices/1")
        session.save_changes()
    with store.open_session() as session:
        session.advanced.patch("invoices/1", "total", 7)
        session.advanced.patch_array("invoices/1", "lines", lambda lines: lines.add("c"))
        session.save_changes()
    with store.open_session() as session:
        invoice = session.load("invoices/1", Invoice)
        assert (invoice.total, invoice.lines, invoice.notes) == (7, ["a", "b", "c"], {"by": "me"})
        session.advanced.patch(invoice, "total", 8)
        session.advanced.patch_array(invoice, "lines", lambda lines: lines.remove_at(0))
        session.save_changes()
        assert (invoice.total, invoice.lines) == (8, ["b", "c"]), "the session's entity is the patched one"
    with store.open_session() as session:
        assert session.load("invoices/1", Invoice).lines == ["b", "c"]
    store.close()


def track(url: str) -> None:
    """A session that asks for it is refused if what it has only read was changed meanwhile."""
    store = DocumentStore([url], "Shop")
    store.initialize()
    with store.open_session() as session:
        session.store(Invoice(1), "invoices/1")
        session.store(Invoice(2), "invoices/2")
        session.save_changes()
    options = SessionOptions(optimistic_concurrency_mode=OptimisticConcurrencyMode.WRITES_AND_READS)
    for changed_meanwhile in (False, True):
        with store.open_session(session_options=options) as session:
            read, written = session.load("invoices/1", Invoice), session.load("invoices/2", Invoice)
            written.total = read.total + 1
            if changed_meanwhile:
                with store.open_session() as other:
                    other.load("invoices/1", Invoice).total = 100
                    other.save_changes()
                with pytest.raises(ConcurrencyException):
                    session.save_changes()
            else:
                session.save_changes()
    with store.open_session() as session:
        assert session.load("invoices/2", Invoice).total == 2
    store.close()


@pytest.mark.parametrize("program", [patch, track])
async def test_a_session_patches_documents_and_tracks_what_it_reads(
    program: Callable[[str], None], tmp_path: Path
) -> None:
    async with running(settings_in(tmp_path / "data")) as client:
        await client.database()
        await asyncio.to_thread(program, client.url)
