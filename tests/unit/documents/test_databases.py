"""A node's copies of databases, kept in step with a record that the test turns."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from immutables import Map
from msgspec.structs import replace

from raftnode.documents.database_copies import DatabaseCopy
from raftnode.documents.databases import Databases, destinations
from raftnode.documents.errors import StoreClosed, StoreDamaged
from raftnode.documents.store.cleaning import ConsumedUpTo, passed
from raftnode.documents.store.folders import folder
from raftnode.documents.store.model import DeleteDocument, Document, PutDocument
from raftnode.foundation.http_client import HttpClient
from raftnode.record.commands.base import Changes
from raftnode.record.model import ClusterNode, Database, Progress, Record, Task, Topology
from tests.unit.documents.conftest import Opener, receiving, until


def database(
    name: str = "Northwind",
    *,
    id: str = "t1",
    members: tuple[str, ...] = ("A",),
    rehabs: tuple[str, ...] = (),
    promotables: tuple[str, ...] = (),
    **fields: Any,
) -> Database:
    topology = Topology(members=members, rehabs=rehabs, promotables=promotables, database_topology_id_base64=id)
    return Database(name=name, etag=1, topology=topology, **fields)


class CopyCluster:
    """The record, and what of it the node's copies are told."""

    def __init__(self, directory: Path, http: HttpClient, clean_s: float = 60.0) -> None:
        self.record = Record()
        self.deleted: list[str] = []
        self.directory = directory
        self.databases = Databases(
            directory, tag="A", record=lambda: self.record, http=http, deleted=self._deleted, clean_s=clean_s
        )

    def set(self, *databases: Database, urls: Mapping[str, str] | None = None) -> None:
        nodes = {tag: ClusterNode(tag=tag, url=url, cluster_address="") for tag, url in (urls or {}).items()}
        self.record = Record(databases=Map({d.name.lower(): d for d in databases}), nodes=Map(nodes))
        self.databases.changed(self.record, Changes(cluster=True))

    async def _deleted(self, name: str) -> None:
        self.deleted.append(name)
        folded = name.lower()
        held = self.record.databases[folded]
        gone = replace(held, topology=held.topology.without("A"), deletion_in_progress=Map())
        self.set(*(d for d in self.record.databases.values() if d is not held), gone)

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.directory)) for path in self.directory.rglob("*.sqlite"))


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[CopyCluster]:
    async with HttpClient() as http, running(CopyCluster(tmp_path / "databases", http)) as cluster:
        yield cluster


@asynccontextmanager
async def running(cluster: CopyCluster) -> AsyncIterator[CopyCluster]:
    task = asyncio.create_task(cluster.databases.run())
    try:
        yield cluster
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task


def loaded(cluster: CopyCluster) -> list[str]:
    return sorted(name for name, copy in cluster.databases.status().items() if copy.status == "Loaded")


async def test_databases_of_this_node_are_opened_and_others_are_not(cluster: CopyCluster) -> None:
    cluster.set(
        database(),
        database("Theirs", members=("B",)),
        database("Off", disabled=True),
        database("Mine", rehabs=("A",), members=()),
    )
    await until(lambda: loaded(cluster) == ["mine", "northwind"])
    store = await cluster.databases.store("NORTHWIND")
    put = await store.put("x", {})
    status = cluster.databases.status()["northwind"]
    assert (status.last_etag, status.change_vector, status.database_id) == (1, put.change_vector, store.database_id)
    assert cluster.files() == ["mine/t1.sqlite", "northwind/t1.sqlite"]
    for name in ("Theirs", "Off", "Nowhere"):
        with pytest.raises(StoreClosed, match="is not on node A"):
            await cluster.databases.store(name)


async def test_a_database_asked_for_before_its_turn_is_opened_once(cluster: CopyCluster) -> None:
    cluster.record = Record(databases=Map({"northwind": database()}))
    stores = await asyncio.gather(*(cluster.databases.store("Northwind") for _ in range(5)))
    assert len({id(store) for store in stores}) == 1


async def test_a_change_elsewhere_leaves_a_database_alone(cluster: CopyCluster) -> None:
    cluster.set(database())
    await until(lambda: loaded(cluster) == ["northwind"])
    store = await cluster.databases.store("Northwind")
    cluster.set(database(), database("Second"))
    await until(lambda: loaded(cluster) == ["northwind", "second"])
    assert await cluster.databases.store("Northwind") is store
    assert (await store.put("x", {})).etag == 1


