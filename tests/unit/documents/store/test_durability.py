"""What the disk may do to a store, and what must come of it. The writers are real processes that are really killed."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from raftnode.documents.errors import StoreDamaged, StoreFailed
from raftnode.documents.store.store import DocumentStore

_WRITER = """
import asyncio, sys
from pathlib import Path
from raftnode.documents.store.store import DocumentStore

async def write(store, lane):
    n = 0
    while True:
        n += 1
        document = await store.put(f"{lane}/{n}", {"n": n, "padding": "x" * 200})
        hot = await store.put(f"hot/{lane}", {"n": n})
        sys.stdout.write(f"acknowledged {document.id} {n}\\nacknowledged {hot.id} {n}\\n")
        sys.stdout.flush()

async def main():
    store = await DocumentStore.open(Path(sys.argv[1]), tag="A", database="x")
    async with asyncio.TaskGroup() as group:
        for lane in range(8):
            group.create_task(write(store, lane))

asyncio.run(main())
"""

_FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from raftnode.documents.errors import StoreFailed
from raftnode.documents.store.store import DocumentStore

async def main():
    store = await DocumentStore.open(Path(sys.argv[1]), tag="A", database="x")
    await store.put("first", {})
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    outcomes = await asyncio.gather(
        store.put("small/1", {}), store.put("huge", {"text": "x" * 2_000_000}), store.put("small/2", {}),
        return_exceptions=True,
    )
    assert [type(outcome).__name__ for outcome in outcomes] == ["Document", "StoreFailed", "Document"], outcomes
    assert "the disk refused" in str(outcomes[1]), outcomes[1]
    assert [d and d.id for d in await store.get(["first", "huge", "small/1", "small/2"])] == [
        "first", None, "small/1", "small/2"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    huge = await store.put("huge", {"text": "x" * 2_000_000})
    stats = await store.stats()
    assert (stats.documents, stats.last_etag, huge.etag) == (4, 4, 4), stats
    await store.close()
    print("recovered")

asyncio.run(main())
"""


def _child(script: str, path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


async def test_every_acknowledged_write_is_there_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    acknowledged: dict[str, int] = {}
    for killed in range(1, 4):
        child = _child(_WRITER, path)
        assert child.stdout is not None
        lines: list[str] = []
        while len(lines) < 200 * killed:
            line = await asyncio.to_thread(child.stdout.readline)
            assert line, "the writer ended by itself"
            lines.append(line)
        os.kill(child.pid, signal.SIGKILL)
        rest, _ = await asyncio.to_thread(child.communicate)
        lines += rest.splitlines(keepends=True)
        for line in lines:
            if line.startswith("acknowledged") and line.endswith("\n"):
                _, id, n = line.split()
                acknowledged[id] = int(n)
        store = await DocumentStore.open(path, tag="A", database="x")
        found = await store.get(list(acknowledged))
        for document, (wanted, least) in zip(found, acknowledged.items(), strict=True):
            assert document is not None, f"{wanted} is lost"
            assert msgspec.json.decode(document.body)["n"] >= least
        batch = await store.after(0, limit=1_000_000, bytes_max=1 << 30)
        assert len(batch.items) == (await store.stats()).documents
        await store.close()


async def test_a_full_disk_fails_only_what_it_refuses_until_space_returns(
    tmp_path: Path,
) -> None:
    child = _child(_FULL_DISK, tmp_path / "x.sqlite")
    out, err = await asyncio.to_thread(child.communicate)
    assert child.returncode == 0, err
    assert out.endswith("recovered\n")


async def _written(path: Path) -> None:
    store = await DocumentStore.open(path, tag="A", database="x")
    for n in range(50):
        await store.put(f"d/{n}", {"text": "x" * 1000})
    await store.close()


async def test_a_file_with_garbage_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    await _written(path)
    content = bytearray(path.read_bytes())
    content[4096:12288] = Random(1).randbytes(8192)
    path.write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"is damaged .*restore it from a backup"):
        await DocumentStore.open(path, tag="A", database="x")


async def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    await _written(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreDamaged, match="is damaged"):
        await DocumentStore.open(path, tag="A", database="x")


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreDamaged, match="is damaged"):
        await DocumentStore.open(path, tag="A", database="x")


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    with pytest.raises(StoreDamaged, match="not a document store of this program"):
        await DocumentStore.open(path, tag="A", database="x")


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    await _written(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreDamaged, match="newer version"):
        await DocumentStore.open(path, tag="A", database="x")


async def test_a_file_of_the_first_schema_is_opened_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    store = await DocumentStore.open(path, tag="A", database="x")
    await store.put("o/1", {"n": 1}, collection="Orders")
    await store.close()
    connection = sqlite3.connect(path)
    for table in ("documents", "revisions"):
        connection.execute(f"ALTER TABLE {table} DROP COLUMN formerly")
        connection.execute(f"ALTER TABLE {table} DROP COLUMN fences")
    connection.execute("DROP TABLE fences")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    for _ in range(2):
        store = await DocumentStore.open(path, tag="A", database="x")
        assert (await store.get(["o/1"]))[0] is not None
        await store.close()
    store = await DocumentStore.open(path, tag="A", database="x")
    await store.delete("o/1")
    assert (await store.put("o/1", {}, collection="Archive")).formerly == (("o/1", "orders"),)
    await store.close()


async def test_a_file_that_was_only_just_begun_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.touch()
    store = await DocumentStore.open(path, tag="A", database="x")
    assert (await store.put("a", {})).etag == 1
    await store.close()


async def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreFailed, match="the disk refused"):
        await DocumentStore.open(tmp_path / "file" / "x.sqlite", tag="A", database="x")


async def test_damage_met_later_is_reported_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.sqlite"
    await _written(path)
    content = bytearray(path.read_bytes())
    content[8192:] = Random(1).randbytes(len(content) - 8192)
    path.write_bytes(content)
    monkeypatch.setattr("raftnode.documents.store.sqlite.CHECK_BYTES_MAX", 0)
    with pytest.raises(StoreDamaged):
        await _read_everything(path)


async def _read_everything(path: Path) -> None:
    store = await DocumentStore.open(path, tag="A", database="x")
    try:
        await store.page(size=100)
    finally:
        await store.close()


async def test_a_failure_of_our_own_fails_its_writes_and_not_those_that_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await DocumentStore.open(tmp_path / "a.sqlite", tag="A", database="Shop")
    commits, committed = store._commits, store._commits._commit

    def no_memory(group: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(commits, "_commit", no_memory)
    with pytest.raises(StoreFailed, match="MemoryError"):
        await store.put("a", {"n": 1})
    monkeypatch.setattr(commits, "_commit", committed)
    monkeypatch.setattr(commits, "on_commit", no_memory)
    await store.put("b", {"n": 1})
    assert await store.get("b") is not None
    await store.close()


async def test_when_the_loop_of_a_files_writes_ends_everybody_is_told_and_the_copy_is_faulted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await DocumentStore.open(tmp_path / "a.sqlite", tag="A", database="Shop")
    monkeypatch.setattr(store._commits, "_take", lambda: 1 // 0)
    with pytest.raises(StoreFailed, match="start the node again"):
        await store.put("a", {"n": 1})
    with pytest.raises(StoreFailed, match="start the node again"):
        await store.put("b", {"n": 1})
    assert "start the node again" in store.damage(store.look())
    await store.close()
