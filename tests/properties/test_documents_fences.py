"""Runs of an ETL task write to three nodes of a destination, beside users, while batches are lost, late and repeated,
nodes purge, and requests of replaced runs arrive at any time at any node: every node ends with the same, and what
stands is never older than the newest request that was taken.

A request is a list of writes with one token. Its world has one task a document, as the guarantee says, and two tasks.
"""

import random
from contextlib import suppress
from itertools import permutations
from typing import NamedTuple
from unittest import mock

import msgspec
from hypothesis import Phase, currently_in_test_context, given, note, settings
from hypothesis import strategies as st

from raftnode.documents import change_vector as cv
from raftnode.documents.errors import FenceStale
from raftnode.documents.store import rows, writes
from raftnode.documents.store.body import prepare
from raftnode.documents.store.cleaning import ConsumedUpTo
from raftnode.documents.store.fencing import FencedRequest, FenceToken, Place, place_of
from raftnode.documents.store.model import Document, ReplicationBatch
from tests.properties.test_documents_replication import InFlight, ReplicaStore, TurnedClock

IDS = {0: ("d/1", "d/2"), 1: ("e/1",)}
"""The documents of each task; users write to all of them."""
PREFIX = "d/1/people/"
EPOCHS = 3
STEPS = (10, 20, 40)


class LateRequest(NamedTuple):
    """A request to a node: what it puts (with None: deletes) by id, in a place of its task's order. No two requests
    have the same place."""

    task: int
    epoch: int
    sequence: int
    puts: dict[str, str | None]
    children: int
    progress: int
    node: ReplicaStore

    @property
    def token(self) -> FenceToken:
        return FenceToken("cluster/shop", self.task, self.epoch, self.sequence)


