"""Two groups of two stores each, with external replication between them, under arbitrary schedules: writes, deletions,
purges on both sides, nodes of either side lost for good, sessions that end anywhere and go on between other nodes, with
and without a delay, and batches of every session that arrive late, repeated or never."""

from typing import Any

from hypothesis import Phase, currently_in_test_context, given, note, settings
from hypothesis import strategies as st

from raftnode.documents import change_vector as cv
from raftnode.documents.replication.delay import DelayedSource
from raftnode.documents.replication.sender import ReceiverState
from raftnode.documents.replication.settled import SettledPlaces
from raftnode.documents.store import reads, rows
from raftnode.documents.store.cleaning import ConsumedUpTo
from raftnode.documents.store.model import Batch, ReplicationBatch
from tests.properties.test_documents_replication import (
    DOCUMENTS,
    Action,
    Chance,
    InFlight,
    ReplicaStore,
    ReplicationWorld,
    act,
)

GROUPS = ((0, 1), (2, 3))
DELAY_TICKS = 5


class Source:
    """A store as a sender sees it."""

    def __init__(self, node: ReplicaStore) -> None:
        self._node = node
        self.database_id = node.id

    @property
    def last_etag(self) -> int:
        return self._node.writer.state.last_etag

    @property
    def change_vector(self) -> str:
        return self._node.knowledge

    async def known_at(self, etag: int) -> str:
        return reads.known_at(self._node.connection, (self._node.tag, self._node.id), etag)

    async def after(self, etag: int, *, limit: int, bytes_max: int) -> Batch:
        return self._node.after(etag, limit)

    async def wait_known(self, after_etag: int, change_vector: str, timeout_s: float | None) -> None:
        raise AssertionError("nobody waits here")


class ReplicationSession:
    """A sender's session from one node to one of the other group."""

    def __init__(self, world: "TwoGroups", source: ReplicaStore, destination: ReplicaStore, delayed: bool) -> None:
        self.world, self.source, self.destination = world, source, destination
        store = Source(source)
        self.read = DelayedSource(store, DELAY_TICKS / 10_000_000, world.clock) if delayed else store
        self.settled = SettledPlaces()
        self.told = rows.accepted(destination.connection, source.id)
        self.settled.told(self.told, world.state(destination, source))

    def batch(self, limit: int) -> ReplicationBatch:
        """The next one, without what the destination holds."""
        batch = _run(self.read.after(self.told, limit=limit, bytes_max=1 << 30))
        return ReplicationBatch(
            source=self.source.id,
            documents=tuple(i for i in batch.items if not cv.dominates(self.destination.knowledge, i.change_vector)),
            after_etag=self.told,
            last_etag=batch.last_etag,
            knowledge=batch.change_vector,
            purged_last_modified=batch.purged_last_modified,
        )

    def answered(self) -> None:
        """The other side has taken a batch in."""
        self.told = rows.accepted(self.destination.connection, self.source.id)
        self.settled.told(self.told, self.world.state(self.destination, self.source))


class TwoGroups(ReplicationWorld):
    """`tasks` tells for each group whether it replicates to the other one. A late batch of a session is like any."""

    def __init__(self, tasks: tuple[bool, bool], delayed: bool) -> None:
        super().__init__(with_task=False)
        self.nodes.append(ReplicaStore("D", self.clock))
        self.all_nodes = list(self.nodes)
        self.tasks, self.delayed = tasks, delayed
        self.sessions: list[ReplicationSession | None] = [None, None]
        self.freed: list[tuple[str, dict[str, int]]] = [("", {}), ("", {})]

    def mates(self, node: ReplicaStore) -> list[ReplicaStore]:
        group = next(group for group in GROUPS if node in [self.nodes[i] for i in group])
        return [self.nodes[i] for i in group if self.nodes[i] is not node]

    def state(self, node: ReplicaStore, source: ReplicaStore) -> ReceiverState:
        """What a node answers to a session."""
        settled = min(rows.accepted(mate.connection, node.id) for mate in self.mates(node))
        return ReceiverState(
            database_id=node.id,
            accepted_etag=rows.accepted(node.connection, source.id),
            change_vector=node.knowledge,
            last_etag=node.writer.state.last_etag,
            settled_etag=settled,
            settled_change_vector=reads.known_at(node.connection, (node.tag, node.id), settled),
        )

    def open(self, group: int, source: int, destination: int) -> None:
        """The task of a group goes on between these two of its own and the other's nodes."""
        if self.tasks[group]:
            here, there = self.nodes[GROUPS[group][source]], self.nodes[GROUPS[1 - group][destination]]
            self.sessions[group] = ReplicationSession(self, here, there, self.delayed)
            self.checkpoint(group)

    def step(self, group: int, limit: int, arrives: bool) -> bool:
        """A session sends its next batch, which arrives now or is left on its way, by which the session ends. False: it
        has nothing."""
        session = self.sessions[group]
        if session is None or session.destination not in self.nodes or session.source not in self.nodes:
            return False
        batch = session.batch(limit)
        self.in_flight.append(InFlight(session.destination, batch))
        if not arrives:
            self.sessions[group] = None
            return False
        self.deliver(-1, again=True)
        session.answered()
        self.checkpoint(group)
        return batch.last_etag > batch.after_etag

    def checkpoint(self, group: int) -> None:
        """What the task tells its own group, by which tombstones go."""
        session = self.sessions[group]
        if session is None:
            return
        if session.destination in self.nodes:
            session.settled.asked(self.state(session.destination, session.source))
        if session.settled.etag:
            self.freed[group] = (session.settled.change_vector, {session.source.id: session.settled.etag})

    def purge(self, node: ReplicaStore) -> None:
        group = next(i for i, group in enumerate(GROUPS) if node in [self.nodes[n] for n in group])
        passed = min(rows.accepted(mate.connection, node.id) for mate in self.mates(node))
        vector, etags = self.freed[group]
        tasks = ((etags.get(node.id, 0), vector),) if self.tasks[group] else ()
        before = {id: row for id in DOCUMENTS if (row := node.row(id)) is not None}
        with node.transaction() as writer:
            writer.purge(ConsumedUpTo(passed, tasks))
        for id, row in before.items():
            if node.row(id) is None:
                self.purged[id] = cv.merge(self.purged.get(id, ""), row.change_vector)

    def settle(self, rounds: int) -> None:
        """A calm time within each group."""
        for _ in range(rounds):
            for one, other in [*GROUPS, *((b, a) for a, b in GROUPS)]:
                self.send(self.nodes[one], self.nodes[other], 1000, 0, 0)
                self.deliver(-1, again=False)

    def finish(self) -> None:
        """A calm time for all, once every version is old enough."""
        self.clock.now_ns += 1_000_000
        self.in_flight.clear()
        for _ in range(4):
            self.settle(3)
            for group in (0, 1):
                self.open(group, 0, 0)
                while self.step(group, 1000, True):
                    pass
        self.settle(3)


