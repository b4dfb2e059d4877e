"""Three stores and a task under arbitrary schedules: writes, overwrites, deletes, batches that are lost, repeated or
late, purges, tasks that move with and without their last checkpoint, and nodes lost for good and replaced."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from typing import NamedTuple
from unittest import mock

from hypothesis import Phase, currently_in_test_context, given, note, settings
from hypothesis import strategies as st

from raftnode.documents import change_vector as cv
from raftnode.documents.store import reads, rows, sqlite, writes
from raftnode.documents.store.body import prepare
from raftnode.documents.store.cleaning import ConsumedUpTo
from raftnode.documents.store.model import Batch, Document, ReplicationBatch, new_database_id
from raftnode.documents.store.writes import Writer

DOCUMENTS = [f"d/{n}" for n in range(3)]


class ReplicaStore:
    """A store without its files and threads: the very transaction code on an in-memory database."""

    def __init__(self, tag: str, clock: "TurnedClock", id: str | None = None) -> None:
        self.tag, self.id = tag, id or new_database_id()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        sqlite.create_tables(self.connection, "x", self.id)
        self.writer = Writer(self.connection, tag, self.id, clock)
        self.known_before = [""]

    @contextmanager
    def transaction(self) -> Iterator[Writer]:
        self.connection.execute("BEGIN IMMEDIATE")
        yield self.writer
        self.writer.save()
        self.connection.execute("COMMIT")
        self.known_before.append(self.knowledge)

    @property
    def knowledge(self) -> str:
        return self.writer.database_change_vector

    def after(self, etag: int, limit: int) -> Batch:
        return reads.after(self.connection, (self.tag, self.id), etag, limit, 1 << 30, None)

    def row(self, id: str) -> Document | None:
        return rows.find(self.connection, id)

    def close(self) -> None:
        self.connection.close()


class TurnedClock:
    """A wall clock that the schedule turns as it likes, also back."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ns


class Write(NamedTuple):
    """A write that some node acknowledged, and all that the node knew before: what it replaced is among that."""

    document: str
    dot: str
    content: bytes
    deleted: bool
    known: str


class InFlight(NamedTuple):
    destination: ReplicaStore
    batch: ReplicationBatch


class ReplicationWorld:
    def __init__(self, with_task: bool) -> None:
        self.with_task = with_task
        self.clock = TurnedClock()
        self.nodes = [ReplicaStore(tag, self.clock) for tag in "ABC"]
        self.all_nodes = list(self.nodes)
        self.writes: list[Write] = []
        self.purged: dict[str, str] = {}
        self.in_flight: list[InFlight] = []
        self.progress, self.cursors = "", dict[str, int]()
        self.target: dict[str, Document] = {}
        self.had: dict[str, str] = {}

    def close(self) -> None:
        for node in self.all_nodes:
            node.close()

    def put(self, node: ReplicaStore, id: str, delete: bool) -> None:
        row = node.row(id)
        known = cv.merge(node.knowledge, row.change_vector if row is not None else "")
        with node.transaction() as writer:
            content = b'{"n":%d}' % len(self.writes)
            version = writer.delete(id, None) if delete else writer.put(id, prepare(id, content, None), None)
        if version is not None:
            self.writes.append(Write(id, version.origin, version.body, version.deleted, known))

    def send(self, source: ReplicaStore, destination: ReplicaStore, limit: int, back: int, stale: int) -> None:
        """Read a batch as the sender does: from the accepted place (or one before or, mistakenly, after it), without
        what the destination was once known to hold."""
        accepted = rows.accepted(destination.connection, source.id)
        after = max(0, accepted - back)
        batch = source.after(after, limit)
        known = destination.known_before[-1 - stale % len(destination.known_before)]
        outgoing = ReplicationBatch(
            source=source.id,
            documents=tuple(item for item in batch.items if not cv.dominates(known, item.change_vector)),
            after_etag=after,
            last_etag=batch.last_etag,
            knowledge=batch.change_vector,
            purged_last_modified=batch.purged_last_modified,
        )
        self.in_flight.append(InFlight(destination, outgoing))

    def deliver(self, index: int, again: bool) -> None:
        if not self.in_flight:
            return
        flight = self.in_flight[index % len(self.in_flight)]
        if not again:
            self.in_flight.remove(flight)
        if flight.destination not in self.nodes:
            return
        with flight.destination.transaction() as writer:
            writer.merge(flight.batch)

    def work(self, holder: ReplicaStore, limit: int, checkpoint: bool) -> bool:
        """A task's turn on a node. Without the checkpoint it is as if the node had died just before it."""
        batch = holder.after(self.cursors.get(holder.id, 0), limit)
        for item in batch.items:
            if not item.counted_in(self.progress):
                self.target[item.id] = item
                self.had[item.id] = cv.merge(self.had.get(item.id, ""), item.change_vector)
        if checkpoint:
            self.progress = cv.merge(self.progress, batch.change_vector)
            self.cursors[holder.id] = batch.last_etag
        return batch.end

    def purge(self, node: ReplicaStore) -> None:
        passed = [rows.accepted(other.connection, node.id) for other in self.nodes if other is not node]
        task = self.cursors.get(node.id, 0), self.progress
        before = {id: row for id in DOCUMENTS if (row := node.row(id)) is not None}
        with node.transaction() as writer:
            writer.purge(ConsumedUpTo(min(passed), (task,) if self.with_task else ()))
        for id, row in before.items():
            if node.row(id) is None:
                assert row.deleted
                self.purged[id] = cv.merge(self.purged.get(id, ""), row.change_vector)

    def lose(self, index: int) -> None:
        """A node is gone with its disk; a new one takes its tag and its place."""
        lost = self.nodes[index]
        self.nodes[index] = ReplicaStore(lost.tag, self.clock)
        self.all_nodes.append(self.nodes[index])

    def check(self) -> None:
        for write in self.writes:
            for node in self.nodes:
                if cv.dominates(node.knowledge, write.dot):
                    row = node.row(write.document)
                    held = cv.merge(row.change_vector if row else "", self.purged.get(write.document, ""))
                    assert cv.dominates(held, write.dot), f"{node.tag} promises {write} but holds {held!r}"
            if cv.dominates(self.progress, write.dot):
                assert cv.dominates(self.had.get(write.document, ""), write.dot), f"the task never had {write}"

    def settle(self, rounds: int) -> None:
        """A calm time: everybody sends everything to everybody."""
        for source, destination in [*permutations(self.nodes, 2)] * rounds:
            self.send(source, destination, 1000, 0, 0)
            self.deliver(-1, again=False)

    def clean_up(self) -> None:
        """The task has its turn on every node, so that much can be purged, and then it is."""
        for node in self.nodes if self.with_task else []:
            self.work(node, 1000, True)
        for node in self.nodes:
            self.purge(node)


