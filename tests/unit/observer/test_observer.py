"""The loop: gathers, decides, proposes, says why, and never decides beyond its leadership."""

import asyncio
from typing import Any

import pytest
import structlog.testing

from observer.observer import parts
from raftnode.record.commands import (
    AddDatabaseNode,
    Decide,
    SetLicence,
    SetTaskPin,
    SuspendObserver,
    VoidClaim,
    encode,
)
from raftnode.record.commands.claims import ClaimTask
from raftnode.record.commands.databases import SetDatabaseState
from raftnode.record.commands.observer import NewTopology
from raftnode.record.commands.tasks import PutTask
from raftnode.record.model import COMMAND_BYTES_MAX, Topology, claim_key
from tests.unit.observer.rig import PERIOD_MS, R_MS, STABLE_MS, Rig

VOID_WAIT_MS = 5500


async def settled() -> Rig:
    rig = Rig()
    await rig.go(VOID_WAIT_MS)
    return rig


def hold(rig: Rig, tag: str = "B", session: int = 1) -> int:
    if rig.database.task_named("t") is None:
        rig.do(PutTask(database="Northwind", name="t", kind="SqlEtl", key=1, mentor="B"))
    claim = ClaimTask(
        database="Northwind",
        kind="SqlEtl",
        name="t",
        tag=tag,
        node_id=f"id-{tag}",
        boot=1,
        nonce=ord(tag),
        session=session,
    )
    return int(rig.do(claim))


def claim_state(rig: Rig) -> str:
    return rig.replica.record.claims[claim_key("Northwind", "SqlEtl", "t")].state


async def test_a_node_that_is_cut_off_is_demoted_and_its_claim_void_as_soon_as_it_is_silent() -> None:
    rig = await settled()
    epoch = hold(rig)
    rig.cut("B")
    await rig.go(R_MS - 200)
    assert (rig.database.topology.members, claim_state(rig)) == (("A", "B", "C"), "Held")
    await rig.go(300)
    assert (rig.database.topology.members, rig.database.topology.rehabs) == (("A", "C"), ("B",))
    assert claim_state(rig) == "Void"
    assert rig.sentences[0].startswith("B was moved to Rehab: B has not been heard for 40")
    assert rig.sentences[1].startswith(f"Claims void: SqlEtl/t (epoch {epoch}); B has not been heard for 40")
    assert rig.log.appended == 5, "form, create, put, claim, and one decision"


async def test_a_node_that_is_back_is_promoted_after_the_hold_down() -> None:
    rig = await settled()
    rig.cut("B")
    await rig.go(R_MS + 200)
    rig.cut()
    await rig.go(STABLE_MS - 500)
    assert rig.database.topology.rehabs == ("B",)
    await rig.go(1000)
    assert set(rig.database.topology.members) == {"A", "B", "C"}
    assert "B was promoted to Member: it has caught up" in rig.sentences[-1]


async def test_a_promotable_is_promoted_once_its_mentor_has_filled_it() -> None:
    rig = await settled()
    for tag in "ABC":
        rig.reports_of(tag, sent={"D": 0}, last_etag=7)
    rig.do(AddDatabaseNode(name="Northwind", tag="D"))
    await rig.go(STABLE_MS + 1000)
    assert rig.database.topology.promotables_status["D"] == "ChangeVectorNotMerged"
    for tag in "ABC":
        rig.reports_of(tag, sent={"D": 7}, last_etag=7)
    await rig.go(1000)
    assert set(rig.database.topology.members) == {"A", "B", "C", "D"}


async def test_a_follower_decides_nothing() -> None:
    rig = Rig()
    rig.wires.elect("B", term=2)
    rig.cut("C")
    appended = rig.log.appended
    await rig.go(20_000)
    assert rig.log.appended == appended
    assert await rig.observer.turn() == PERIOD_MS


async def test_a_leader_that_wakes_late_steps_down_before_it_decides_by_what_it_last_heard() -> None:
    rig = await settled()
    hold(rig)
    appended = rig.log.appended
    rig.wires.clocks.ms += 10 * R_MS
    await rig.observer.turn()
    assert rig.wires.rafts["A"].stepped_down == [None]
    assert (rig.log.appended, claim_state(rig)) == (appended, "Held")


