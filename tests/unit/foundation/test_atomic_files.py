"""A file that is replaced holds the previous content or the new one, whenever the process is killed or power fails."""

import itertools
import os
import stat
from pathlib import Path

import pytest

from raftnode.foundation import atomic_files
from tests.harness.crash import killed

BEFORE, AFTER = b"before" * 1000, b"after" * 1000


def test_a_file_that_is_killed_while_it_is_written_is_the_previous_or_the_new_one(tmp_path: Path) -> None:
    seen = set()
    for steps in itertools.count():
        place = tmp_path / str(steps)
        place.mkdir()
        file = place / "file"
        file.write_bytes(BEFORE)
        (place / "file.new").write_bytes(b"of an earlier crash")
        was_killed = killed(place, steps, lambda: atomic_files.write(file, AFTER))  # noqa: B023
        found = file.read_bytes()
        assert found in (BEFORE, AFTER)
        seen.add(found)
        atomic_files.write(file, AFTER)
        assert [path.name for path in place.iterdir()] == ["file"]
        if not was_killed:
            assert found == AFTER
            break
    assert seen == {BEFORE, AFTER}


def test_what_does_not_pass_the_check_leaves_the_previous_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(BEFORE)

    def checked() -> None:
        with atomic_files.replacing(file, AFTER) as new:
            assert (new.read_bytes(), file.read_bytes()) == (AFTER, BEFORE)
            raise RuntimeError("damaged")

    with pytest.raises(RuntimeError, match="damaged"):
        checked()
    assert file.read_bytes() == BEFORE
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_left_over_lends_the_new_file_neither_its_rights_nor_its_target(tmp_path: Path) -> None:
    file, elsewhere = tmp_path / "file", tmp_path / "elsewhere"
    elsewhere.write_bytes(BEFORE)
    (tmp_path / "file.new").symlink_to(elsewhere)
    with atomic_files.replacing(file, AFTER, mode=0o600):
        pass
    assert (file.read_bytes(), elsewhere.read_bytes()) == (AFTER, BEFORE)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_directories_are_the_owners_alone_and_known_to_those_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
    atomic_files.make_directory(tmp_path / "a" / "b")
    assert set(synced) == {tmp_path, tmp_path / "a"}
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    synced.clear()
    atomic_files.make_directory(tmp_path / "a" / "b")
    assert synced == []