async def test_whoever_asks_while_a_database_is_closed_and_enabled_again_gets_it_opened_again(
    cluster: CopyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.set(database())
    before = await cluster.databases.store("Northwind")
    closing, may_close, close = asyncio.Event(), asyncio.Event(), before.close

    async def closed_late() -> None:
        closing.set()
        await may_close.wait()
        await close()

    monkeypatch.setattr(before, "close", closed_late)
    cluster.set(database(disabled=True))
    await closing.wait()
    cluster.set(database())
    asked = asyncio.create_task(cluster.databases.store("Northwind"))
    await asyncio.sleep(0)
    may_close.set()
    store = await asked
    assert store is not before
    assert await store.get(["x"]) == [None]


async def test_a_disabled_database_is_closed_and_its_documents_stay(cluster: CopyCluster) -> None:
    cluster.set(database())
    await (await cluster.databases.store("Northwind")).put("x", {"n": 1})
    cluster.set(database(disabled=True))
    await until(lambda: not cluster.databases._open)
    cluster.set(database())
    await until(lambda: loaded(cluster) == ["northwind"])
    [found] = await (await cluster.databases.store("Northwind")).get(["x"])
    assert found is not None


async def test_a_database_made_anew_begins_empty_and_the_old_file_is_closed(cluster: CopyCluster) -> None:
    cluster.set(database())
    old = await cluster.databases.store("Northwind")
    await old.put("x", {})
    cluster.record = Record(databases=Map({"northwind": database(id="t2")}))
    with pytest.raises(StoreClosed, match="created again"):
        await cluster.databases.store("Northwind")
    cluster.set(database(id="t2"))
    await until(lambda: cluster.files() == ["northwind/t1.sqlite", "northwind/t2.sqlite"])
    await until(lambda: loaded(cluster) == ["northwind"])
    new = await cluster.databases.store("Northwind")
    assert (await new.stats()).documents == 0
    with pytest.raises(StoreClosed):
        await old.put("y", {})


async def test_a_hard_deletion_removes_the_files_and_a_soft_one_moves_them_away(cluster: CopyCluster) -> None:
    for name in ("Hard", "Soft"):
        cluster.set(database("Hard"), database("Soft"))
        await (await cluster.databases.store(name)).put("x", {})
    await until(lambda: loaded(cluster) == ["hard", "soft"])
    cluster.set(
        database("Hard", members=("B",), deletion_in_progress=Map({"A": "HardDelete"})),
        database("Soft", members=("B",), deletion_in_progress=Map({"A": "SoftDelete"})),
    )
    await until(lambda: sorted(cluster.deleted) == ["Hard", "Soft"])
    [kept] = cluster.files()
    assert kept.startswith(".removed/soft-")
    cluster.set(database("Soft"))
    assert (await (await cluster.databases.store("Soft")).stats()).documents == 0


async def test_a_damaged_file_is_shown_and_harms_no_other(cluster: CopyCluster) -> None:
    path = cluster.directory / "northwind" / "t1.sqlite"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"garbage" * 1000)
    cluster.set(database(), database("Second"))
    await until(lambda: loaded(cluster) == ["second"])
    await until(lambda: cluster.databases.status()["northwind"].status == "Faulted")
    assert "is damaged" in cluster.databases.status()["northwind"].error
    with pytest.raises(StoreDamaged):
        await cluster.databases.store("Northwind")


async def test_senders_follow_the_topology_and_one_that_stays_is_not_restarted(
    cluster: CopyCluster, opened: Opener
) -> None:
    b, c = await opened("B"), await opened("C")
    async with receiving(b) as rb, receiving(c) as rc:
        urls = {"A": "http://nowhere", "B": rb.url, "C": rc.url}
        cluster.set(database(members=("A", "B"), promotables=("C",)), urls=urls)
        store = await cluster.databases.store("Northwind")
        put = await store.put("x", {})
        await until(lambda: cluster.databases.status()["northwind"].sent == {"B": 1})
        assert b.change_vector == put.change_vector
        [(destination, (sender, _))] = cluster.databases._open["northwind"].senders.items()
        cluster.set(database(members=("A", "B"), rehabs=("C",)), urls=urls)
        await until(lambda: cluster.databases.status()["northwind"].sent == {"B": 1, "C": 1})
        assert cluster.databases._open["northwind"].senders[destination][0] is sender
        cluster.set(database(members=("A",), rehabs=("C",)), urls=urls)
        await until(lambda: cluster.databases.status()["northwind"].sent.keys() == {"C"})
        cluster.set(database(members=("C",), promotables=("A",)), urls=urls)
        await until(lambda: cluster.databases.status()["northwind"].sent == {})


