"""Properties of the supervisor's plan, on several nodes that lag, lapse, crash and hand over as they like."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from raftnode.foundation.incarnation import NodeIncarnation
from raftnode.record.commands import (
    AnnounceNode,
    ClaimTask,
    Command,
    Decide,
    DeleteTask,
    NewTopology,
    PutTask,
    ReleaseTask,
    SetTaskPin,
    SetTaskState,
    VoidClaim,
)
from raftnode.record.model import Claim, KindTraits, Record, Task
from raftnode.record.ownership import responsible_node, task_key
from tasks.runtime.plan import Assignment, Forget, OwnRun, ProposeClaim, Release, Start, Stop, assignments_of_node, plan
from tests.unit.record.build import KIND, NONCE, RecordCluster

TAGS = ("A", "B", "C")


@dataclass
class PlannedProcess:
    """One node's process: what it has applied, its lease, and its bodies."""

    tag: str
    view: Record
    boot: int = 1
    session: int | None = 1
    sessions: int = 1
    bodies: dict[str, OwnRun] = field(default_factory=dict)
    tasks: dict[int, tuple[int, str]] = field(default_factory=dict)
    claiming: set[str] = field(default_factory=set)
    spent: set[int] = field(default_factory=set)
    went_on: set[int] = field(default_factory=set)

    @property
    def own(self) -> NodeIncarnation:
        return NodeIncarnation(self.tag, f"id-{self.tag}", self.boot, self.nonce)

    @property
    def nonce(self) -> int:
        """Another one in every process."""
        return NONCE + self.boot - 1

    def alive(self) -> list[int]:
        return [body.epoch for body in self.bodies.values() if body.state != "Ended"]


