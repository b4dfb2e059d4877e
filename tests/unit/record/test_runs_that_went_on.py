"""A body of a partition-tolerant kind may go on after its claim is void; its node tells so when it is back."""

import pytest
from msgspec.structs import replace

from raftnode.record.commands import Decide, ReleaseTask, SetTaskPin, VoidClaim
from raftnode.record.commands.claims import ran_on
from raftnode.record.model import EndedRun, KindTraits, claim_key
from raftnode.record.observer_memory import DECISIONS_MAX, Decision
from tests.unit.record.build import KIND, RecordCluster

KEY = claim_key("Northwind", KIND, "Backup")
LATE = "2026-11-29T08:00:00.0000000Z"


def voided() -> tuple[RecordCluster, int]:
    """A held the task, and its claim is void."""
    cluster = RecordCluster("A", "B")
    cluster.create("A", "B")
    cluster.task("Backup", mentor="A", traits=KindTraits(partition_tolerant=True))
    epoch = cluster.do(cluster.claim("A", "Backup"))
    void = VoidClaim(key=KEY, epoch=epoch, reason="A was silent")
    cluster.do(Decide(term=1, iteration=1, at="", at_ms=0, voids=(void,)))
    return cluster, epoch


def taken(cluster: RecordCluster) -> int:
    """B runs the task."""
    cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now("Backup").id, mentor="B"))
    epoch: int = cluster.do(cluster.claim("B", "Backup"))
    return epoch


def release(epoch: int, **fields: str) -> ReleaseTask:
    return ReleaseTask(**({"key": KEY, "epoch": epoch, "ran_until": LATE} | fields))  # type: ignore[arg-type]


def test_a_void_run_that_went_on_is_released_and_says_how_long_it_did() -> None:
    cluster, epoch = voided()
    assert ran_on(cluster.record, KEY, epoch)
    assert cluster.do(release(epoch)) is False
    claim = cluster.claimed("Backup")
    assert (claim.state, claim.epoch) == ("Released", epoch)
    assert claim.reason == f"void: A was silent; its body ran on until {LATE}"
    assert cluster.record.observer.decisions == (), "nobody else ran it"
    assert not ran_on(cluster.record, KEY, epoch)


def test_a_task_that_ran_twice_is_a_decision_that_everybody_sees() -> None:
    cluster, late = voided()
    newer = taken(cluster)
    assert ran_on(cluster.record, KEY, late)
    cluster.do(release(late))
    claim = cluster.claimed("Backup")
    assert (claim.state, claim.tag, claim.epoch) == ("Held", "B", newer)
    reason = f"void: A was silent; its body ran on until {LATE}"
    assert claim.runs == (EndedRun(epoch=late, tag="A", state="Released", reason=reason),)
    assert cluster.record.observer.decisions == (
        Decision(
            index=cluster.record.index,
            iteration=0,
            at=LATE,
            database="Northwind",
            message=f"{KIND} 'backup' ran twice: A, which was not heard, went on under epoch {late} until {LATE}, "
            f"while epoch {newer} was granted to B.",
            term=1,
        ),
    )
    before = cluster.record
    cluster.do(release(late))
    assert (cluster.record.claims, cluster.record.observer) == (before.claims, before.observer), "once"


def test_only_the_run_that_is_told_of_is_noted() -> None:
    cluster, first = voided()
    second = cluster.do(cluster.claim("A", "Backup", session=2))
    void = VoidClaim(key=KEY, epoch=second, reason="again")
    cluster.do(Decide(term=1, iteration=2, at="", at_ms=0, voids=(void,)))
    taken(cluster)
    cluster.do(release(second))
    assert [(run.epoch, run.state) for run in cluster.claimed("Backup").runs] == [(first, "Void"), (second, "Released")]
    assert [ran_on(cluster.record, KEY, epoch) for epoch in (first, second)] == [True, False]


@pytest.mark.parametrize("what", ["of another kind", "of another epoch", "released before", "of no task"])
def test_a_release_that_says_nothing_new_changes_nothing(what: str) -> None:
    cluster, epoch = voided()
    taken(cluster)
    command = release(epoch)
    match what:
        case "of another kind":
            command = release(epoch, ran_until="")
        case "of another epoch":
            command = release(epoch + 1)
        case "released before":
            cluster.do(release(epoch))
        case "of no task":
            command = release(epoch, key=claim_key("Northwind", KIND, "gone"))
    before = cluster.record
    assert cluster.do(command) is False
    assert (cluster.record.claims, cluster.record.observer) == (before.claims, before.observer)
    assert not ran_on(cluster.record, claim_key("Northwind", KIND, "gone"), epoch)


def test_a_held_claim_is_released_as_ever_and_the_decisions_stay_within_their_limit() -> None:
    cluster, late = voided()
    said = tuple(("Northwind", f"{n}") for n in range(DECISIONS_MAX))
    cluster.do(Decide(term=1, iteration=2, at="", at_ms=0, decisions=said))
    newer = taken(cluster)
    cluster.do(release(late))
    assert len(cluster.record.observer.decisions) == DECISIONS_MAX
    assert cluster.record.observer.decisions[0].message == "1"
    assert "ran twice" in cluster.record.observer.decisions[-1].message
    assert cluster.do(release(newer)) is True
    assert (cluster.claimed("Backup").state, cluster.claimed("Backup").reason) == ("Released", "")


def test_of_a_deleted_database_its_folded_name_is_told() -> None:
    cluster, late = voided()
    taken(cluster)
    cluster.record = replace(cluster.record, databases=cluster.record.databases.delete("northwind"))
    cluster.do(release(late))
    assert cluster.record.observer.decisions[-1].database == "northwind"