async def test_errors_of_senders_and_a_mentors_sender_are_shown(cluster: CopyCluster, opened: Opener) -> None:
    async with receiving(await opened("B")) as gone:
        url = gone.url
    cluster.set(database(members=("A", "B")), urls={"B": url})
    await until(lambda: loaded(cluster) == ["northwind"])
    await until(lambda: "B" in cluster.databases.status()["northwind"].replication_errors)
    [(sender, _)] = cluster.databases._open["northwind"].senders.values()
    assert cluster.databases.sent_to("northwind", "B") is sender.status
    assert cluster.databases.sent_to("northwind", "C") is cluster.databases.sent_to("other", "B") is None
    cluster.databases.sends("northwind", "P", sender)
    assert cluster.databases.status()["northwind"].sent == {"B": 0, "P": 0}
    cluster.databases.sends("northwind", "P", None)
    assert cluster.databases.status()["northwind"].sent == {"B": 0}


async def test_only_a_copy_that_has_moved_is_looked_at_again(
    cluster: CopyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"d{n}" for n in range(10)]
    cluster.set(*(database(name, id=name) for name in names))
    await until(lambda: loaded(cluster) == names)
    before = cluster.databases.status()
    assert cluster.databases.status() is before
    shown: list[str] = []
    look = cluster.databases._copies._look

    def looked(folded: str, held: Database) -> DatabaseCopy | None:
        shown.append(folded)
        return look(folded, held)

    monkeypatch.setattr(cluster.databases._copies, "_look", looked)
    store = await cluster.databases.store("d3")
    async with asyncio.timeout(20):
        while shown != ["d3"]:  # all are looked at again once they are in step with the record
            shown.clear()
            await store.put("a", {})
            after = cluster.databases.status()
    assert (after["d3"].documents, after["d3"].last_etag) == (1, store.last_etag)
    assert all(after[name] is before[name] for name in names if name != "d3")
    cluster.set(*(database(name, id=name) for name in names[:9]))
    assert sorted(cluster.databases.status()) == names[:9]


async def test_a_database_in_which_nothing_has_happened_is_not_cleaned_again(tmp_path: Path) -> None:
    async with HttpClient() as http, running(CopyCluster(tmp_path / "databases", http, 0.01)) as cluster:
        cluster.set(database())
        store = await cluster.databases.store("Northwind")
        await store.batch([PutDocument(id=id, document={}) for id in "abb"])
        purged: list[int] = []
        purge = store.purge_tombstones

        async def counted(passed: ConsumedUpTo) -> int:
            purged.append(store.last_etag)
            return await purge(passed)

        store.purge_tombstones = counted  # type: ignore[method-assign]
        passes = 0
        while passes < 5:
            before = cluster.databases._open["northwind"].cleaned
            await asyncio.sleep(0.03)
            passes += before is not None
        assert purged in ([3], []), "once, or before the count began"
        await store.delete("a")
        await until(lambda: purged[-1:] == [4])


async def test_a_database_without_anything_to_forget_is_not_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def asking(database: Database, *rest: Any) -> ConsumedUpTo | None:
        asked.append(database.name)
        return passed(database, *rest)

    monkeypatch.setattr("raftnode.documents.databases.passed", asking)
    async with HttpClient() as http, running(CopyCluster(tmp_path / "databases", http, 0.01)) as cluster:
        cluster.set(database(), database("Other", id="t2"))
        store, other = await cluster.databases.store("Northwind"), await cluster.databases.store("Other")
        await store.put("a", {})
        await other.batch([PutDocument(id="a", document={}), DeleteDocument(id="a")])
        await until(lambda: cluster.databases._open["other"].cleaned is not None)
        assert cluster.databases._open["northwind"].cleaned is None
        asked.clear()
        await until(lambda: len(asked) > 2)
        assert set(asked) == {"Other"}, "nor is anything asked about it"


async def test_of_many_files_each_has_its_turn_while_databases_come_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftnode.documents.databases.WATCHED_MAX", 2)
    async with HttpClient() as http, running(CopyCluster(tmp_path / "databases", http)) as cluster:
        names = ["d0", "d1", "d2", "d3", "d4"]
        cluster.set(*(database(name, id=name) for name in names))
        for name in names:
            await cluster.databases.store(name)
        turn, left = cluster.databases._to_watch(list(cluster.databases._open))
        seen = [copy.name for copy, _ in turn]
        assert len(seen) == 2, "the others wait"
        gone = seen[0]
        cluster.set(*(database(name, id=name) for name in names if name != gone))
        await until(lambda: gone not in cluster.databases._open)
        while left:
            turn, left = cluster.databases._to_watch(left)
            seen += [copy.name for copy, _ in turn]
        assert sorted(seen) == names


