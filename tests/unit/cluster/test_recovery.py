"""A node that begins its cluster anew, and a cluster begun from a saved snapshot, on a real node of one."""

import socket
from pathlib import Path

import pytest

from config import Settings
from raftnode.cluster import bootstrap as bootstrap
from raftnode.cluster import recovery
from raftnode.cluster.recovery import INDEX_GAP, RecoveryRefused
from raftnode.consensus.storage import offline
from raftnode.consensus.storage.snapshot import SnapshotStore
from raftnode.foundation.http_client import HttpClient
from tests.unit.web.conftest import running, settings_in


async def stopped(directory: Path) -> Settings:
    """The settings of a node that ran, made a database, and was stopped."""
    settings = settings_in(directory)
    async with running(settings) as client:
        assert (await client.put("/admin/databases?name=Shop", {})).status == 201
    return settings


async def test_looking_changes_nothing_and_forcing_raises_the_generation_unless_it_is_repeated(tmp_path: Path) -> None:
    settings = await stopped(tmp_path / "data")
    with recovery.survivor(settings) as looked:
        pass
    with recovery.survivor(settings) as survivor:
        assert (survivor.last, survivor.record) == (looked.last, looked.record)
        assert (survivor.others, survivor.without_copy) == ([], [])
        recovery.force_new_cluster(settings, survivor)
    with recovery.survivor(settings) as once:
        assert once.record.generation > survivor.record.generation
        assert once.last.index == survivor.last.index + INDEX_GAP
        recovery.force_new_cluster(settings, once)
    async with running(settings) as client:
        record = client.node.replica.record
        assert record.generation == once.record.generation
        assert record.cluster_id == survivor.record.cluster_id
        assert record.databases["shop"].topology.members == ("A",)
        assert (await client.put("/admin/databases?name=Second", {})).status == 201
    with recovery.survivor(settings) as lived:
        recovery.force_new_cluster(settings, lived)
    with recovery.survivor(settings) as again:
        assert again.record.generation > lived.record.generation


async def test_a_recovery_that_the_disk_does_not_take_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = await stopped(tmp_path / "data")
    name = (tmp_path / "data" / "cluster.json").read_bytes()

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SnapshotStore, "write", full)
    with pytest.raises(RecoveryRefused, match="No space left on device"), recovery.survivor(settings) as survivor:
        recovery.force_new_cluster(settings, survivor)
    monkeypatch.undo()
    assert (tmp_path / "data" / "cluster.json").read_bytes() == name
    with recovery.survivor(settings) as again:
        assert (again.last, again.record) == (survivor.last, survivor.record)


async def test_another_node_that_answers_stops_a_recovery(tmp_path: Path) -> None:
    settings = await stopped(tmp_path / "data")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with running(settings) as client:
            joining = {"Tag": "B", "Url": "http://127.0.0.1:1", "ClusterAddress": f"127.0.0.1:{port}", "Watcher": True}
            assert (await client.put("/admin/cluster/node", joining)).status == 200
            with pytest.raises(RecoveryRefused, match="Another raftnode runs"), recovery.survivor(settings):
                raise AssertionError
        with recovery.survivor(settings) as survivor:
            with pytest.raises(RecoveryRefused, match=rf"Still running: B \(127.0.0.1:{port} answers\)"):
                recovery.force_new_cluster(settings, survivor)
            before = survivor.last
    with recovery.survivor(settings) as survivor:
        assert survivor.last == before
        recovery.force_new_cluster(settings, survivor)


async def test_what_is_no_nodes_directory_or_another_nodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecoveryRefused, match="holds no log of a cluster"), recovery.survivor(settings_in(tmp_path)):
        raise AssertionError
    settings = await stopped(tmp_path / "data")
    other = settings_in(tmp_path / "data", node__tag="Z")
    with pytest.raises(RecoveryRefused, match="belongs to node A, and this is to be node Z"), recovery.survivor(other):
        raise AssertionError
    (tmp_path / "data" / "raft" / "vote").write_bytes(b"bent")
    with pytest.raises(RecoveryRefused, match="does not match its checksum"), recovery.survivor(settings):
        raise AssertionError


async def test_a_restore_that_fails_leaves_an_empty_directory_and_may_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, fresh = tmp_path / "file", settings_in(tmp_path / "fresh", node__tag="N")
    async with running(settings_in(tmp_path / "data")) as client:
        assert (await client.put("/admin/databases?name=Shop", {})).status == 201
        async with HttpClient() as http:
            file.write_bytes((await http.request("GET", f"{client.url}/admin/cluster/snapshot")).body)

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bootstrap, "store", full)
    with pytest.raises(RecoveryRefused, match="No space left on device"):
        recovery.restore(fresh, file)
    assert list((tmp_path / "fresh").iterdir()) == []
    monkeypatch.undo()
    assert recovery.restore(fresh, file).cluster_id == recovery_id(fresh)
    async with running(fresh) as client:
        assert client.node.replica.record.databases["shop"].topology.members == ("N",)


def recovery_id(settings: Settings) -> str:
    """The cluster's id, as the node's log has it."""
    assert offline.has_log(Path(settings.node.data_dir) / "raft")
    with recovery.survivor(settings) as survivor:
        return survivor.record.cluster_id


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RecoveryRefused, match="nowhere cannot be read: No such file"):
        recovery.read_saved(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
