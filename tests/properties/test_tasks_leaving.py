"""A task sees that a document left its collections, whatever happened in between.

Documents are deleted and put again under another spelling of their id and in another collection, on several nodes that
replicate now and then, forget tombstones and compact their logs, while the task has its turns here and there. When all
is at rest, the target must hold exactly the documents that stand in the task's collections now.
"""

import random
from collections.abc import Iterable
from itertools import permutations
from string import ascii_letters
from unittest import mock

from hypothesis import example, given, note, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from raftnode.documents import change_vector
from raftnode.documents.store import reads, rows, writes
from raftnode.documents.store.body import prepare
from raftnode.documents.store.cleaning import ConsumedUpTo
from raftnode.documents.store.model import Document, ReplicationBatch
from raftnode.foundation.names import fold
from tasks.etl.configuration import TransformConfiguration
from tasks.etl.stream import TransformProgress
from tasks.kinds.sql_etl.stream import SqlTransformStream
from tests.properties.test_documents_replication import ReplicaStore, TurnedClock

IDS = ("orders/1", "Orders/1", "ORDERS/1", "x/2", "X/2")
COLLECTIONS = ("Orders", "orders", "Archive", "Drafts", "@hilo")
LENGTHS = (5, 10, 20, 40, 80)


def _transform(name: str, script: str, *collections: str) -> TransformConfiguration:
    return TransformConfiguration(
        name=name, script=script, collections=collections, apply_to_all_documents=not collections
    )


TRANSFORMS = (
    _transform("orders", "loadTot({}); loadToown({})", "Orders"),
    _transform("archive", "loadTot({})", "ARCHIVE"),
    _transform("everything", "loadToall({})"),
)
"""The first two write one table, each for documents of its own."""
TABLES = {"t", "own", "all"}
INSERTS = _transform("inserts", "loadTolog({})", "Orders")
"""Writes a table that is only inserted into, where each version must come once at most."""
EVERY = (*TRANSFORMS, INSERTS)