async def test_what_everybody_has_passed_is_forgotten(tmp_path: Path, opened: Opener) -> None:
    b = await opened("B")
    async with (
        HttpClient() as http,
        receiving(b) as rb,
        running(CopyCluster(tmp_path / "databases", http, 0.01)) as cluster,
    ):
        task = Task(id=1, name="etl", kind="SqlEtl", key=1)
        shared: dict[str, Any] = {"members": ("A", "B"), "tasks": Map({1: task})}
        cluster.set(database(**shared), urls={"B": rb.url})
        store = await cluster.databases.store("Northwind")
        await store.put("x", {})
        await store.delete("x")
        await until(lambda: cluster.databases.status()["northwind"].sent == {"B": 2})
        assert (await store.stats()).tombstones == 1, "the task has not passed it"
        progress = Progress(generation=0, last_etags=Map({store.database_id: 2}))
        cluster.set(database(**shared, progress=Map({1: progress})), urls={"B": rb.url})
        async with asyncio.timeout(20):
            while (await store.stats()).tombstones:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await b.stats()).tombstones == 1


def test_members_and_rehabs_send_to_each_other_and_a_promotable_to_nobody() -> None:
    topology = Topology(members=("A", "B"), rehabs=("C",), promotables=("D",))
    assert {tag: destinations(topology, tag) for tag in "ABCDE"} == {
        "A": {"B", "C"},
        "B": {"A", "C"},
        "C": {"A", "B"},
        "D": frozenset(),
        "E": frozenset(),
    }


def test_how_far_everybody_is_needs_word_of_every_node() -> None:
    group = database(members=("A", "B"), rehabs=("C",))
    assert passed(group, "A", "x" * 22, {"B": 7}) is None
    assert passed(group, "A", "x" * 22, {"B": 7, "C": 5}) == ConsumedUpTo(5)
    assert passed(database(promotables=("D",)), "A", "x" * 22, {}) is None
    alone = passed(database(), "A", "x" * 22, {})
    assert alone is not None
    assert alone.frees(_tombstone(1 << 40))


def test_a_tombstone_waits_for_every_task() -> None:
    group = database(
        tasks=Map({n: Task(id=n, name=str(n), kind="SqlEtl", key=n) for n in (1, 2)}),
        progress=Map({1: Progress(generation=0, change_vector="A:9-" + "x" * 22, last_etags=Map({"x" * 22: 4}))}),
    )
    everybody = passed(group, "A", "x" * 22, {})
    assert everybody is not None
    assert everybody.tasks == ((4, "A:9-" + "x" * 22), (0, ""))
    assert not everybody.frees(_tombstone(3))
    one = ConsumedUpTo(10, everybody.tasks[:1])
    assert one.frees(_tombstone(4, written=10)), "passed in this node's order"
    assert one.frees(_tombstone(8)), "passed in another node's order"
    assert not one.frees(_tombstone(8, written=10))
    assert not one.frees(_tombstone(11))


def _tombstone(etag: int, *, written: int = 8) -> Document:
    return Document("x", "@empty", b"", etag, f"A:{written}-" + "x" * 22, "", deleted=True)


async def test_a_store_is_open_only_once_at_a_time(cluster: CopyCluster) -> None:
    """Turning a database off and on quickly must not open its file while it is still being closed."""
    cluster.set(database())
    await (await cluster.databases.store("Northwind")).put("x", {})
    for n in range(10):
        cluster.set(database(disabled=n % 2 == 0))
        await asyncio.sleep(0)
        try:
            store = await cluster.databases.store("Northwind")
            await store.put("x", {"n": n})
        except StoreClosed:
            continue
    cluster.set(database())
    await until(lambda: loaded(cluster) == ["northwind"])
    assert (await (await cluster.databases.store("Northwind")).put("x", {})).etag >= 2


def leaving(**fields: Any) -> Database:
    """A in Rehab and replaced; B is the Member."""
    return database(members=("B",), rehabs=("A",), deletion_in_progress=Map({"A": "HardDelete"}), **fields)