class Chances(Chance):
    def open(self) -> Action:
        return ("open", self._random.randrange(2), self._random.randrange(2), self._random.randrange(2))

    def step(self) -> Action:
        return ("step", self._random.randrange(2), self._limit(), self._random.random() < 0.8)

    def turn(self) -> Action:
        return ("turn",)

    def within(self) -> Action:
        group = self._random.choice(GROUPS)
        source, destination = self._random.sample(group, 2)
        return ("replicate", source, destination, self._limit())

    def node(self) -> int:
        return self._random.randrange(4)

    def later(self) -> Action:
        return ("clock", self._random.randint(0, 2 * DELAY_TICKS))


def play(actions: list[Action], tasks: tuple[bool, bool], delayed: bool) -> None:
    if currently_in_test_context():
        note(f"{tasks}, delayed {delayed}, {actions}")
    world = TwoGroups(tasks, delayed)
    try:
        for action in actions:
            match action:
                case ("open", int(group), int(source), int(destination)):
                    world.open(group, source, destination)
                case ("step", int(group), int(limit), bool(arrives)):
                    world.step(group, limit, arrives)
                case ("turn",):
                    # As tasks do now and then, and before every purge that frees something.
                    world.checkpoint(0)
                    world.checkpoint(1)
                case _:
                    act(world, action)
            world.check()
        world.finish()
        world.check()
        check(world)
    finally:
        world.close()


def check(world: TwoGroups) -> None:
    """Each group is of one mind, a destination has all that its source has, and nothing deleted is back."""
    for here, there in GROUPS:
        for id in DOCUMENTS:
            one, other = world.nodes[here].row(id), world.nodes[there].row(id)
            if one is None or other is None:
                assert all(row is None or row.deleted for row in (one, other)), f"{id}: {one} and {other}"
            else:
                assert (one.change_vector, one.body, one.deleted) == (other.change_vector, other.body, other.deleted)
    for source, destination in [pair for pair, task in zip((GROUPS, GROUPS[::-1]), world.tasks, strict=True) if task]:
        theirs, ours = world.nodes[destination[0]], world.nodes[source[0]]
        assert cv.dominates(theirs.knowledge, ours.knowledge)
        for id in DOCUMENTS:
            row, live = ours.row(id), theirs.row(id)
            if row is not None and not row.deleted and (live is None or live.deleted):
                assert any(
                    write.document == id and write.deleted and not cv.dominates(row.change_vector, write.dot)
                    for write in world.writes
                ), f"{row} is missing"
            elif row is not None and not row.deleted:
                assert live is not None
                assert cv.dominates(live.change_vector, row.change_vector)
            if live is None or live.deleted:
                continue
            counted = cv.merge(live.change_vector, theirs.knowledge)
            [winner] = [write for write in world.writes if write.dot == live.origin]
            for write in world.writes:
                if write.document == id and cv.dominates(counted, write.dot):
                    assert not cv.dominates(write.known, winner.dot), f"{winner} came back over {write}"


_settings = settings(max_examples=50, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
_seed = st.integers(0, 2**64 - 1)
KINDS = [
    "put",
    "put",
    "delete",
    "within",
    "within",
    "open",
    "step",
    "step",
    "step",
    "deliver",
    "purge",
    "settle",
    "lose",
]


@_settings
@given(_seed)
def test_whatever_arrives_late_no_old_version_stands_and_nothing_deleted_comes_back(seed: int) -> None:
    play(Chances(seed).schedule(*KINDS, "clock"), (True, False), False)


@_settings
@given(_seed)
def test_the_same_with_both_directions(seed: int) -> None:
    play(Chances(seed).schedule(*KINDS), (True, True), False)


@_settings
@given(_seed)
def test_the_same_with_a_delay(seed: int) -> None:
    play(Chances(seed).schedule(*KINDS, "later"), (True, False), True)


def test_a_tombstone_is_kept_until_every_copy_of_the_destination_has_it() -> None:
    """C takes it in and is lost before D has it; the source goes on with D, which must lose the document, too."""
    play(
        [
            ("put", 0, "d/0", False),
            *(("open", 0, 0, 0), ("step", 0, 100, True), ("settle", 2, False)),
            ("put", 0, "d/0", True),
            *(("step", 0, 100, True), ("replicate", 0, 1, 100)),
            *(("purge", 0), ("purge", 1), ("lose", 2), ("open", 0, 0, 1)),
        ],
        (True, False),
        False,
    )


def _run(work: Any) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    finally:
        work.close()
    raise AssertionError("it waits")