class FencedGroup:
    """Three nodes, and the requests that have been made: any may arrive now or later, or never, or twice."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = TurnedClock()
        self.nodes = [ReplicaStore(tag, self.clock) for tag in "ABC"]
        self.requests: list[LateRequest] = []
        self.taken: list[LateRequest] = []
        self.in_flight: list[InFlight] = []
        self.held: dict[int, dict[str, Place]] = {}
        self.purged = False

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def node(self) -> ReplicaStore:
        return self.chance.choice(self.nodes)

    def make_request(self) -> None:
        """A run, perhaps one that was replaced long ago, sends its next request, which may arrive at once."""
        task, epoch = self.chance.randrange(2), self.chance.randint(1, EPOCHS)
        sequence = 1 + sum(1 for r in self.requests if (r.task, r.epoch) == (task, epoch))
        puts: dict[str, str | None] = {
            id: None if self.chance.random() < 0.3 else f"{task}-{epoch}-{sequence}"
            for id in IDS[task]
            if self.chance.random() < 0.7
        }
        number, children = len(self.requests), self.chance.randint(0, 2)
        self.requests.append(LateRequest(task, epoch, sequence, puts, children, number, self.node()))
        if self.chance.random() < 0.6:
            self.arrive(self.requests[-1])

    def arrive(self, request: LateRequest) -> None:
        """One transaction of its node, or nothing."""
        progress = b'{"n":%d}' % request.progress
        with request.node.transaction() as writer, suppress(FenceStale):
            writer.pass_fence(FencedRequest(token=request.token, progress=progress))
            for id, content in request.puts.items():
                if content is None:
                    writer.delete(id, None, request.token)
                else:
                    writer.put(id, prepare(id, {"by": content}, None), None, request.token)
            if request.task == 0:
                writer.delete_prefix(PREFIX, request.token)
                for number in range(request.children):
                    body = prepare(PREFIX, {"by": f"{request.epoch}-{request.sequence}", "n": number}, "People")
                    writer.put(PREFIX, body, None, request.token)
            self.taken.append(request)
            self.held[request.progress] = self.places(request.node, request.task)

    def places(self, node: ReplicaStore, task: int) -> dict[str, Place]:
        """On which request of the task each of its documents rests at a node."""
        found = {id: node.row(id) for id in (*IDS[task], PREFIX)}
        return {id: place_of(row.fences, ("cluster/shop", task)) or (0, 0) for id, row in found.items() if row}

    def check_progress(self) -> None:
        """Who has a progress holds all that was held where it was stored, itself or a successor."""
        for node in self.nodes:
            for state in node.writer.fences.values():
                if not state.progress or self.purged:
                    continue
                held = self.places(node, state.task)
                for id, place in self.held[msgspec.json.decode(state.progress)["n"]].items():
                    assert held.get(id, (0, 0)) >= place, f"{node.tag} has a progress that counts {id} of {place}"

    def user(self) -> None:
        """A user writes over whatever stands there."""
        node, id = self.node(), self.chance.choice([id for ids in IDS.values() for id in ids])
        with node.transaction() as writer:
            if self.chance.random() < 0.3:
                writer.delete(id, None)
            else:
                writer.put(id, prepare(id, {"by": "user"}, None), None)

    def user_edits_child(self) -> None:
        node = self.node()
        for child in rows.below(node.connection, PREFIX)[:1]:
            with node.transaction() as writer:
                writer.put(child.id, prepare(child.id, {"by": "user"}, "People"), None)

    def send(self, source: ReplicaStore, destination: ReplicaStore, *, back: int = 0, limit: int = 1000) -> None:
        accepted = rows.accepted(destination.connection, source.id)
        after = max(0, accepted - back)
        batch = source.after(after, limit)
        known = destination.knowledge
        outgoing = ReplicationBatch(
            source=source.id,
            documents=tuple(item for item in batch.items if not cv.dominates(known, item.change_vector)),
            after_etag=after,
            last_etag=batch.last_etag,
            knowledge=batch.change_vector,
            purged_last_modified=batch.purged_last_modified,
            fences=batch.fences,
        )
        self.in_flight.append(InFlight(destination, outgoing))

    def deliver(self) -> None:
        if self.in_flight:
            flight = self.in_flight[self.chance.randrange(len(self.in_flight))]
            if self.chance.random() < 0.7:
                self.in_flight.remove(flight)
            with flight.destination.transaction() as writer:
                writer.merge(flight.batch)

    def replicate(self) -> None:
        source, destination = self.chance.sample(self.nodes, 2)
        self.send(source, destination, back=self.chance.randrange(3), limit=self.chance.choice([1, 2, 1000]))
        if self.chance.random() < 0.8:
            self.deliver()

    def purge(self) -> None:
        node, self.purged = self.node(), True
        passed = min(rows.accepted(other.connection, node.id) for other in self.nodes if other is not node)
        with node.transaction() as writer:
            writer.purge(ConsumedUpTo(passed))

    def turn_clock(self) -> None:
        self.clock.now_ns += self.chance.randint(-600, 600)

    def late(self) -> None:
        """A request that was made some time ago arrives."""
        if self.requests:
            self.arrive(self.chance.choice(self.requests))

    def settle(self) -> None:
        for source, destination in [*permutations(self.nodes, 2)] * 4:
            self.send(source, destination)
            with self.in_flight[-1].destination.transaction() as writer:
                writer.merge(self.in_flight.pop().batch)

    def live(self, node: ReplicaStore, id: str) -> Document | None:
        row = node.row(id)
        return None if row is None or row.deleted else row

    def check(self) -> None:
        """Everybody has the same; nothing stands that rests on less than the newest request taken."""
        first, *others = self.nodes
        for other in others:
            assert dict(other.writer.fences) == dict(first.writer.fences)
            assert other.knowledge == first.knowledge
        for task, ids in IDS.items():
            for id in ids:
                found = [self.live(node, id) for node in self.nodes]
                shown = {row and (row.body, row.change_vector, row.origin, row.fences) for row in found}
                assert len(shown) == 1, f"{id} differs: {found}"
                wrote = [r for r in self.taken if r.task == task and id in r.puts]
                newest = max(wrote, key=lambda r: r.token, default=None)
                [row, *_] = found
                if newest is None or row is None:
                    continue
                rests_on = place_of(row.fences, newest.token.name)
                if b"user" not in row.body or rests_on is not None:
                    assert rests_on == newest.token.place, f"{row} stands over {newest}"
                if b"user" not in row.body:
                    assert row.body == b'{"by":"%s"}' % (newest.puts[id] or "").encode()
        self.check_children()

    def check_children(self) -> None:
        found = [[(c.id, c.body, c.fences) for c in rows.below(node.connection, PREFIX)] for node in self.nodes]
        assert found[0] == found[1] == found[2]
        newest = max((r for r in self.taken if r.task == 0), key=lambda r: r.token, default=None)
        if newest is not None:
            assert len(found[0]) <= newest.children
            assert all(place_of(fences, newest.token.name) == newest.token.place for _, _, fences in found[0])
            if not any(b"user" in body for _, body, _ in found[0]):
                assert len(found[0]) == newest.children, "the newest request's documents stand"


ACTIONS = (
    *("make_request",) * 4, "late", "user", "user_edits_child", *("replicate",) * 4, "deliver", "turn_clock", "settle",
)  # fmt: skip
_settings = settings(max_examples=80, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])


def play(seed: int, *actions: str) -> None:
    if currently_in_test_context():
        note(f"seed {seed}")
    world = FencedGroup(seed)
    try:
        with mock.patch.object(writes, "OLD_PLACES_MIN", -1000):
            for _ in range(world.chance.choice(STEPS)):
                getattr(world, world.chance.choice(actions))()
                world.check_progress()
            world.settle()
            world.check()
    finally:
        world.close()


@_settings
@given(st.integers(0, 2**64 - 1))
def test_whatever_arrives_late_anywhere_the_newest_request_stands_on_every_node(seed: int) -> None:
    play(seed, *ACTIONS)


@_settings
@given(st.integers(0, 2**64 - 1))
def test_what_was_deleted_and_purged_is_not_raised_by_a_late_request(seed: int) -> None:
    play(seed, "make_request", "make_request", "late", "late", "replicate", "settle", "purge", "purge")
