"""The process is killed, or the power fails, before each change of a file in turn: what starts then is right.

Of a node's directory without Raft's files, whose crash points are in tests/unit/consensus/storage/test_crash_points.py.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from raftnode.cluster import bootstrap as bootstrap
from raftnode.cluster.bootstrap import Bootstrap, formation_of
from raftnode.cluster.identity import ClaimedDirectory, claim_directory, record_took_part
from raftnode.consensus.raft import Peer
from raftnode.documents.store import folders, removed
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation.http_client import HttpClient
from tests.harness.crash import killed
from tests.unit.web.conftest import settings_in

STEPS_MAX = 200
DOCUMENTS = 5


def everywhere(directory: Path, action: Callable[[Path], object]) -> Iterator[Path]:
    """A fresh directory for each change on the way of the action; each is given when the process was killed there, and
    the last one when it came to its end."""
    for steps in itertools.count():
        assert steps < STEPS_MAX, "it comes to an end"
        place = directory / str(steps)
        place.mkdir()
        was_killed = killed(place, steps, lambda: action(place))  # noqa: B023
        yield place
        if not was_killed:
            assert steps > 2, "it was killed on the way"
            return


# the identity


def first_start(place: Path) -> ClaimedDirectory:
    identity = claim_directory(place / "made" / "data", "A")
    record_took_part(place / "made" / "data", identity)
    return identity


def test_a_first_start_that_is_killed_is_begun_again(tmp_path: Path) -> None:
    for place in everywhere(tmp_path, first_start):
        first_start(place).release()
        again = claim_directory(place / "made" / "data", "A")
        again.release()
        assert again.took_part


def test_a_later_start_that_is_killed_leaves_the_id_and_never_a_lower_count(tmp_path: Path) -> None:
    def starts(place: Path) -> None:
        first = first_start(place)
        first.release()
        first_start(place).release()

    def later(place: Path) -> None:
        claim_directory(place / "made" / "data", "A").release()

    for steps in itertools.count():
        place = tmp_path / str(steps)
        starts(place)
        stored = json.loads((place / "made" / "data" / "node.json").read_bytes())
        was_killed = killed(place, steps, lambda: later(place))  # noqa: B023
        again = claim_directory(place / "made" / "data", "A")
        again.release()
        assert (again.own.node_id, again.took_part) == (stored["node_id"], True)
        assert again.own.boot > stored["boot"]
        if not was_killed:
            assert again.own.boot == stored["boot"] + 2
            break


# the formation


def test_a_formation_that_is_killed_while_it_is_stored_is_the_former_or_the_new_one(tmp_path: Path) -> None:
    before, after = (Bootstrap(wire_id=id, peers=(Peer("A", "127.0.0.1:1"),)) for id in ("before", "after"))
    seen = set()

    def stored(place: Path) -> None:
        bootstrap.store(place, after)

    for steps in itertools.count():
        place = tmp_path / str(steps)
        identity = claim_directory(place, "A")
        bootstrap.store(place, before)
        was_killed = killed(place, steps, lambda: stored(place))  # noqa: B023
        found = asyncio.run(_formation(place, identity))
        identity.release()
        assert found in (before, after)
        seen.add(found.wire_id)
        if not was_killed:
            assert found == after
            break
    assert seen == {"before", "after"}


def test_a_first_formation_that_is_killed_is_formed_alike_again(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "x")

    def formed(place: Path) -> None:
        identity = claim_directory(place, "A")
        asyncio.run(_formation(place, identity, settings))

    wire_ids = set()
    for place in everywhere(tmp_path, formed):
        identity = claim_directory(place, "A")
        wire_ids.add(asyncio.run(_formation(place, identity, settings)).wire_id)
        identity.release()
    assert len(wire_ids) == 1


async def _formation(place: Path, identity: ClaimedDirectory, settings: object = None) -> Bootstrap:
    given = settings or settings_in(place)
    async with HttpClient() as http:
        return await formation_of(given, place, identity, http, join_url=None, watcher=False)  # type: ignore[arg-type]


# the files of databases


def path_in(place: Path) -> Path:
    return folders.file(place, "Shop", "id")


async def opened(place: Path) -> DocumentStore:
    mark = place / folders.MADE / folders.folder("Shop") / "id"
    return await DocumentStore.open(path_in(place), tag="A", database="Shop", mark=mark)


async def write(place: Path, *, close: bool = True) -> None:
    """Opens the copy and writes into it. Not closed, it has a write-ahead log that counts."""
    store = await opened(place)
    for n in range(DOCUMENTS):
        await store.put(f"items/{n}", {"N": n})
    if close:
        await store.close()


def counted(place: Path) -> int:
    """How many documents there are once all were written, by processes of their own: this one must have no threads."""

    async def count() -> None:
        store = await opened(place)
        (place / "count").write_text(str((await store.stats()).documents))
        await store.close()

    completes(place, count)
    return int((place / "count").read_text())


def completes(place: Path, action: Callable[[], Coroutine[Any, Any, None]]) -> None:
    assert not killed(place, 10_000, lambda: asyncio.run(action()))


def written(place: Path) -> None:
    """A copy with documents, of which some stand in the write-ahead log only, as a kill leaves it."""
    completes(place, lambda: write(place, close=False))
    assert path_in(place).with_name("id.sqlite-wal").stat().st_size > 0


def test_a_database_that_is_killed_while_it_is_made_is_made(tmp_path: Path) -> None:
    for place in everywhere(tmp_path, lambda place: asyncio.run(write(place))):
        completes(place, lambda: write(place))  # noqa: B023
        assert counted(place) == DOCUMENTS


def deleted(place: Path, *, hard: bool) -> None:
    """As `Databases` does it."""
    if hard:
        folders.remove(place / folders.folder("Shop"))
    else:
        folders.move(place / folders.folder("Shop"), folders.away(place, "Shop"))
    folders.remove(place / folders.MADE / folders.folder("Shop"))


@pytest.mark.parametrize("hard", [True, False])
def test_a_database_that_is_killed_while_it_is_deleted_goes_and_may_be_made_again(tmp_path: Path, hard: bool) -> None:
    def action(place: Path) -> None:
        deleted(place, hard=hard)

    for steps in itertools.count():
        place = tmp_path / str(steps)
        written(place)
        was_killed = killed(place, steps, lambda: action(place))  # noqa: B023
        action(place)
        assert not path_in(place).exists()
        found = removed.removed(place, ())
        assert [one.documents for one in found] == ([] if hard else [DOCUMENTS])
        completes(place, lambda: write(place))  # noqa: B023
        if not was_killed:
            break
    assert steps > 2


@pytest.mark.parametrize("is_live", [False, True])
def test_a_copy_whose_restoring_is_killed_is_restored_whole_and_once(tmp_path: Path, is_live: bool) -> None:
    """`is_live`: the cluster has the database already, so that only forgetting the copy is left to do."""

    def restored(place: Path) -> None:
        [which] = removed.removed(place, ())
        removed.put_back(which, path_in(place))
        if is_live:
            removed.forget(Path(which.path))

    for steps in itertools.count():
        place = tmp_path / str(steps)
        written(place)
        deleted(place, hard=False)
        was_killed = killed(place, steps, lambda: restored(place))  # noqa: B023
        if is_live and path_in(place).exists():
            assert removed.removed(place, {path_in(place)}) == []
        else:
            [which] = removed.removed(place, ())
            removed.put_back(which, path_in(place))
            removed.forget(Path(which.path))
        assert list((place / folders.REMOVED).rglob("*.sqlite*")) == []
        assert counted(place) == DOCUMENTS
        assert path_in(place).stat().st_nlink == 1
        if not was_killed:
            break
    assert steps > 2