def check_settled(world: ReplicationWorld, holder: ReplicaStore) -> None:
    first, *others = world.nodes
    for id in DOCUMENTS:
        row = first.row(id)
        for other in others:
            theirs = other.row(id)
            if row is None or theirs is None:
                # One of them has purged the tombstone already.
                assert all(version is None or version.deleted for version in (row, theirs))
            else:
                assert theirs.change_vector == row.change_vector
                assert (theirs.body, theirs.deleted, theirs.origin) == (row.body, row.deleted, row.origin)
        if row is not None:
            [winner] = [write for write in world.writes if write.dot == row.origin]
            assert (row.body, row.deleted) == (winner.content, winner.deleted)
            counted = cv.merge(row.change_vector, first.knowledge)
            for write in world.writes:
                if write.document == id and cv.dominates(counted, write.dot):
                    assert not cv.dominates(write.known, winner.dot), f"{winner} came back over {write}"
    assert len({node.knowledge for node in world.nodes}) == 1
    if not world.with_task:
        return
    while not world.work(holder, 3, True):
        pass
    world.check()
    for id in DOCUMENTS:
        row, done = holder.row(id), world.target.get(id)
        if row is None or not cv.dominates(row.change_vector, world.had.get(id, "")):
            continue  # What the target has was lost with its node, or is gone here.
        assert done is not None
        assert (done.body, done.deleted) == (row.body, row.deleted), f"the target holds an old {id}"


Action = tuple[object, ...]
_LENGTHS = (5, 10, 20, 40)


