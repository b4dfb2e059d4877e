"""The supervisor with a real record, real documents and bodies of a plug-in kind."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from msgspec.structs import replace
from structlog.testing import capture_logs

from raftnode.documents.replication.sender import DocumentSender
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation.incarnation import NodeIncarnation
from raftnode.foundation.ports import SystemRandom
from raftnode.record.commands import (
    Changes,
    Command,
    CreateDatabase,
    Decide,
    DeleteTask,
    PutTask,
    ReleaseTask,
    SetTaskPin,
    SetTaskState,
    VoidClaim,
)
from raftnode.record.encoding import enc_hook
from raftnode.record.model import CommandResult, KindTraits, Progress, Record
from raftnode.record.ownership import task_key
from tasks.kinds import registry as kinds
from tasks.kinds.registry import RunSuperseded, TaskFailed
from tasks.runtime import plan
from tasks.runtime.claim_proposals import AT_ONCE_MAX
from tasks.runtime.context import NotOwned, RunSettings, TaskContext
from tasks.runtime.environment import BodyEnvironment
from tasks.runtime.supervisor import SLICE_MAX, Supervisor
from tests.unit.record import build
from tests.unit.record.build import NONCE, RecordCluster
from tests.unit.tasks.conftest import until
from tests.unit.tasks.probe import KIND as PROBE

KEY = "northwind/Probe/t"
FAST = RunSettings(backoff_min_ms=5, backoff_max_ms=20)


class LeaderUnreachable(Exception):
    """No leader answers."""


class LogOfOne:
    """The record of a cluster that this test is, and the way commands take into it."""

    def __init__(self, cluster: RecordCluster) -> None:
        self.cluster = cluster
        self.reachable = True
        self.listeners: list[Callable[[Record, Changes], None]] = []
        self.proposed: list[Command] = []

    @property
    def record(self) -> Record:
        return self.cluster.record

    async def propose(self, command: Command) -> CommandResult:
        await asyncio.sleep(0)
        if not self.reachable:
            raise LeaderUnreachable("no leader is known")
        self.proposed.append(command)
        return self.apply(command)

    def apply(self, command: Command) -> CommandResult:
        applied = self.cluster.apply(command)
        for listener in self.listeners:
            listener(self.record, applied.changes)
        return applied.result


class Lease:
    """A lease that the test gives and takes."""

    def __init__(self) -> None:
        self.session: int | None = 1
        self.on_change: Callable[[], None] = lambda: None
        self.ended = False

    def check(self) -> None:
        if self.ended:
            self.ended = False
            self.lapse()

    def has_lease(self, session: int | None = None) -> bool:
        return self.session is not None and session in (None, self.session)

    def lapse(self) -> None:
        self.session = None
        self.on_change()

    def renew(self, session: int) -> None:
        self.session = session
        self.on_change()


class OneDatabase:
    def __init__(self, store: DocumentStore) -> None:
        self._store = store

    async def store(self, name: str) -> DocumentStore:
        return self._store

    def sends(self, folded: str, tag: str, sender: DocumentSender | None) -> None:
        raise AssertionError("only a mentor sends")

    def sent_to(self, folded: str, tag: str) -> None:
        raise AssertionError("only a mentor asks")


class SupervisedNode:
    """Everything the supervisor of node A touches."""

    def __init__(self, store: DocumentStore, directory: Path, cluster: RecordCluster | None = None) -> None:
        self.cluster = cluster or RecordCluster("A", "B")
        if cluster is None:
            self.cluster.create("A", "B")
        self.log = LogOfOne(self.cluster)
        self.lease = Lease()
        self.counts: list[int] = []
        self.removed = False
        self.directory = directory
        environment = BodyEnvironment(
            "A",
            replica=self.log,
            databases=OneDatabase(store),
            directory=directory,
            random=SystemRandom(),
            settings=FAST,
            checkpoint_ms=1,
        )
        self.supervisor = Supervisor(
            NodeIncarnation("A", "id-A", 1, NONCE),
            replica=self.log,
            lease=self.lease,
            environment=environment,
            bodies_running=self.counts.append,
            random=SystemRandom(),
            removed=lambda: self.removed,
        )
        self.log.listeners.append(self.supervisor.on_tick)
        self.lease.on_change = self.supervisor.on_lease

    def task(self, name: str = "t", mentor: str | None = "A", **fields: Any) -> int:
        command = PutTask(
            database="Northwind", name=name, kind="Probe", key=task_key("Probe", name), mentor=mentor, **fields
        )
        return int(self.log.apply(command).value)

    def edit(self, name: str = "t", **fields: Any) -> None:
        task = self.cluster.task_now(name)
        self.log.apply(
            PutTask(database="Northwind", id=task.id, name=name, kind="Probe", key=task.key, mentor="A", **fields)
        )

    def state(self, name: str = "t") -> str | None:
        status = self.supervisor.status().get(f"northwind/Probe/{name}")
        return status.state if status else None

    def runs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "runs.jsonl").read_text().splitlines()]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.supervisor.run())
        try:
            await until(lambda: self.supervisor._group is not None)
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled() and (error := task.exception()):
                raise error


@pytest.fixture
def node(store: DocumentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SupervisedNode]:
    monkeypatch.setitem(kinds.BUILT_IN, "probe", "tests.unit.tasks.probe:KIND")
    kinds._entry_points.cache_clear()
    PROBE.reset()
    yield SupervisedNode(store, tmp_path)
    kinds._entry_points.cache_clear()


async def test_a_task_is_claimed_and_its_body_runs_under_the_epoch_of_the_grant(node: SupervisedNode) -> None:
    async with node.running():
        node.task()
        await until(lambda: "t" in PROBE.live)
        assert PROBE.live == {"t": node.cluster.claimed("t", "Probe").epoch}
        assert node.state() == "Running"
    assert PROBE.live == {}
    assert node.counts == [1, 0]


async def test_the_end_of_one_body_is_no_reason_to_look_at_the_others(
    node: SupervisedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.running():
        for n in range(300):
            node.task(f"t{n}")
        await until(lambda: len(PROBE.live) == 300)
        looked: list[str] = []
        action = plan.action

        def noted(sight: plan.PlanInput, key: str, *rest: Any) -> plan.Action | None:
            looked.append(key)
            return action(sight, key, *rest)

        monkeypatch.setattr(plan, "action", noted)
        node.log.apply(SetTaskState(database="Northwind", id=node.cluster.task_now("t7").id, disabled=True))
        await until(lambda: node.state("t7") is None and len(PROBE.live) == 299)
        assert set(looked) == {"northwind/Probe/t7"}
        assert len(looked) < 10


async def test_thousands_are_stopped_in_slices_between_which_the_loop_has_a_turn(node: SupervisedNode) -> None:
    async with node.running():
        for n in range(SLICE_MAX * 3):
            node.task(f"t{n}")
        await until(lambda: len(PROBE.live) == SLICE_MAX * 3)
        stopping: list[int] = []
        node.lease.lapse()
        while node.supervisor.status():
            states = [status.state for status in node.supervisor.status().values()]
            if "Running" not in states:
                break
            stopping.append(len(states) - states.count("Running"))
            await asyncio.sleep(0)
        assert [b - a for a, b in pairwise([0, *stopping])] == [SLICE_MAX, SLICE_MAX]


async def test_bodies_that_take_long_to_end_do_so_side_by_side(node: SupervisedNode) -> None:
    count = SLICE_MAX + 20
    all_are_told = asyncio.Barrier(count)

    async def ends_when_all_others_are_told(context: TaskContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await all_are_told.wait()

    PROBE.behave = ends_when_all_others_are_told
    async with node.running():
        for n in range(count):
            node.task(f"t{n}")
        await until(lambda: len(PROBE.live) == count)
        node.log.reachable = False
        node.lease.lapse()
        await until(lambda: not PROBE.live)


async def test_no_more_than_a_bound_of_proposals_is_on_its_way(node: SupervisedNode) -> None:
    under_way, answers = 0, asyncio.Event()
    propose = node.log.propose

    async def slow(command: Command) -> CommandResult:
        nonlocal under_way
        under_way += 1
        await answers.wait()
        return await propose(command)

    node.supervisor._proposals._propose = slow
    for n in range(AT_ONCE_MAX + 50):
        node.task(f"t{n}")
    async with node.running():
        await until(lambda: len(node.supervisor.status()) == AT_ONCE_MAX + 50 and under_way >= AT_ONCE_MAX)
        for _ in range(10):
            await asyncio.sleep(0)
        assert under_way == AT_ONCE_MAX
        answers.set()
        await until(lambda: len(PROBE.live) == AT_ONCE_MAX + 50)


async def test_bodies_that_tolerate_partitions_do_not_count_for_the_kill_timer(node: SupervisedNode) -> None:
    async with node.running():
        node.task(traits=KindTraits(partition_tolerant=True))
        node.task("strict")
        await until(lambda: len(PROBE.live) == 2)
        node.lease.lapse()
        await until(lambda: "strict" not in PROBE.live)
        assert (max(node.counts), node.counts[-1]) == (1, 0)
        assert "t" in PROBE.live


async def test_many_tasks_run_beside_each_other(node: SupervisedNode) -> None:
    async with node.running():
        for n in range(30):
            node.task(f"t{n}")
        await until(lambda: len(PROBE.live) == 30)
    assert max(node.counts) == 30
    assert node.counts[-1] == 0


async def test_a_task_of_another_node_is_left_alone_and_one_held_elsewhere_is_waited_for(node: SupervisedNode) -> None:
    node.task("theirs", mentor="B")
    epoch = node.cluster.do(replace(node.cluster.claim("B", "theirs"), kind="Probe"))
    async with node.running():
        assert node.state("theirs") is None
        node.log.apply(SetTaskPin(database="Northwind", id=node.cluster.task_now("theirs").id, mentor="A"))
        assert node.state("theirs") == "Waiting"
        assert PROBE.live == {}
        void = VoidClaim(key="northwind/Probe/theirs", epoch=epoch, reason="silent")
        node.log.apply(Decide(term=1, iteration=1, at="", at_ms=0, voids=(void,)))
        await until(lambda: "theirs" in PROBE.live)


async def test_whatever_wakes_the_supervisor_the_lease_is_checked_before_anything_is_done(node: SupervisedNode) -> None:
    async with node.running():
        node.task("x")
        await until(lambda: "x" in PROBE.live)
        proposed = len(node.log.proposed)
        node.lease.ended = True
        node.task("y")
        assert node.state("x") == "Stopping"
        assert (node.state("y"), len(node.log.proposed)) == (None, proposed)
        await until(lambda: not PROBE.live)


async def test_without_a_lease_nothing_starts_and_its_end_stops_everything(node: SupervisedNode) -> None:
    node.lease.session = None
    async with node.running():
        node.task("x")
        node.task("y")
        assert node.log.proposed == []
        node.lease.renew(1)
        await until(lambda: len(PROBE.live) == 2)
        node.log.reachable = False
        node.lease.lapse()
        await until(lambda: not PROBE.live)
        assert node.counts[-1] == 0
        assert node.state("x") == "Releasing"


async def test_a_refused_claim_is_shown_and_tried_again_ever_more_slowly(node: SupervisedNode) -> None:
    node.cluster.record = replace(
        node.cluster.record, nodes=node.cluster.record.nodes.set("A", build.node("A", node_id="?"))
    )
    async with node.running():
        node.task()
        await until(lambda: len(node.log.proposed) >= 3)
        status = node.supervisor.status()["northwind/Probe/t"]
        assert status.state == "Claiming"
        assert "not known under the id id-A" in str(status.error)
        nodes = node.cluster.record.nodes.set("A", build.node("A"))
        node.cluster.record = replace(node.cluster.record, nodes=nodes)
        await until(lambda: "t" in PROBE.live)
    assert node.supervisor._claims._refused == {}


@pytest.mark.parametrize(
    "over",
    [NotOwned("the cluster refused progress"), RunSuperseded("a newer run has reached the target")],
    ids=["not owned", "superseded at its sink"],
)
async def test_a_run_that_is_over_ends_and_only_a_new_claim_goes_on(node: SupervisedNode, over: Exception) -> None:
    async def over_once(context: TaskContext) -> None:
        if len(PROBE.events) == 1:
            raise over
        await asyncio.Event().wait()

    PROBE.behave = over_once
    async with node.running():
        node.task()
        await until(lambda: len(PROBE.events) == 3)
        assert PROBE.events[2][2] > PROBE.events[0][2]


async def test_a_new_session_claims_again_and_runs_under_a_new_epoch(node: SupervisedNode) -> None:
    async with node.running():
        node.task()
        await until(lambda: "t" in PROBE.live)
        first = PROBE.live["t"]
        node.lease.lapse()
        node.lease.renew(2)
        await until(lambda: PROBE.live.get("t", first) != first)
        assert PROBE.live["t"] > first
    assert [event for event, _, _ in PROBE.events] == ["begin", "end", "begin", "end"]


async def test_a_grant_that_comes_after_the_session_starts_nothing(node: SupervisedNode) -> None:
    async with node.running():
        node.task()
        node.lease.lapse()
        node.log.apply(replace(node.cluster.claim("A", "t"), kind="Probe"))
        node.lease.renew(2)
        await until(lambda: "t" in PROBE.live)
        assert PROBE.live["t"] == node.cluster.claimed("t", "Probe").epoch
        assert node.cluster.claimed("t", "Probe").session == 2
    assert len([event for event, _, _ in PROBE.events if event == "begin"]) == 1


async def test_a_moved_task_ends_before_it_is_released_and_carries_its_last_progress(node: SupervisedNode) -> None:
    ended = asyncio.Event()

    async def reluctant(context: TaskContext) -> None:
        assert context.run.progress is not None
        context.report(replace(context.run.progress, processed=42))
        try:
            await asyncio.Event().wait()
        finally:
            await ended.wait()

    PROBE.behave = reluctant
    async with node.running():
        id = node.task()
        await until(lambda: "t" in PROBE.live)
        epoch = PROBE.live["t"]
        node.log.apply(SetTaskPin(database="Northwind", id=id, mentor="B"))
        assert node.state() == "Stopping"
        assert node.cluster.claimed("t", "Probe").state == "Held"
        ended.set()
        await until(lambda: node.cluster.claimed("t", "Probe").state == "Released")
        assert node.cluster.claimed("t", "Probe").epoch == epoch
        assert node.cluster.database().progress[id].processed == 42
        await until(lambda: node.state() is None)


async def test_a_release_is_proposed_until_it_is_applied(node: SupervisedNode) -> None:
    async with node.running():
        id = node.task()
        await until(lambda: "t" in PROBE.live)
        node.log.reachable = False
        node.log.apply(SetTaskPin(database="Northwind", id=id, mentor="B"))
        await until(lambda: node.state() == "Releasing")
        node.log.reachable = True
        await until(lambda: node.cluster.claimed("t", "Probe").state == "Released")


async def test_an_edit_restarts_this_task_under_a_new_claim_and_no_other(node: SupervisedNode) -> None:
    async with node.running():
        node.task("x")
        node.task("y")
        await until(lambda: len(PROBE.live) == 2)
        before = dict(PROBE.live)
        node.edit("x", configuration=b'{"a":1}')
        await until(lambda: PROBE.live.get("x", before["x"]) != before["x"])
        assert PROBE.live["y"] == before["y"]
        assert [e for e in PROBE.events if e[1] == "y"] == [("begin", "y", before["y"])]


async def test_changes_that_do_not_concern_a_task_restart_nothing(node: SupervisedNode) -> None:
    async with node.running():
        id = node.task()
        await until(lambda: "t" in PROBE.live)
        node.log.apply(CreateDatabase(name="Other", nodes=("A", "B")))
        node.task("elsewhere", mentor="B")
        node.log.apply(SetTaskPin(database="Northwind", id=id, mentor="A", pinned=True))
        node.cluster.connection("unused")
        node.supervisor.on_tick(node.cluster.record, Changes())
        await asyncio.sleep(0)
        assert len(PROBE.events) == 1


@pytest.mark.parametrize("end", ["disable", "delete"])
async def test_a_disabled_or_deleted_task_ends_and_a_new_start_is_a_new_epoch(node: SupervisedNode, end: str) -> None:
    async with node.running():
        id = node.task()
        await until(lambda: "t" in PROBE.live)
        first = PROBE.live["t"]
        if end == "disable":
            node.log.apply(SetTaskState(database="Northwind", id=id, disabled=True))
        else:
            node.log.apply(DeleteTask(database="Northwind", id=id))
        await until(lambda: not PROBE.live and node.state() is None)
        if end == "disable":
            node.log.apply(SetTaskState(database="Northwind", id=id, disabled=False))
        else:
            node.task()
        await until(lambda: "t" in PROBE.live)
        assert PROBE.live["t"] > first


async def test_a_failing_body_backs_off_shows_its_error_and_recovers_by_itself(node: SupervisedNode) -> None:
    tries = 0

    async def flaky(context: TaskContext) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise TaskFailed("the target is down") if tries % 2 else ValueError("boom")
        context.info.batch_done()
        await asyncio.Event().wait()

    PROBE.behave = flaky
    async with node.running():
        node.task()
        await until(lambda: node.state() == "Error")
        status = node.supervisor.status()["northwind/Probe/t"]
        assert status.error in ("the target is down", "ValueError: boom")
        await until(lambda: tries == 4)
        assert node.state() == "Running"
        assert node.supervisor.status()["northwind/Probe/t"].error is None
    assert len({epoch for _, _, epoch in PROBE.events}) == 1


async def test_a_body_that_is_tried_again_goes_on_from_what_it_has_told_before(node: SupervisedNode) -> None:
    seen: list[int] = []

    async def fails_after_each_step(context: TaskContext) -> None:
        processed = context.run.progress.processed if context.run.progress else 0
        seen.append(processed)
        if len(seen) == 3:
            await asyncio.Event().wait()
        await context.checkpoint(Progress(generation=context.run.generation, processed=processed + 1))
        raise TaskFailed("no")

    PROBE.behave = fails_after_each_step
    async with node.running():
        node.task()
        await until(lambda: len(seen) == 3)
    assert seen == [0, 1, 2]


async def test_every_node_is_told_what_holds_a_task_up_once_for_each_reason(node: SupervisedNode) -> None:
    reasons = iter(["the password is wrong", "the password is wrong", "the disk is full"])

    async def flaky(context: TaskContext) -> None:
        reason = next(reasons, None)
        if reason is not None:
            raise TaskFailed(reason)
        context.info.error = None
        context.report(Progress(generation=context.run.generation, processed=1))
        await asyncio.Event().wait()

    PROBE.behave = flaky
    told: list[str] = []

    def hear(record: Record, changes: Changes) -> None:
        for progress in record.databases["northwind"].progress.values():
            if [progress.error] != told[-1:]:
                told.append(progress.error)

    node.log.listeners.append(hear)
    async with node.running():
        node.task()
        await until(lambda: told[-1:] == [""] and len(told) > 1)
    assert told == ["", "the password is wrong", "the disk is full", ""]


async def test_the_same_failure_again_and_again_is_one_traceback_and_a_line_each_without_secrets(
    node: SupervisedNode,
) -> None:
    tries = 0

    async def failing(context: TaskContext) -> None:
        nonlocal tries
        tries += 1
        raise KeyError("Host=h;Password=s3cret\nsecond line")

    PROBE.behave = failing
    with capture_logs() as logs:
        async with node.running():
            node.task()
            await until(lambda: tries == 5)
            error = node.supervisor.status()["northwind/Probe/t"].error
    failed = [line for line in logs if line["event"] == "A task has failed and is tried again."]
    assert len(failed) >= 4
    assert [line["exc_info"] is not None for line in failed[:4]] == [True, False, False, False]
    assert error is not None
    assert error.startswith("KeyError: ")
    assert all("s3cret" not in line["reason"] and "\n" not in line["reason"] for line in failed)


async def test_a_run_that_cannot_work_keeps_what_those_before_it_have_told_of_failed_documents(
    node: SupervisedNode,
) -> None:
    async def works(context: TaskContext) -> None:
        context.info.document_failed("orders/1", "no")
        context.report(Progress(generation=context.run.generation, processed=3))
        await asyncio.Event().wait()

    async def fails(context: TaskContext) -> None:
        raise TaskFailed("the password is wrong")

    def told() -> Progress:
        return node.cluster.record.databases["northwind"].progress[task_id]

    PROBE.behave = works
    async with node.running():
        task_id = node.task()
        await until(lambda: told().failed == 1)
    PROBE.behave = fails
    node.edit()
    later = SupervisedNode(node.supervisor.environment._databases._store, node.directory, node.cluster)  # type: ignore[attr-defined]
    later.lease.renew(2)
    async with later.running():
        await until(lambda: told().error == "the password is wrong")
        assert (told().failed, told().processed, told().failures[0].document_id) == (1, 3, "orders/1")


async def test_a_body_that_returns_is_an_error_and_not_a_hot_loop(node: SupervisedNode) -> None:
    async def short(context: TaskContext) -> None:
        return

    PROBE.behave = short
    async with node.running():
        node.task()
        await until(lambda: node.state() == "Error")
        assert "ended by itself" in str(node.supervisor.status()["northwind/Probe/t"].error)


async def test_a_kind_that_is_not_here_is_an_error_of_its_task_alone(node: SupervisedNode) -> None:
    async with node.running():
        node.cluster.task("alien", kind="Alien", mentor="A")
        node.task()
        await until(lambda: "t" in PROBE.live)
        key = "northwind/Alien/alien"
        await until(lambda: (s := node.supervisor.status().get(key)) is not None and s.state == "Error")
        assert "no task kind 'Alien'" in str(node.supervisor.status()[key].error)


async def test_a_run_that_its_target_refuses_again_and_again_waits_longer_each_time_and_says_so(
    node: SupervisedNode,
) -> None:
    async def refused(context: TaskContext) -> None:
        raise RunSuperseded("a newer run has reached the target")

    PROBE.behave = refused
    with structlog.testing.capture_logs() as logs:
        async with node.running():
            node.task()

            def waits() -> list[float]:
                return [e["wait_s"] for e in logs if e["event"] == "A task has failed and is tried again."]

            await until(lambda: len(waits()) == 6)
            status = node.supervisor.status()["northwind/Probe/t"]
            assert "refused 6 times in a row" in str(status.error)
    # FAST begins with 5 ms and ends with 20 ms; each wait is random between half of it and all.
    assert waits()[0] <= 0.005
    assert all(0.01 <= wait_s <= 0.02 for wait_s in waits()[2:])


async def test_the_context_refuses_a_body_that_has_lost_its_run(node: SupervisedNode) -> None:
    async with node.running():
        id = node.task()
        await until(lambda: "t" in PROBE.contexts)
        context = PROBE.contexts["t"]
        context.check()
        node.lease.session = None
        with pytest.raises(NotOwned):
            context.check()
        node.lease.session = 1
        assert context.still_owned()
        node.log.apply(SetTaskState(database="Northwind", id=id, disabled=True))
        with pytest.raises(NotOwned):
            await context.documents.after(0)


async def test_scenario_31_a_checkpoint_is_answered_when_applied_and_refused_after_a_reset(
    node: SupervisedNode,
) -> None:
    """RavenDB's is the ack of a subscription, which this version has not. What a stale run of any kind reports is
    refused in the same way."""
    async with node.running():
        id = node.task()
        await until(lambda: "t" in PROBE.contexts)
        context = PROBE.contexts["t"]
        generation = context.run.generation
        assert generation == id
        await context.checkpoint(Progress(generation=generation, processed=7))
        assert node.cluster.database().progress[id].processed == 7
        with pytest.raises(NotOwned, match="refused progress"):
            await context.checkpoint(Progress(generation=generation - 1, processed=9))


async def test_checkpoints_of_many_runs_go_together_and_survive_a_lost_leader(node: SupervisedNode) -> None:
    async with node.running():
        for n in range(5):
            node.task(f"t{n}")
        await until(lambda: len(PROBE.contexts) == 5)
        node.log.reachable = False
        node.log.proposed.clear()
        waiting = [
            asyncio.create_task(c.checkpoint(Progress(generation=c.run.generation, processed=n)))
            for c in PROBE.contexts.values()
            for n in (1, 2)
        ]
        await asyncio.sleep(0.01)
        node.log.reachable = True
        await asyncio.gather(*waiting)
    assert {p.processed for p in node.cluster.database().progress.values()} == {2}
    assert len(node.log.proposed) == 1


async def test_a_partition_tolerant_body_goes_on_without_a_lease(node: SupervisedNode) -> None:
    async with node.running():
        node.task(traits=KindTraits(partition_tolerant=True))
        node.task("strict")
        await until(lambda: len(PROBE.live) == 2)
        node.lease.lapse()
        await until(lambda: "strict" not in PROBE.live)
        assert "t" in PROBE.live
        PROBE.contexts["t"].check()
        shown = node.supervisor.status()[KEY]
        assert (shown.state, shown.reason) == (
            "Running", "without a lease: it goes on under its last claim, as its kind may"
        )  # fmt: skip
        node.lease.renew(2)
        await asyncio.sleep(0)
        assert "t" in PROBE.live
        reason = "session 1 has ended: it goes on under its last claim, as its kind may"
        assert node.supervisor.status()[KEY].reason == reason
        assert node.cluster.claimed("t", "Probe").session == 1


async def test_a_run_that_went_on_after_its_void_stops_when_its_node_hears_of_it(
    node: SupervisedNode,
) -> None:
    async with node.running():
        node.task(traits=KindTraits(partition_tolerant=True))
        await until(lambda: "t" in PROBE.live)
        epoch = node.cluster.claimed("t", "Probe").epoch
        node.lease.lapse()
        node.log.reachable = False
        pin = SetTaskPin(database="Northwind", id=node.cluster.task_now("t").id, mentor="B", pinned=True)
        node.cluster.do(pin)
        void = VoidClaim(key=KEY, epoch=epoch, reason="silent")
        node.cluster.do(Decide(term=1, iteration=1, at="", at_ms=0, voids=(void,)))
        newer = node.cluster.do(replace(node.cluster.claim("B", "t"), kind="Probe"))
        assert "t" in PROBE.live, "it has not heard of it yet"
        node.lease.renew(2)
        await until(lambda: "t" not in PROBE.live)
        node.log.reachable = True
        await until(lambda: len(node.cluster.record.observer.decisions) == 1)
        [said] = node.cluster.record.observer.decisions
        assert f"'t' ran twice: A, which was not heard, went on under epoch {epoch} until " in said.message
        assert f"epoch {newer} was granted to B" in said.message
        await until(lambda: KEY not in node.supervisor.status())
        releases = [one for one in node.log.proposed if isinstance(one, ReleaseTask)]
        assert [one.epoch for one in releases] == [epoch], "once"


async def test_a_node_that_was_removed_runs_nothing_not_even_what_needs_no_lease(node: SupervisedNode) -> None:
    async with node.running():
        node.task(traits=KindTraits(partition_tolerant=True))
        await until(lambda: "t" in PROBE.live)
        node.lease.lapse()
        node.removed = True
        node.lease.on_change()
        await until(lambda: "t" not in PROBE.live)
        assert node.cluster.claimed("t", "Probe").reason in ("", "the node was removed from the cluster")


async def test_stopping_the_node_ends_all_bodies_and_releases_their_claims(node: SupervisedNode) -> None:
    async with node.running():
        for n in range(3):
            node.task(f"t{n}")
        await until(lambda: len(PROBE.live) == 3)
        await node.supervisor.stop(5)
        assert PROBE.live == {}
        assert {c.state for c in node.cluster.record.claims.values()} == {"Released"}
        node.task("late")
        assert node.state("late") is None


async def test_stopping_without_a_leader_gives_up_after_its_time(node: SupervisedNode) -> None:
    async with node.running():
        node.task()
        await until(lambda: "t" in PROBE.live)
        node.log.reachable = False
        await node.supervisor.stop(0.05)
        assert PROBE.live == {}
        assert node.cluster.claimed("t", "Probe").state == "Held"


async def test_stopping_without_a_lease_waits_for_no_release(node: SupervisedNode) -> None:
    async with node.running():
        node.task()
        await until(lambda: "t" in PROBE.live)
        node.log.reachable = False
        node.lease.lapse()
        await node.supervisor.stop(1000)
        assert PROBE.live == {}
        assert node.cluster.claimed("t", "Probe").state == "Held"


async def test_a_body_that_swallows_its_cancellation_is_cancelled_again(
    node: SupervisedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.runtime.runs.CANCEL_AGAIN_S", 0.01)
    swallowed = 0

    async def stubborn(context: TaskContext) -> None:
        nonlocal swallowed
        while swallowed < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1

    PROBE.behave = stubborn
    async with node.running():
        id = node.task()
        await until(lambda: "t" in PROBE.live)
        node.log.apply(SetTaskState(database="Northwind", id=id, disabled=True))
        await until(lambda: node.state() is None)
    assert swallowed == 3


async def test_the_journal_of_runs_frames_every_run_and_its_intervals_lie_within(node: SupervisedNode) -> None:
    async def working(context: TaskContext) -> None:
        for _ in range(3):
            context.check()
        await context.documents.wait_changed(0, 0.001)
        await asyncio.Event().wait()

    PROBE.behave = working
    async with node.running():
        id = node.task()
        await until(lambda: "t" in PROBE.live)
        node.log.apply(SetTaskState(database="Northwind", id=id, disabled=True))
        await until(lambda: node.state() is None)
    lines = node.runs()
    assert [line["event"] for line in lines][0 :: len(lines) - 1] == ["start", "end"]
    active = [line for line in lines if line["event"] == "active"]
    assert len(active) >= 4
    assert all(lines[0]["from_ns"] <= line["from_ns"] <= line["to_ns"] <= lines[-1]["to_ns"] for line in active)
    assert all(a["to_ns"] <= b["from_ns"] for a, b in pairwise(active))
    assert {line["node"] for line in lines} == {"A"}


async def test_the_status_is_json(node: SupervisedNode) -> None:
    async with node.running():
        node.task()
        await until(lambda: "t" in PROBE.live)
        PROBE.contexts["t"].info.document_failed("orders/1", "no")
        shown = msgspec.to_builtins(node.supervisor.status()["northwind/Probe/t"], enc_hook=enc_hook)
    assert (shown["State"], shown["Node"], shown["Name"]) == ("Running", "A", "t")
    assert shown["Info"]["Errors"][0]["DocumentId"] == "orders/1"
    json.dumps(shown)


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_nothing_is_left_that_the_whole_plan_would_do(node: SupervisedNode, seed: int) -> None:
    chance = random.Random(seed)
    session = 1

    def left() -> list[plan.Action]:
        one = node.supervisor
        bodies = {key: body for key in one._runs.bodies if (body := one._runs.bodies.planned(key)) is not None}
        claiming, spent = one._claims.under_way.claims.keys(), one._runs.spent
        whole = plan.plan(node.log.record, one._own, node.lease.session, bodies, claiming=claiming, spent=spent)
        return [action for action in whole if not isinstance(action, plan.Wait)]

    async with node.running():
        for _ in range(60):
            name = f"t{chance.randrange(6)}"
            task = node.cluster.database().task_named(name)
            match chance.randrange(8):
                case 0 if task is None:
                    node.task(name, mentor=chance.choice(["A", "B"]))
                case 1 if task is not None:
                    node.edit(name, configuration=b'{"n":%d}' % chance.randrange(9))
                case 2 if task is not None:
                    renamed = f"t{chance.randrange(6)}"
                    put = PutTask(
                        database="Northwind", id=task.id, name=renamed, kind="Probe", key=task.key, mentor="A"
                    )
                    node.log.apply(put)
                case 3 if task is not None:
                    node.log.apply(DeleteTask(database="Northwind", id=task.id))
                case 4 if task is not None:
                    disabled = chance.random() < 0.5
                    node.log.apply(SetTaskState(database="Northwind", id=task.id, disabled=disabled))
                case 5 if task is not None:
                    node.log.apply(SetTaskPin(database="Northwind", id=task.id, mentor=chance.choice(["A", "B"])))
                case 6:
                    session += 1
                    node.lease.lapse()
                    if chance.random() < 0.8:
                        node.lease.renew(session)
                case 7:
                    session += 1
                    node.lease.renew(session)
            if chance.random() < 0.5:
                await until(lambda: not left() and not node.supervisor._claims.under_way)
    assert PROBE.live == {}