async def test_a_node_before_forming_decides_nothing() -> None:
    rig = Rig()
    rig.wires.timings = dict.fromkeys("ABCD", None)
    assert await rig.observer.turn() == PERIOD_MS


async def test_a_new_leader_waits_before_it_demotes_or_voids_and_then_does_it_by_itself() -> None:
    rig = await settled()
    hold(rig)
    rig.lead("C", term=2)
    rig.cut("B")
    await rig.go(4500)
    assert (rig.database.topology.rehabs, claim_state(rig)) == ((), "Held")
    await rig.go(1000)
    assert (rig.database.topology.rehabs, claim_state(rig)) == (("B",), "Void")
    assert rig.replica.record.observer.decisions[-1].term == 2


async def test_a_decision_of_another_term_is_refused_and_made_anew() -> None:
    rig = await settled()
    rig.cut("B")
    rig.log.term = 9
    with structlog.testing.capture_logs() as logs:
        await rig.go(R_MS + 200)
    assert rig.database.topology.members == ("A", "B", "C")
    assert any("refused" in log["event"] for log in logs)
    rig.log.term = 1
    await rig.go(200)
    assert rig.database.topology.rehabs == ("B",)


async def test_a_decision_that_was_not_committed_is_made_anew() -> None:
    rig = await settled()
    rig.cut("B")
    rig.log.refuses = "the queue is full"
    with structlog.testing.capture_logs() as logs:
        await rig.go(R_MS + 200)
    assert any(log.get("reason") == "the queue is full" for log in logs)
    assert rig.sentences == []
    rig.log.refuses = ""
    await rig.go(200)
    assert rig.database.topology.rehabs == ("B",)
    assert len(rig.sentences) == 1


async def test_a_topology_that_was_edited_meanwhile_is_decided_anew() -> None:
    rig = await settled()
    rig.cut("B")
    decide = rig.replica.decide

    async def edited_first(command: Decide) -> Any:
        rig.replica.decide = decide  # type: ignore[method-assign]
        rig.do(SetDatabaseState(name="Northwind", disabled=False))
        return await decide(command)

    rig.replica.decide = edited_first  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logs:
        await rig.go(R_MS + 200)
    assert rig.database.topology.rehabs == ("B",)
    assert [sentence.partition(":")[0] for sentence in rig.sentences] == [
        "The topology was not changed, reason ConcurrencyException",
        "B was moved to Rehab",
    ]
    assert "It was to be: B was moved to Rehab" in rig.sentences[0]
    events = [log["event"].partition(":")[0] for log in logs]
    assert [event for event in events if event.startswith(("A topology", "B was moved"))] == [
        "A topology was not changed",
        "B was moved to Rehab",
    ]


async def test_a_suspended_observer_neither_demotes_nor_voids_until_it_is_resumed() -> None:
    rig = await settled()
    hold(rig)
    rig.do(SuspendObserver(suspended=True))
    rig.cut("B")
    with structlog.testing.capture_logs() as logs:
        await rig.go(R_MS + 1000)
    assert (rig.database.topology.rehabs, claim_state(rig)) == ((), "Held")
    assert "the observer is suspended" in logs[-1]["event"]
    rig.do(SuspendObserver(suspended=False))
    await rig.go(100)
    assert (rig.database.topology.rehabs, claim_state(rig)) == (("B",), "Void")


async def test_what_cannot_be_helped_is_said_once_and_again_when_it_comes_back() -> None:
    rig = Rig()
    rig.lead("D", term=2)
    await rig.go(VOID_WAIT_MS)
    for tag in "ABC":
        rig.reports_of(tag, status="Faulted")
    await rig.go(4 * R_MS)
    alerts = [sentence for sentence in rig.sentences if "unreachable" in sentence]
    assert len(alerts) == 1
    for tag in "ABC":
        rig.reports_of(tag)
    await rig.go(R_MS)
    for tag in "ABC":
        rig.reports_of(tag, status="Faulted")
    await rig.go(2 * R_MS)
    assert len([sentence for sentence in rig.sentences if "unreachable" in sentence]) == 2