class Chance:
    """Draws schedules. Uniform chance finds far more here than lists that a strategy composes."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def schedule(self, *kinds: str) -> list[Action]:
        """A schedule of actions of these kinds; a kind named twice comes twice as often."""
        return [getattr(self, self._random.choice(kinds))() for _ in range(self._random.choice(_LENGTHS))]

    def node(self) -> int:
        return self._random.randrange(3)

    def put(self) -> Action:
        return ("put", self.node(), self._random.choice(DOCUMENTS), self._random.random() < 0.25)

    def put_one(self) -> Action:
        return ("put", self.node(), DOCUMENTS[0], self._random.random() < 0.25)

    def delete(self) -> Action:
        return ("put", self.node(), self._random.choice(DOCUMENTS), True)

    def replicate(self) -> Action:
        return ("replicate", self.node(), self.node(), self._limit())

    def send(self) -> Action:
        return ("send", self.node(), self.node(), self._limit(), self._random.randint(-3, 4), self._random.randrange(4))

    def deliver(self) -> Action:
        return ("deliver", self._random.randrange(10), self._random.random() < 0.5)

    def work(self) -> Action:
        return ("work", self.node(), self._limit(), self._random.random() < 0.7)

    def purge(self) -> Action:
        return ("purge", self.node())

    def compact(self) -> Action:
        return ("compact", self.node(), self._random.randint(0, 6))

    def settle(self) -> Action:
        return ("settle", self._random.randint(1, 2), self._random.random() < 0.5)

    def lose(self) -> Action:
        return ("lose", self.node())

    def clock(self) -> Action:
        return ("clock", self._random.randint(-6, 6))

    def _limit(self) -> int:
        return self._random.choice([1, 2, 3, 100])


def act(world: ReplicationWorld, action: Action) -> None:
    match action:
        case ("put", int(node), str(id), bool(delete)):
            world.put(world.nodes[node], id, delete)
        case ("replicate", int(source), int(destination), int(limit)) if source != destination:
            world.send(world.nodes[source], world.nodes[destination], limit, 0, 0)
            world.deliver(-1, again=False)
        case ("send", int(source), int(destination), int(limit), int(back), int(stale)) if source != destination:
            world.send(world.nodes[source], world.nodes[destination], limit, back, stale)
        case ("deliver", int(index), bool(again)):
            world.deliver(index, again)
        case ("work", int(node), int(limit), bool(checkpoint)):
            world.work(world.nodes[node], limit, checkpoint)
        case ("purge", int(node)):
            world.purge(world.nodes[node])
        case ("compact", int(node), int(back)):
            with world.nodes[node].transaction() as writer:
                nobody = ((0, ""),)
                writer.purge(ConsumedUpTo(max(0, writer.state.last_etag - back), nobody))
        case ("settle", int(rounds), bool(clean_up)):
            world.settle(rounds)
            if clean_up:
                world.clean_up()
        case ("lose", int(node)):
            world.lose(node)
        case ("clock", int(change)):
            world.clock.now_ns += change * 100


def play(actions: list[Action], holder: int, *, with_task: bool = True) -> None:
    """Run a schedule, looking at the promises after every action, then let all settle and compare."""
    if currently_in_test_context():
        note(f"holder {holder}, {actions}")
    world = ReplicationWorld(with_task)
    try:
        with mock.patch.object(writes, "OLD_PLACES_MIN", -1000):
            for action in actions:
                act(world, action)
                world.check()
            world.in_flight.clear()
            world.settle(4)
            world.check()
            check_settled(world, world.nodes[holder])
    finally:
        world.close()


_settings = settings(max_examples=150, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
_seed = st.integers(0, 2**64 - 1)


@_settings
@given(_seed)
def test_no_schedule_breaks_the_promise_of_a_change_vector(seed: int) -> None:
    chance = Chance(seed)
    kinds = ["put", "replicate", "send", "deliver", "work", "purge", "compact", "settle", "lose", "clock"]
    play(chance.schedule(*kinds, "put", "replicate"), chance.node())


@_settings
@given(_seed)
def test_concurrent_writes_end_the_same_whatever_the_clocks_do(seed: int) -> None:
    play(Chance(seed).schedule("put_one", "replicate", "clock"), 0)


@_settings
@given(_seed)
def test_a_task_that_moves_among_conflicts_ends_with_the_winners(seed: int) -> None:
    chance = Chance(seed)
    play(chance.schedule("put_one", "replicate", "work", "work"), chance.node())


@_settings
@given(_seed)
def test_what_was_deleted_and_purged_does_not_come_back(seed: int) -> None:
    kinds = ["put", "put", "delete", "replicate", "send", "deliver", "purge", "settle", "lose", "clock"]
    play(Chance(seed).schedule(*kinds), 0, with_task=False)


@_settings
@given(_seed)
def test_a_compacted_log_promises_nothing_that_is_not_there(seed: int) -> None:
    play(Chance(seed).schedule("put", "put", "replicate", "compact", "lose"), 0, with_task=False)


def test_a_task_does_not_go_back_to_the_resolution_of_an_older_conflict() -> None:
    """B's newest write comes after a conflict that everybody resolved; C, behind, has only the resolution of it."""
    play(
        [
            ("put", 2, "d/2", False),
            ("put", 1, "d/2", False),
            ("settle", 2, False),
            ("put", 1, "d/2", False),
            ("work", 1, 100, True),
            ("work", 2, 100, False),
        ],
        1,
    )
