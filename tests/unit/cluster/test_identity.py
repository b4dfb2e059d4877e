"""The data directory's lock, id and boot count."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raftnode.cluster.identity import FILE, LOCK, IdentityError, claim_directory, note_superseded, record_took_part


def test_a_new_directory_gets_an_id_that_stays_and_a_boot_count_that_grows(tmp_path: Path) -> None:
    data = tmp_path / "a" / "b"
    first = claim_directory(data, "A")
    first.release()
    second = claim_directory(data, "A")
    second.release()
    assert len(first.own.node_id) == 32
    assert first.own.node_id == second.own.node_id
    assert (first.own.boot, second.own.boot) == (1, 2)
    assert first.own.nonce != second.own.nonce
    assert claim_directory(tmp_path / "other", "A").own.node_id != first.own.node_id


def test_only_its_owner_may_look_into_a_directory_that_a_node_made(tmp_path: Path) -> None:
    claim_directory(tmp_path / "above" / "A", "A").release()
    assert (tmp_path / "above" / "A").stat().st_mode & 0o777 == 0o700


def test_a_directory_in_use_is_refused_with_the_pid_of_its_process(tmp_path: Path) -> None:
    holder = claim_directory(tmp_path, "A")
    with pytest.raises(IdentityError, match=f"Another raftnode runs .* pid {os.getpid()}"):
        claim_directory(tmp_path, "A")
    holder.release()
    claim_directory(tmp_path, "A").release()


def test_a_killed_process_lets_go_of_the_directory(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from raftnode.cluster.identity import claim_directory;"
        f"claim_directory(Path({str(tmp_path)!r}), 'A'); print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert child.stdout
    assert child.stdin
    with child.stdout, child.stdin:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(IdentityError, match=f"pid {child.pid}"):
            claim_directory(tmp_path, "A")
        child.kill()
        child.wait()
    mine = claim_directory(tmp_path, "A")
    assert mine.own.boot == 2
    mine.release()


def test_another_nodes_directory_is_refused(tmp_path: Path) -> None:
    claim_directory(tmp_path, "A").release()
    with pytest.raises(IdentityError, match="belongs to node A"):
        claim_directory(tmp_path, "B")
    assert claim_directory(tmp_path, "A").own.boot == 2, "the refusal let go of the lock and counted nothing"


@pytest.mark.parametrize("content", ["", "{", '{"node_id":"x","tag":"A","boot":1}', '{"tag":"A","boot":1}'])
def test_a_damaged_identity_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(IdentityError, match=f"{FILE} is damaged"):
        claim_directory(tmp_path, "A")


def test_a_directory_that_lost_its_identity_is_refused_and_a_fresh_mount_is_not(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    claim_directory(tmp_path, "A").release()
    (tmp_path / FILE).unlink()
    (tmp_path / "raft").mkdir()
    with pytest.raises(IdentityError, match=f"no {FILE} but holds raft"):
        claim_directory(tmp_path, "A")


def test_a_directory_that_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IdentityError, match="cannot be used"):
        claim_directory(tmp_path / "file" / "data", "A")
    (tmp_path / "data" / "node.json.new").mkdir(parents=True)
    with pytest.raises(IdentityError, match="cannot be read or written"):
        claim_directory(tmp_path / "data", "A")


def test_a_torn_write_leaves_the_old_count(tmp_path: Path) -> None:
    claim_directory(tmp_path, "A").release()
    (tmp_path / "node.json.new").write_text('{"node')
    mine = claim_directory(tmp_path, "A")
    assert mine.own.boot == 2
    mine.release()


def test_that_a_directory_has_held_a_log_is_remembered(tmp_path: Path) -> None:
    first = claim_directory(tmp_path, "A")
    assert not first.took_part
    record_took_part(tmp_path, first)
    first.release()
    for boot in (2, 3):
        again = claim_directory(tmp_path, "A")
        record_took_part(tmp_path, again)
        assert (again.took_part, again.own.boot, again.own.node_id) == (True, boot, first.own.node_id)
        again.release()


@pytest.mark.parametrize("written", ["raft", "raft/vote", "databases", "databases/shop", "cluster.json"])
def test_what_another_user_owns_is_refused_before_the_start_counts(written: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:  # tmp_path is closed to other users
        data_dir = Path(made)
        claim_directory(data_dir, "A").release()
        path = data_dir / written
        path.parent.mkdir(exist_ok=True)
        path.touch() if path.suffix or written == "raft/vote" else path.mkdir()
        for ours in (data_dir, *data_dir.rglob("*")):
            ours.chmod(0o777)
        path.chmod(0o500)
        with another_user(), pytest.raises(IdentityError, match=rf"{written} may not be .*written.*chown -R"):
            claim_directory(data_dir, "A")
        path.chmod(0o777)
        with another_user():
            again = claim_directory(data_dir, "A")
        again.release()
        assert again.own.boot == 2


@contextmanager
def another_user() -> Iterator[None]:
    """Root may do everything, so it is nobody for a moment."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_directory_in_use_is_refused_when_its_lock_was_deleted(tmp_path: Path) -> None:
    holder = claim_directory(tmp_path, "A")
    (tmp_path / LOCK).unlink()
    for _ in range(2):
        with pytest.raises(IdentityError, match=r"Another raftnode runs .* was deleted"):
            claim_directory(tmp_path, "A")
    holder.release()
    claim_directory(tmp_path, "A").release()


def test_a_directory_that_the_cluster_has_gone_past_is_not_started_again(tmp_path: Path) -> None:
    record_took_part(tmp_path, mine := claim_directory(tmp_path, "A"))
    note_superseded(tmp_path, mine)
    mine.release()
    for _ in range(3):
        with pytest.raises(IdentityError, match=r"The cluster has gone past .* emptied, it may join under a new tag"):
            claim_directory(tmp_path, "A")
    recovering = claim_directory(tmp_path, "A", superseded=True)
    assert (recovering.own.boot, recovering.took_part) == (2, True), "refused starts are not counted"
    recovering.release()
    with pytest.raises(IdentityError):
        claim_directory(tmp_path, "A")
    recovering = claim_directory(tmp_path, "A", superseded=True)
    note_superseded(tmp_path, recovering, superseded=False)
    recovering.release()
    claim_directory(tmp_path, "A").release()


def test_a_process_speaks_for_its_own_start_alone(tmp_path: Path) -> None:
    """Where a directory cannot be locked, a later process may use it."""
    earlier = claim_directory(tmp_path, "A")
    earlier.release()
    later = claim_directory(tmp_path, "A")
    note_superseded(tmp_path, earlier)
    later.release()
    claim_directory(tmp_path, "A").release()
