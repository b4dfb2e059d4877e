"""Files of a stopped node that rot, end early or are gone; database files that go under a running one: never silent."""

import itertools
import json
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from raftnode.consensus.storage.disk import SystemDisk
from raftnode.consensus.storage.hard_state import HardStateFiles
from raftnode.consensus.storage.journal import PREFIX
from raftnode.consensus.storage.segment import HEADER_BYTES
from raftnode.foundation.http_client import HttpError
from tests.harness.cluster import PATIENT, Cluster

DATABASE = "Damaged"
COMMANDS = 40
BOOTS = itertools.count(100, 100)
FLAGS = ("--cluster.stabilization-time-sec", "0", "--cluster.snapshot-bytes-min", "65536", *PATIENT)


def segments(raft: Path) -> list[Path]:
    return sorted(raft.glob(f"{PREFIX}*"))


def flip(file: Path, place: int) -> None:
    """Turns one bit around."""
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def rot_within(raft: Path) -> None:
    last = segments(raft)[-1]
    flip(last, last.stat().st_size // 2)


def rot_at_the_end(raft: Path) -> None:
    flip(segments(raft)[-1], -1)


def cut_the_snapshot(raft: Path) -> None:
    snapshot = raft / "snapshot"
    snapshot.write_bytes(snapshot.read_bytes()[:-20])


def lose_the_journal(raft: Path) -> None:
    for segment in segments(raft):
        segment.unlink()
    (raft / "snapshot").unlink()


def rot_the_vote(raft: Path) -> None:
    flip(raft / "vote", -1)


def lose_the_vote(raft: Path) -> None:
    (raft / "vote").unlink()


def lose_all(raft: Path) -> None:
    shutil.rmtree(raft)


def rot_the_identity(raft: Path) -> None:
    (raft.parent / "node.json").write_bytes(b'{"node_id":')


def lose_the_identity(raft: Path) -> None:
    (raft.parent / "node.json").unlink()


def rot_the_formation(raft: Path) -> None:
    flip(raft.parent / "cluster.json", 0)


ACCIDENTS: dict[Callable[[Path], None], str] = {
    rot_within: "a record does not match its checksum, and sound ones follow it",
    rot_at_the_end: "was committed and synced here: acknowledged entries are gone",
    cut_the_snapshot: "is damaged|is incomplete",
    lose_the_journal: "acknowledged entries are gone",
    rot_the_vote: "vote does not match its checksum",
    lose_the_vote: "vote is missing, but this node has taken part before",
    lose_all: "vote is missing, but this node has taken part before",
    rot_the_identity: "node.json is damaged",
    lose_the_identity: "has no node.json but holds",
    rot_the_formation: "cluster.json is damaged",
}
REMEDIES = ("Restore", "Remove the node from the cluster and add it again", "empty the directory")


async def command(cluster: Cluster, n: int, tag: str) -> None:
    definition = {"Indexes": [{"Name": f"i{n}", "Maps": ["from x in docs select '" + "x" * 5000 + "'"]}]}
    await cluster.call("PUT", f"/databases/{DATABASE}/admin/indexes", definition, tag)


async def indexes(cluster: Cluster, tag: str) -> set[str]:
    return {
        index["Name"] for index in (await cluster.call("GET", f"/databases/{DATABASE}/indexes", tag=tag))["Results"]
    }


async def caught_up(cluster: Cluster, tag: str, count: int) -> None:
    async def has_all() -> bool:
        return await indexes(cluster, tag) == {f"i{n}" for n in range(count)}

    await cluster.wait_until(has_all, f"{count} commands on {tag}")


async def stopped(cluster: Cluster, tag: str) -> Path:
    """Kills the node once all it holds is known to be committed, so that no accident can pass for a crash."""
    raft = cluster.nodes[tag].data_dir / "raft"
    files = HardStateFiles(SystemDisk(), raft)

    async def noted() -> bool:
        status = await cluster.status(tag)
        return status is not None and files.load_commit() == status["Node"]["AppliedIndex"]

    await cluster.wait_until(noted, f"{tag} to note what is committed")
    assert await cluster.kill(tag) < 0
    return raft


async def whole_again(cluster: Cluster) -> Path:
    """The data directory of C, which is down, as it was but for its boot count: copies of one disk are refused."""
    if cluster.ended("C") is None:
        await cluster.kill("C")
    data = cluster.nodes["C"].data_dir
    shutil.rmtree(data)
    shutil.copytree(data.with_suffix(".whole"), data)
    identity = json.loads((data / "node.json").read_bytes())
    (data / "node.json").write_text(json.dumps(identity | {"boot": next(BOOTS)}))
    return data


def said(cluster: Cluster, tag: str, before: int) -> str:
    return cluster.nodes[tag].log_file.read_text(errors="replace")[before:]


async def refuses(cluster: Cluster, tag: str, reason: str) -> None:
    """The start fails with the reason and a remedy."""
    file = cluster.nodes[tag].log_file
    before = len(file.read_text(errors="replace"))
    cluster.start(tag)
    assert await cluster.died(tag) == 1
    text = said(cluster, tag, before)
    assert re.search(reason, text), text
    assert any(remedy in text for remedy in REMEDIES), text
    assert "Traceback" not in text


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Three nodes with a snapshot and a journal each, of which C is down. Its files are kept aside in `C.whole`."""
    async with Cluster(tmp_path_factory.mktemp("damage"), "ABC", flags=FLAGS) as three:
        await three.create_database(DATABASE, "ABC")
        for n in range(COMMANDS):
            await command(three, n, "ABC"[n % 3])
        await caught_up(three, "C", COMMANDS)
        raft = await stopped(three, "C")
        assert (raft / "snapshot").exists()
        shutil.copytree(raft.parent, raft.parent.with_suffix(".whole"))
        yield three


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("accident", ACCIDENTS, ids=lambda accident: accident.__name__)
async def test_a_node_whose_files_are_not_what_it_wrote_refuses_the_start(
    cluster: Cluster, accident: Callable[[Path], None]
) -> None:
    data = await whole_again(cluster)
    accident(data / "raft")
    await refuses(cluster, "C", ACCIDENTS[accident])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_tail_that_was_never_finished_is_cut_and_the_rest_comes_from_the_leader(cluster: Cluster) -> None:
    data = await whole_again(cluster)
    await command(cluster, COMMANDS, "A")
    last = segments(data / "raft")[-1]
    half = last.read_bytes()[: HEADER_BYTES - 1]
    with last.open("ab") as file:
        file.write(half)
    await cluster.restart("C")
    await caught_up(cluster, "C", COMMANDS + 1)
    assert "torn tail is cut" in cluster.nodes["C"].log_file.read_text(errors="replace")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_node_that_lost_its_log_is_replaced_as_its_refusal_says(cluster: Cluster) -> None:
    data = await whole_again(cluster)
    shutil.rmtree(data / "raft")
    await refuses(cluster, "C", ACCIDENTS[lose_all])
    await cluster.call("DELETE", "/admin/cluster/node?nodeTag=C")
    del cluster.nodes["C"]
    shutil.rmtree(data)
    await cluster.add("D")
    held = await indexes(cluster, "A")
    await cluster.call("PUT", f"/admin/databases/node?name={DATABASE}&node=D")
    await caught_up(cluster, "D", len(held))


def delete_file(file: Path) -> None:
    file.unlink()


def spoil_file(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(0)
        opened.write(b"\x5a" * file.stat().st_size)


@pytest.mark.parametrize("accident", [delete_file, spoil_file])
async def test_a_copy_whose_file_fails_is_demoted_and_filled_again_by_the_others(
    tmp_path: Path, accident: Callable[[Path], None]
) -> None:
    ids = [f"items/{n}" for n in range(200)]
    async with Cluster(tmp_path, "ABC", flags=("--cluster.stabilization-time-sec", "0", *PATIENT)) as cluster:
        await cluster.create_database(DATABASE, "ABC")
        documents = [{"@metadata": {"@id": id, "@collection": "Items"}, "Text": "x" * 1000} for id in ids]
        await cluster.import_documents(DATABASE, documents, "A")
        await cluster.wait_until(lambda: holds(cluster, "B", ids), "all documents on B")
        await cluster.kill("B", signal.SIGTERM)
        await cluster.restart("B")
        [file] = (cluster.nodes["B"].data_dir / "databases" / DATABASE.lower()).glob("*.sqlite")
        accident(file)
        with pytest.raises(HttpError, match=r"(?i)database file .*(deleted|damaged|gone)"):
            await use(cluster, "B", ids)

        async def demoted() -> bool:
            return bool((await cluster.topology(DATABASE))["Rehabs"] == ["B"])

        async def faulted() -> bool:
            status = await cluster.status("B")
            return status is not None and "is faulted: the database file" in " ".join(status["Node"]["NotReady"])

        # It may be in Rehab already, for its restart.
        await cluster.wait_until(faulted, "B to say what it has lost")
        await cluster.wait_until(demoted, "B in Rehab")
        # What the reason says: out of the group, and in again.
        leave = {"DatabaseNames": [DATABASE], "FromNodes": ["B"], "HardDelete": True}
        await cluster.call("DELETE", "/admin/databases", leave, "A")

        async def left() -> bool:
            view: Any = await cluster.view()
            return "B" not in view["Databases"][DATABASE]["DeletionInProgress"]

        await cluster.wait_until(left, "B to have left the group")
        await cluster.call("PUT", f"/admin/databases/node?name={DATABASE}&node=B", tag="A")

        async def member() -> bool:
            return "B" in (await cluster.topology(DATABASE))["Members"]

        await cluster.wait_until(member, "B to be a Member again")
        assert await holds(cluster, "B", ids)
        await cluster.ready("B")


async def use(cluster: Cluster, tag: str, ids: list[str]) -> None:
    """A write and a read."""
    body = {"@metadata": {"@collection": "Items"}}
    await cluster.call("PUT", f"/databases/{DATABASE}/docs?id=items/late", body, tag)
    await holds(cluster, tag, ids)


async def holds(cluster: Cluster, tag: str, ids: list[str]) -> bool:
    answer: Any = await cluster.call("POST", f"/databases/{DATABASE}/docs", {"Ids": ids}, tag)
    return all(answer["Results"])


async def test_a_lone_node_says_what_is_lost_and_what_to_do(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "A", flags=FLAGS) as cluster:
        await cluster.create_database(DATABASE, "A")
        await command(cluster, 0, "A")
        await use(cluster, "A", ["items/late"])
        [file] = (cluster.nodes["A"].data_dir / "databases" / DATABASE.lower()).glob("*.sqlite")
        file.unlink()

        async def faulted() -> bool:
            status = await cluster.status("A")
            return status is not None and "restore it from a backup" in " ".join(status["Node"]["NotReady"])

        await cluster.wait_until(faulted, "the loss to be told")
        await cluster.kill("A", signal.SIGTERM)
        cluster.start("A")
        await cluster.wait_until(faulted, "the loss to be told after a restart too")
        assert not file.exists()
        raft = await stopped(cluster, "A")
        rot_within(raft)
        await refuses(cluster, "A", ACCIDENTS[rot_within])
