"""The mentor's update of a Promotable, over real HTTP between two real stores."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from raftnode.documents.replication.sender import DocumentSender, SenderStatus
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation.http_client import HttpClient
from raftnode.record.model import Task
from raftnode.record.ownership import OF_REHAB
from tasks.kinds import registry as kinds
from tasks.kinds import update
from tasks.kinds.registry import ConfigurationError, TaskFailed
from tasks.kinds.update import KIND
from tasks.runtime.context import NotOwned, Run, RunFigures, RunSettings, TaskContext
from tasks.runtime.run_journal import FreezeDetector, RunJournal
from tests.unit.tasks.conftest import northwind, put_all, receiving, until


@dataclass
class Promotable:
    """A node that only receives."""

    store: DocumentStore
    url: str


@pytest.fixture
async def promotable(tmp_path: Path) -> AsyncIterator[Promotable]:
    store = await DocumentStore.open(tmp_path / "promotable.sqlite", tag="C", database="Northwind")
    async with receiving(store) as url:
        yield Promotable(store, url)
    await store.close()


class Mentor:
    """The body's surroundings."""

    def __init__(
        self, store: DocumentStore, directory: Path, http: HttpClient, url: str | None, configuration: bytes = b"{}"
    ) -> None:
        self.owned = True
        self.senders: list[tuple[str, DocumentSender | None]] = []
        self.group: dict[str, SenderStatus] = {}
        run = Run(
            database="Northwind",
            task=Task(id=0, name="C", kind="Update", key=1, configuration=configuration),
            claim_key="northwind/Update/c",
            epoch=5,
            generation=0,
            cluster_id="c1",
            node="A",
        )
        self.context = TaskContext(
            run,
            store,
            settings=RunSettings(batch_documents_max=100),
            info=RunFigures(),
            owned=lambda: self.owned,
            save=lambda run, progress: asyncio.get_running_loop().create_future(),
            journal=RunJournal(directory, "A"),
            freezes=FreezeDetector(),
            http=http,
            node_url=lambda tag: url if tag == "C" else None,
            sending=lambda tag, sender: self.senders.append((tag, sender)),
            sent_to=lambda tag: self.group.get(tag),
        )


async def test_a_promotable_is_filled_followed_and_its_sender_is_shown(
    store: DocumentStore, promotable: Promotable, tmp_path: Path
) -> None:
    await put_all(store, northwind())
    async with HttpClient() as http:
        mentor = Mentor(store, tmp_path, http, promotable.url)
        body = asyncio.create_task(KIND.run(mentor.context))
        await until(lambda: promotable.store.change_vector == store.change_vector, body)
        assert (await promotable.store.stats()).documents == 1053
        await store.delete("orders/10248-A")
        await until(lambda: promotable.store.change_vector == store.change_vector, body)
        assert await promotable.store.get(["orders/10248-A"]) == [None]
        body.cancel()
        with pytest.raises(asyncio.CancelledError):
            await body
    shown = [(tag, sender is not None) for tag, sender in mentor.senders]
    assert shown == [("C", True), ("C", False)]


async def test_a_mentor_that_has_lost_its_lease_sends_nothing_more(
    store: DocumentStore, promotable: Promotable, tmp_path: Path
) -> None:
    async with HttpClient() as http:
        mentor = Mentor(store, tmp_path, http, promotable.url)
        body = asyncio.create_task(KIND.run(mentor.context))
        await put_all(store, northwind("Orders")[:1])
        await until(lambda: promotable.store.change_vector == store.change_vector, body)
        mentor.owned = False
        await put_all(store, northwind("Orders")[1:])
        with pytest.raises(NotOwned):
            await body
    assert (await promotable.store.stats()).documents == 1


async def test_a_promotable_outside_the_cluster_is_a_task_error(store: DocumentStore, tmp_path: Path) -> None:
    async with HttpClient() as http:
        mentor = Mentor(store, tmp_path, http, None)
        with pytest.raises(TaskFailed, match="node C is not in the cluster"):
            await KIND.run(mentor.context)


async def test_the_update_of_a_rehab_tells_how_far_the_groups_own_sender_is_and_sends_nothing(
    store: DocumentStore, promotable: Promotable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "SHOW_S", 0.01)
    await put_all(store, northwind("Orders"))
    async with HttpClient() as http:
        mentor = Mentor(store, tmp_path, http, promotable.url, OF_REHAB)
        body = asyncio.create_task(KIND.run(mentor.context))
        await asyncio.sleep(0.03)
        assert mentor.context.info.seen_etag is None, "the sender is not there yet"
        mentor.group["C"] = SenderStatus(destination="C", url="", last_sent_etag=7, sent=3, error="no way", at="now")
        await until(lambda: mentor.context.info.seen_etag == 7, body)
        info = mentor.context.info
        assert (info.processed, info.error, info.last_batch_at) == (3, "no way", "now")
        mentor.owned = False
        with pytest.raises(NotOwned):
            await body
    assert (mentor.senders, (await promotable.store.stats()).documents) == ([], 0)


def test_nobody_defines_an_update() -> None:
    kind = kinds.load("Update")
    assert kind.name == "Update"
    with pytest.raises(ConfigurationError, match="add a node to the database instead"):
        kind.parse({}, None)  # type: ignore[arg-type]