class LeavingWorld:
    """Three nodes, and a task that carries documents into tables: rows by (table, id in its spelling)."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.clock = chance, TurnedClock()
        # The ids decide between concurrent versions, so they come from the seed as well.
        self.nodes = [ReplicaStore(tag, self.clock, "".join(chance.choices(ascii_letters, k=22))) for tag in "ABC"]
        self.target: dict[tuple[str, str], bytes] = {}
        self.progress = {transform.name: TransformProgress() for transform in EVERY}
        self.log: list[Document] = []

    def put(self) -> None:
        node, id, collection = self.node(), self.chance.choice(IDS), self.chance.choice(COLLECTIONS)
        row = rows.find(node.connection, fold(id))
        with node.transaction() as writer:
            if row is not None and not row.deleted:
                if row.collection.lower() == collection.lower() and self.chance.random() < 0.5:
                    writer.put(id, prepare(id, self.content(), row.collection), None)
                    return
                writer.delete(id, None)
            if self.chance.random() < 0.8:
                writer.put(id, prepare(id, self.content(), collection), None)

    def content(self) -> bytes:
        return b'{"n":%d}' % self.chance.randrange(1 << 30)

    def node(self) -> ReplicaStore:
        return self.chance.choice(self.nodes)

    def replicate(self) -> None:
        source, destination = self.chance.sample(self.nodes, 2)
        self.send(source, destination, self.chance.choice([1, 2, 100]))

    def send(self, source: ReplicaStore, destination: ReplicaStore, limit: int) -> None:
        after = rows.accepted(destination.connection, source.id)
        batch = source.after(after, limit)
        new = [d for d in batch.items if not change_vector.dominates(destination.knowledge, d.change_vector)]
        with destination.transaction() as writer:
            writer.merge(
                ReplicationBatch(
                    source.id, after, batch.last_etag, batch.change_vector, tuple(new), batch.purged_last_modified
                )
            )

    def work(self) -> None:
        """A turn of the task on some node, in which some of its transforms are off."""
        transforms = [replace(transform, disabled=self.chance.random() >= 0.8) for transform in TRANSFORMS]
        self.carry(self.node(), (*transforms, INSERTS), self.chance.choice([1, 2, 100]))

    def carry(self, holder: ReplicaStore, transforms: Iterable[TransformConfiguration], limit: int) -> bool:
        streams = [
            SqlTransformStream(transform, self.progress[transform.name], holder.id, {"log"}) for transform in transforms
        ]
        moved = False
        for stream in [stream for stream in streams if stream.enabled]:
            own = (holder.tag, holder.id)
            batch = reads.after(holder.connection, own, stream.etag, limit, 1 << 30, stream.collections)
            pending = stream.pending(batch)
            for document in pending:
                loaded: list[tuple[str, dict[str, object]]] = (
                    [(table, {}) for table in stream.targets] if stream.has(document) else []
                )
                written = stream.written(document, loaded, streams)
                if stream.transform.name == INSERTS.name:
                    self.log += [document] * len(written.rows)
                    continue
                for table in written.tables:
                    for id in (*([] if table in written.kept else [written.id]), *written.earlier):
                        self.target.pop((table, id), None)
                for table, _ in written.rows:
                    self.target[table, written.id] = document.body
            moved = moved or batch.last_etag > stream.etag
            set_back = stream.set_back(batch, pending, streams, TABLES)
            for other in streams:
                other.progress = set_back.get(other.transform.name, other.progress)
            stream.progress = stream.advanced(batch, pending)
            for other in streams:
                self.progress[other.transform.name] = other.progress
        return moved

    def clean(self) -> None:
        """A node forgets what everybody has passed."""
        node = self.node()
        places = [rows.accepted(other.connection, node.id) for other in self.nodes if other is not node]
        task = (
            min(progress.last_etags.get(node.id, 0) for progress in self.progress.values()),
            change_vector.meet(*(progress.change_vector for progress in self.progress.values())),
        )
        with node.transaction() as writer:
            writer.purge(ConsumedUpTo(min(places), (task,)))

    def settle(self) -> None:
        for source, destination in [*permutations(self.nodes, 2)] * 4:
            self.send(source, destination, 1000)


def expected(node: ReplicaStore) -> dict[tuple[str, str], bytes]:
    found = {}
    for id in IDS:
        document = rows.find(node.connection, fold(id))
        if document is None or document.deleted:
            continue
        tables = {"orders": ("t", "own"), "archive": ("t",)}.get(document.collection.lower(), ())
        for table in (*tables, *(("all",) if document.collection != "@hilo" else ())):
            found[table, document.id] = document.body
    return found


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 2**64 - 1))
@example(9).via("a transform kept no rows for a disabled one")
@example(523).via("a version was taken for counted as its origin was, and inserted again")
@example(948).via("a transform wrote an older version over another's row, which had had the newer one elsewhere")
@example(3181).via("the same")
@example(3510).via("a transform went back to what a version that it had before its place builds on")
def test_the_target_ends_with_the_documents_that_stand_in_the_collections(seed: int) -> None:
    chance = random.Random(seed)
    world = LeavingWorld(chance)
    actions = ("put", "put", "put", "replicate", "replicate", "work", "clean")
    with mock.patch.object(writes, "OLD_PLACES_MIN", -1000):
        for _ in range(chance.choice(LENGTHS)):
            action = chance.choice(actions)
            note(action)
            getattr(world, action)()
        world.settle()
        holder = world.node()
        while world.carry(holder, EVERY, 3):
            pass
    assert world.target == expected(holder)
    origins = [document.origin for document in world.log if not document.resolved]
    assert len(origins) == len(set(origins))
    inserted = {document.body for document in world.log}
    assert {body for (table, _), body in world.target.items() if table == "own"} <= inserted
    for node in world.nodes:
        node.close()