async def test_every_decision_is_logged_once_and_a_quiet_turn_says_so_in_the_debug_log() -> None:
    rig = await settled()
    rig.cut("B")
    with structlog.testing.capture_logs() as logs:
        await rig.go(R_MS + 2000)
    decided = [log for log in logs if log["log_level"] == "info" and "moved to Rehab" in log["event"]]
    assert [(log["database"], log["term"]) for log in decided] == [("Northwind", 1)]
    assert "Nothing was decided: everything is as it should be." in logs[-1]["event"]
    assert (logs[-1]["log_level"], logs[-1]["silent"]) == ("debug", ("B",))
    assert len(logs) < 10, "a repeat is not logged again"


async def test_it_sleeps_until_a_node_would_be_silent_and_polls_when_that_moment_is_past() -> None:
    rig = await settled()
    assert await rig.observer.turn() == PERIOD_MS
    rig.cut("B")
    await rig.go(R_MS - 100)
    pause_ms = await rig.observer.turn()
    heard_ms_ago = (rig.wires.clocks.elapsed_lower_ns() - rig.wires.nodes["A"].reports["B"].heard_ns) // 1_000_000
    assert R_MS - heard_ms_ago <= pause_ms <= R_MS - heard_ms_ago + 1
    rig.lead("C", term=2)
    rig.cut("B")
    await rig.go(R_MS + 200)
    assert await rig.observer.turn() == R_MS / 50
    await rig.go(2000)
    assert await rig.observer.turn() == PERIOD_MS


async def turned(rig: Rig) -> None:
    """Returns once the observer has taken another turn."""
    before = rig.observer.iteration
    while rig.observer.iteration <= before:
        rig.observer.wake()
        await asyncio.sleep(0)


async def test_the_loop_turns_wakes_on_a_change_of_role_and_can_be_cancelled() -> None:
    rig = await settled()
    rig.wires.clocks.ms += 1
    loop = asyncio.create_task(rig.observer.run())
    await turned(rig)
    subscribers = len(rig.wires.nodes["A"]._subscribers)
    rig.wires.rafts["A"].become("Follower", 2)
    await asyncio.sleep(0)
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
    assert len(rig.wires.nodes["A"]._subscribers) == subscribers - 1


async def test_an_error_in_a_turn_does_not_end_the_loop() -> None:
    rig = await settled()
    broken = rig.health.facts
    failed = asyncio.Event()

    def fails(*args: Any) -> Any:
        rig.health.facts = broken  # type: ignore[method-assign]
        failed.set()
        raise ZeroDivisionError("by design")

    rig.health.facts = fails  # type: ignore[assignment,method-assign]
    with structlog.testing.capture_logs() as logs:
        loop = asyncio.create_task(rig.observer.run())
        await failed.wait()
        await turned(rig)
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop
    assert any("failed and is given up" in log["event"] for log in logs)


def test_a_decision_too_large_for_the_log_is_cut_and_nothing_of_it_is_lost() -> None:
    topology = Topology(members=tuple(f"N{i}" for i in range(50)))
    whole = Decide(
        term=1,
        iteration=1,
        at="now",
        at_ms=1,
        topologies=tuple(NewTopology(database=f"d{i}", etag=i, topology=topology) for i in range(1000)),
        voids=tuple(VoidClaim(key=f"d/k/t{i}", epoch=i, reason="r" * 100) for i in range(3001)),
        decisions=tuple((f"d{i}", "w" * 200) for i in range(7)),
    )
    cut = parts(whole)
    assert len(cut) > 1
    assert all(len(encode(part)) <= COMMAND_BYTES_MAX for part in cut)
    assert sum((part.topologies for part in cut), ()) == whole.topologies
    assert sum((part.voids for part in cut), ()) == whole.voids
    assert sum((part.decisions for part in cut), ()) == whole.decisions


async def test_what_a_leader_has_said_once_the_next_one_does_not_say_again() -> None:
    rig = await settled()
    hold(rig)
    task = rig.database.task_named("t")
    assert task is not None
    rig.do(SetLicence(highly_available_tasks=False))
    rig.do(SetTaskPin(database="Northwind", id=task.id, mentor=None))
    rig.cut("B")
    await rig.go(R_MS + 2000)

    def said() -> list[str]:
        return [d.message for d in rig.replica.record.observer.decisions if "waits for B" in d.message]

    assert len(said()) == 1
    rig.lead("C", term=2)
    await rig.go(R_MS + VOID_WAIT_MS)
    assert len(said()) == 1