async def test_a_copy_that_was_replaced_goes_only_when_every_member_has_all_of_it(
    cluster: CopyCluster, opened: Opener
) -> None:
    cluster.set(database())
    await until(lambda: loaded(cluster) == ["northwind"])
    await (await cluster.databases.store("Northwind")).put("only here", {"N": 1})
    async with receiving(await opened("B", file="../../theirs.sqlite")) as b:
        b.broken = "B does not answer"
        cluster.set(leaving(), urls={"B": b.url})
        await until(lambda: cluster.databases.status()["northwind"].replication_errors)
        assert (cluster.files(), cluster.deleted) == (["northwind/t1.sqlite"], [])
        b.broken = ""
        await until(lambda: cluster.deleted == ["Northwind"])
        [there] = await b.store.get(["only here"])
        assert there is not None
        assert cluster.files() == []


async def test_what_is_written_while_a_replaced_copy_closes_is_handed_over_too(
    cluster: CopyCluster, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.set(database())
    await until(lambda: loaded(cluster) == ["northwind"])
    store = await cluster.databases.store("Northwind")
    late: list[Document] = []
    real = cluster.databases._close

    async def close(folded: str) -> None:
        if not late:
            late.append(await store.put("late", {}))
        await real(folded)

    monkeypatch.setattr(cluster.databases, "_close", close)
    async with receiving(await opened("B", file="../../theirs.sqlite")) as b:
        # What was written as it was being closed is not known to be with B, so that the copy is opened again.
        cluster.set(leaving(), urls={"B": b.url})
        await until(lambda: cluster.deleted == ["Northwind"])
        assert late
        [there] = await b.store.get(["late"])
        assert there is not None


async def test_a_disabled_or_broken_copy_that_was_replaced_stays(cluster: CopyCluster) -> None:
    cluster.set(database())
    await until(lambda: loaded(cluster) == ["northwind"])
    cluster.set(leaving(disabled=True))
    await until(lambda: not loaded(cluster) and not cluster.databases._open)
    [file] = cluster.directory.rglob("*.sqlite")
    file.write_bytes(b"no database at all" * 1000)
    cluster.set(leaving())
    await until(lambda: cluster.databases.status()["northwind"].status == "Faulted")
    assert (cluster.files(), cluster.deleted) == (["northwind/t1.sqlite"], [])


async def test_a_copy_that_handed_over_is_not_opened_again_before_the_record_knows(
    cluster: CopyCluster, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving(await opened("B", file="../../theirs.sqlite")) as b:
        told = asyncio.Event()

        async def deleted(name: str) -> None:
            told.set()

        monkeypatch.setattr(cluster.databases, "_deleted", deleted)
        cluster.set(leaving(), urls={"B": b.url})
        await told.wait()
        with pytest.raises(StoreClosed, match="is not on node A"):
            await cluster.databases.store("Northwind")
        assert cluster.files() == []
        cluster.set(database())
        await until(lambda: loaded(cluster) == ["northwind"])


async def test_a_copy_says_how_many_documents_it_has(cluster: CopyCluster) -> None:
    cluster.set(database())
    await until(lambda: loaded(cluster) == ["northwind"])
    store = await cluster.databases.store("Northwind")
    for id in ("a", "b", "c"):
        await store.put(id, {}, collection="X" if id == "a" else None)
    await store.delete("b")
    assert cluster.databases.status()["northwind"].documents == 2 == (await store.stats()).documents


LONG = "д" * 128
"""A name at the limit, which is in characters: 256 bytes, one more than a file name may have."""


async def test_a_name_of_more_bytes_than_a_file_name_is_opened_and_deleted(cluster: CopyCluster) -> None:
    cluster.set(database(LONG))
    store = await cluster.databases.store(LONG)
    await store.put("a/1", b"{}")
    [file] = cluster.files()
    assert file.startswith("дд"), file
    cluster.set(database(LONG, members=(), deletion_in_progress=Map({"A": "HardDelete"})))
    await until(lambda: cluster.deleted == [LONG])
    assert cluster.files() == []


async def test_the_longest_folder_that_ever_fitted_stays_as_it_was(cluster: CopyCluster) -> None:
    longest = "д" * 127 + "x"
    cluster.set(database(longest))
    await cluster.databases.store(longest)
    assert cluster.files() == [f"{longest}/t1.sqlite"]
    cluster.set(database(longest, members=(), deletion_in_progress=Map({"A": "SoftDelete"})))
    await until(lambda: cluster.deleted == [longest])
    [file] = cluster.files()
    assert file.startswith(".removed/дд"), file


def test_two_long_names_never_share_a_folder() -> None:
    names = [LONG, LONG[:-1] + "е", LONG.upper(), "𝒹" * 128]
    assert len({folder(name) for name in names}) == 3
    assert all(len(folder(name).encode()) <= 255 for name in names)
