"""Patches as the official client's sessions send them: by JSON patch where that can say it."""

import asyncio
from pathlib import Path

from ravendb import DocumentStore

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


async def test_a_session_patches_documents(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path / "data")) as client:
        await client.database()
        await asyncio.to_thread(patch, client.url)