class PlanWorld:
    """A log, three processes that follow it, and commands on their way to it."""

    def __init__(self, *, mutant: str = "") -> None:
        self.mutant = mutant
        self.cluster = RecordCluster(*TAGS)
        self.cluster.create(*TAGS)
        for n in range(4):
            self.cluster.task(f"task{n}")
        # One may run twice: its body goes on without a lease and after a void, until its node hears of that.
        self.cluster.task("task4", traits=KindTraits(partition_tolerant=True))
        self.nodes = [PlannedProcess(tag, self.cluster.record) for tag in TAGS]
        self.wire: list[tuple[PlannedProcess, Command]] = []
        self.started: set[int] = set()
        self.fresh = 0

    def the_task(self, pick: int) -> Task | None:
        tasks = sorted(self.cluster.database().tasks.values(), key=lambda t: t.id)
        return tasks[pick % len(tasks)] if tasks else None

    # what may happen

    def follow(self, pick: int) -> None:
        self.nodes[pick % 3].view = self.cluster.record

    def step(self, pick: int) -> None:
        node = self.nodes[pick % 3]
        session = node.session
        for action in plan(
            node.view,
            node.own,
            session,
            node.bodies,
            claiming=node.claiming,
            spent=frozenset() if self.mutant == "spent" else node.spent,
        ):
            match action:
                case ProposeClaim(key, assigned, of_session):
                    assert of_session == session
                    assert key not in node.bodies
                    node.claiming.add(key)
                    self.wire.append((node, self._claim(node, assigned, of_session)))
                case Start(key, assigned, epoch, of_session):
                    assert key not in node.bodies
                    if not self.mutant:
                        assert epoch not in self.started
                    self.started.add(epoch)
                    node.spent.add(epoch)
                    node.tasks[epoch] = (assigned.task.id, key)
                    tolerant = assigned.task.traits.partition_tolerant
                    node.bodies[key] = OwnRun(epoch, of_session, assigned.fingerprint, "Running", tolerant)
                case Stop(key, reason):
                    assert reason
                    body, claim = node.bodies[key], node.view.claims.get(key)
                    if body.partition_tolerant and claim is not None and claim.epoch != body.epoch:
                        node.went_on.add(body.epoch)
                    node.bodies[key] = replace(node.bodies[key], state="Stopping")
                case Release(key, epoch, reason):
                    assert epoch not in node.alive()
                    ended = node.bodies.get(key)
                    until = "now" if ended is not None and ended.partition_tolerant else ""
                    self.wire.append((node, ReleaseTask(key=key, epoch=epoch, reason=reason, ran_until=until)))
                case Forget(key):
                    assert node.bodies.pop(key).state == "Ended"

        here = assignments_of_node(node.view, node.own)
        for name, body in node.bodies.items():
            if body.state == "Running":
                assert body.session == session or body.partition_tolerant
                assert node.view.claims[name].epoch == body.epoch
                assert here[name].fingerprint == body.fingerprint

    def tick(self, pick: int) -> None:
        self.follow(pick)
        self.step(pick)

    def _claim(self, node: PlannedProcess, assigned: Assignment, session: int) -> ClaimTask:
        return ClaimTask(
            database=assigned.database,
            kind=assigned.task.kind,
            name=assigned.task.name,
            tag=node.tag,
            node_id=node.own.node_id,
            boot=node.boot,
            nonce=node.nonce,
            session=session,
        )

    def end(self, pick: int) -> None:
        node = self.nodes[pick % 3]
        for key, body in node.bodies.items():
            if body.state == "Stopping":
                node.bodies[key] = replace(body, state="Ended")
                return

    def arrive(self, pick: int) -> None:
        """Some command reaches the log, in any order."""
        if not self.wire:
            return
        node, command = self.wire.pop(pick % len(self.wire))
        self.cluster.apply(command)
        if isinstance(command, ClaimTask):
            node.claiming.clear()

    def repeat(self, pick: int) -> None:
        """A command that was proposed twice arrives twice."""
        if self.wire:
            self.cluster.apply(self.wire[pick % len(self.wire)][1])

    def lapse(self, pick: int) -> None:
        self.nodes[pick % 3].session = None

    def renew(self, pick: int) -> None:
        node = self.nodes[pick % 3]
        if node.session is None:
            node.sessions += 1
            node.session = node.sessions

    def crash(self, pick: int) -> None:
        node = self.nodes[pick % 3]
        node.boot, node.session = node.boot + 1, None
        node.bodies, node.claiming, node.spent, node.went_on = {}, set(), set(), set()
        self.cluster.apply(
            AnnounceNode(
                tag=node.tag,
                node_id=node.own.node_id,
                boot=node.boot,
                nonce=node.nonce,
                url=f"http://{node.tag.lower()}:8080",
                cluster_address=f"{node.tag.lower()}:38888",
                kinds=(KIND,),
            )
        )

    def void(self, pick: int) -> None:
        """The observer, whose arithmetic guarantees that the silent node's bodies have ended."""
        node = self.nodes[pick % 3]
        strict = [body for body in node.bodies.values() if body.state != "Ended" and not body.partition_tolerant]
        if node.session is not None or (strict and self.mutant != "void"):
            return
        self._void(lambda claim: claim.tag == node.tag)

    def void_former(self, pick: int) -> None:
        """The same for what a node's former process held, which has been silent since its crash."""
        node = self.nodes[pick % 3]
        self._void(lambda claim: claim.tag == node.tag and self.former(claim))

    def former(self, claim: Claim) -> bool:
        """Whether the process that holds the claim has crashed."""
        return any(claim.tag == node.tag and claim.nonce != node.nonce for node in self.nodes)

    def _void(self, over: Callable[[Claim], bool]) -> None:
        held = [(key, c) for key, c in self.cluster.record.claims.items() if c.state == "Held" and over(c)]
        voids = tuple(VoidClaim(key=key, epoch=claim.epoch, reason="silent") for key, claim in held)
        self.cluster.apply(Decide(term=1, iteration=1, at="", at_ms=0, voids=voids))

    def rehab(self, pick: int) -> None:
        database = self.cluster.database()
        members = database.topology.members
        down = members[pick % len(members)]
        if len(members) > 1:
            topology = replace(
                database.topology,
                members=tuple(t for t in members if t != down),
                rehabs=(*database.topology.rehabs, down),
            )
            self._decide(topology, database.etag)

    def back(self, pick: int) -> None:
        database = self.cluster.database()
        if database.topology.rehabs:
            tag = database.topology.rehabs[0]
            topology = database.topology.without(tag)
            self._decide(replace(topology, members=(*topology.members, tag)), database.etag)

    def _decide(self, topology: object, etag: int) -> None:
        new = NewTopology(database="Northwind", etag=etag, topology=topology)  # type: ignore[arg-type]
        self.cluster.apply(Decide(term=1, iteration=1, at="", at_ms=0, topologies=(new,)))

    def edit(self, pick: int) -> None:
        if task := self.the_task(pick):
            self._put(task, task.name, pick)

    def rename(self, pick: int) -> None:
        if task := self.the_task(pick):
            self.fresh += 1
            self._put(task, f"name{self.fresh}", pick)

    def _put(self, task: Task, name: str, pick: int) -> None:
        key = task_key(KIND, name, str(pick % 5))
        self.cluster.apply(PutTask(database="Northwind", id=task.id, name=name, kind=KIND, key=key))

    def again(self, pick: int) -> None:
        """A task is deleted and another of its name takes its place."""
        if task := self.the_task(pick):
            self.cluster.apply(DeleteTask(database="Northwind", id=task.id))
            self.cluster.task(task.name)

    def switch(self, pick: int) -> None:
        if task := self.the_task(pick):
            self.cluster.apply(SetTaskState(database="Northwind", id=task.id, disabled=not task.disabled))

    def pin(self, pick: int) -> None:
        if task := self.the_task(pick // 3):
            self.cluster.apply(
                SetTaskPin(database="Northwind", id=task.id, mentor=TAGS[pick % 3], pinned=pick % 2 == 0)
            )

    # what must hold

    def check(self) -> None:
        running: dict[object, str] = {}
        for node in self.nodes:
            for key, body in node.bodies.items():
                if body.state == "Ended":
                    continue
                whats = (body.epoch,) if body.partition_tolerant else (node.tasks[body.epoch], body.epoch)
                for what in whats:
                    assert what not in running, f"{what} runs on {running[what]} and {node.tag}"
                    running[what] = node.tag
                assert node.tasks[body.epoch][1] == key

    def settle(self) -> None:
        for pick in range(3):
            self.renew(pick)
            if any(c.state == "Held" and self.former(c) for c in self.cluster.record.claims.values()):
                self.void_former(pick)
        for _ in range(60):
            for pick in range(3):
                self.follow(pick)
                self.step(pick)
                for _ in range(len(self.nodes[pick].bodies)):
                    self.end(pick)
            while self.wire:
                self.arrive(0)
            self.check()


COMMON = ("tick", "tick", "follow", "step", "end", "arrive", "arrive", "renew")
RARE = (
    "repeat",
    "lapse",
    "renew",
    "crash",
    "void",
    "void_former",
    "rehab",
    "back",
    "edit",
    "rename",
    "again",
    "switch",
    "pin",
)
EVENTS = st.lists(st.tuples(st.sampled_from((*COMMON * 3, *RARE)), st.integers(0, 29)), min_size=60, max_size=120)


@given(EVENTS)
@settings(max_examples=150, deadline=None)
def test_no_task_ever_has_two_bodies_and_no_epoch_runs_twice(events: list[tuple[str, int]]) -> None:
    world = PlanWorld()
    world.settle()
    for event, pick in events:
        getattr(world, event)(pick)
        world.check()


@given(EVENTS)
@settings(max_examples=60, deadline=None)
def test_when_the_dust_settles_each_task_runs_where_it_belongs_and_nothing_else_moves(
    events: list[tuple[str, int]],
) -> None:
    world = PlanWorld()
    for event, pick in events:
        getattr(world, event)(pick)
    world.settle()
    database = world.cluster.database()
    for task in database.tasks.values():
        where = [
            (node.tag, body.state)
            for node in world.nodes
            for body in node.bodies.values()
            if node.tasks[body.epoch][0] == task.id
        ]
        responsible = responsible_node(world.cluster.record, database, task).node
        assert where == ([] if task.disabled or responsible is None else [(responsible, "Running")])
    for claim in world.cluster.record.claims.values():
        late = {run.epoch for run in claim.runs if run.state == "Void"}
        assert not late & {epoch for node in world.nodes for epoch in node.went_on}, "a run that went on is told of"
    before = world.cluster.record.index
    world.settle()
    assert world.cluster.record.index == before


def test_the_checks_catch_a_void_that_comes_before_the_bodies_have_ended() -> None:
    world = PlanWorld(mutant="void")
    caught = False
    for holder in range(3):
        for event in ("step", "arrive", "arrive", "arrive", "arrive", "follow", "step", "lapse", "void"):
            getattr(world, event)(holder)
        world.rehab(0)
        for _ in range(3):
            for pick in range(3):
                world.follow(pick)
                if world.nodes[pick].session is not None:
                    world.step(pick)
            while world.wire:
                world.arrive(0)
        try:
            world.check()
        except AssertionError:
            caught = True
    assert caught


def test_assignments_name_only_the_tasks_of_this_node() -> None:
    cluster = RecordCluster(*TAGS)
    cluster.create(*TAGS)
    for n in range(20):
        cluster.task(f"t{n}")
    shares = [assignments_of_node(cluster.record, NodeIncarnation(tag, f"id-{tag}", 1, 0)).keys() for tag in TAGS]
    assert all(shares)
    assert sum(len(share) for share in shares) == len(set().union(*shares)) == 20
