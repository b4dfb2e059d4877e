"""Graces: a task that stays with its last holder leaves it when that has been in Rehab for long enough."""

import pytest
from immutables import Map
from msgspec.structs import replace

from observer.rules.decide import decide
from observer.rules.facts import Facts, NodeFacts
from raftnode.record.commands import PutTask, SetDatabaseState, SetNodeFlags, SetTaskPin, SetTaskState
from raftnode.record.grace import GRACE_SETTING, grace_min
from raftnode.record.model import Cause, KindTraits, ResourceFlag
from raftnode.record.ownership import task_key
from tests.unit.observer.build import FOLDED, NOW_MS, commit, facts, group, sentences, silent, well
from tests.unit.record.build import KIND, RecordCluster

MIN_MS = 60_000


def sticky(grace_min: int = 30) -> RecordCluster:
    """B holds a task that stays with its holder; another one is held by A, a third by nobody."""
    cluster = group("A", "B", "C")
    for name, mentor in (("backup", "B"), ("other", "A"), ("new", None)):
        traits = KindTraits(sticky=True, grace_min=grace_min)
        cluster.task(name, mentor=mentor, traits=traits)
        if mentor is not None:
            cluster.do(cluster.claim(mentor, name))
            task = cluster.task_now(name)
            cluster.do(PutTask(database="Northwind", name=name, kind=KIND, key=task.key, id=task.id, traits=traits))
    return cluster


def seen(*nodes: NodeFacts, later_ms: int = 0) -> Facts:
    known = {n.tag: n for n in (well("B"), well("C"), *nodes)}
    return facts(*known.values(), now_ms=NOW_MS + later_ms)


def test_scenario_35_the_task_waits_for_its_holder_and_then_leaves_it() -> None:
    """RavenDB's observer stores the owner. Here the last holder follows from the claim, and what is stored is the end
    of its grace."""
    cluster = sticky()
    commit(cluster, seen(silent("B")))
    assert cluster.placed("backup").rule == "StickyHolder"
    almost = decide(cluster.record, seen(silent("B"), later_ms=30 * MIN_MS - 1))
    assert almost.graces == ()
    [waits] = [sentence for sentence in almost.sentences if sentence.key]
    assert waits.message == f"{KIND} 'backup' stays with B in Rehab for 30 min before another node takes it."
    decisions = commit(cluster, seen(silent("B"), later_ms=30 * MIN_MS))
    ended = f"{KIND} 'backup' leaves B, which has been in Rehab for 1800000 ms (grace 1800000 ms)."
    assert ended in sentences(decisions)
    assert [end.key for end in decisions.graces] == [f"{FOLDED}/{KIND}/backup"]
    assert (cluster.placed("backup").node in ("A", "C"), cluster.placed("backup").rule) == (True, "Hash")
    assert decide(cluster.record, seen(silent("B"), later_ms=31 * MIN_MS)).graces == (), "once"


def test_the_end_of_the_grace_is_the_cause_of_the_move_and_the_task_stays_where_it_then_is() -> None:
    cluster = sticky()
    commit(cluster, seen(silent("B")))
    commit(cluster, seen(silent("B"), later_ms=30 * MIN_MS))
    ended = cluster.record.index
    taker = cluster.placed("backup").node or ""
    assert cluster.claimed("backup").state == "Void"
    cluster.do(cluster.claim(taker, "backup"))
    assert cluster.claimed("backup").cause == Cause(index=ended, what="Grace", tag="B")
    assert not cluster.claimed("backup").grace_ended, "the next holder has a grace of its own"
    commit(cluster, seen(well("B"), later_ms=40 * MIN_MS))
    assert "B" in cluster.database().topology.members
    assert (cluster.placed("backup").node, cluster.placed("backup").rule) == (taker, "StickyHolder")


def test_whose_mentor_is_another_member_waits_for_nobody() -> None:
    cluster = sticky()
    cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now("backup").id, mentor="C"))
    commit(cluster, seen(silent("B")))
    assert cluster.placed("backup").rule == "Mentor"
    assert decide(cluster.record, seen(silent("B"), later_ms=1)).sentences == ()


@pytest.mark.parametrize(
    ("own", "setting", "expected"),
    [
        (3, "5", 3), (0, "5", 0), (None, "5", 5), (None, "0", 0), (None, "", 30), (None, "-1", 30), (None, "x", 30),
        (None, "99999", 30), (None, "10080", 10_080), (None, "10081", 30), (None, "123456", 30), (None, "٣", 30),
    ],
)  # fmt: skip
def test_the_grace_is_the_kinds_own_else_the_databases_else_the_clusters(
    own: int | None, setting: str, expected: int
) -> None:
    cluster = RecordCluster("A", "B", "C")
    cluster.create("A", "B", "C", settings=Map({GRACE_SETTING: setting} if setting else {}))
    task = cluster.task("backup", mentor="B", traits=KindTraits(sticky=True, grace_min=own))
    cluster.do(cluster.claim("B", "backup"))
    assert grace_min(cluster.database(), task, 30) == expected
    commit(cluster, seen(silent("B")))
    assert decide(cluster.record, seen(silent("B"), later_ms=expected * MIN_MS - 1)).graces == ()
    assert len(decide(cluster.record, seen(silent("B"), later_ms=expected * MIN_MS)).graces) == 1


def test_without_a_grace_it_leaves_with_the_next_decision() -> None:
    cluster = sticky(0)
    commit(cluster, seen(silent("B")))
    assert len(commit(cluster, seen(silent("B"))).graces) == 1


def test_a_task_that_does_not_stay_with_its_holder_waits_for_nobody() -> None:
    cluster = group("A", "B", "C")
    cluster.task("t", mentor="B")
    cluster.do(cluster.claim("B", "t"))
    commit(cluster, seen(silent("B")))
    assert decide(cluster.record, seen(silent("B"), later_ms=60 * MIN_MS)).graces == ()


def test_graces_end_in_the_order_of_databases_and_tasks() -> None:
    cluster = RecordCluster("A", "B", "C")
    names = [f"Db{number}" for number in range(8)]
    traits = KindTraits(sticky=True, grace_min=0)
    for name in reversed(names):
        cluster.create("A", "B", "C", name=name)
        for number in range(8):
            task = f"t{9 - number}"
            cluster.task(task, database=name, mentor="B", traits=traits)
            cluster.do(replace(cluster.claim("B", task), database=name))
    commit(cluster, seen(silent("B")))
    ended = [end.key for end in decide(cluster.record, seen(silent("B"))).graces]
    assert ended == [f"{name.lower()}/{KIND}/t{9 - number}" for name in names for number in range(8)]


@pytest.mark.parametrize("flag", ["OutOfCpuCredits", "EarlyOutOfMemory", "HighDirtyMemory"])
def test_scenario_41_a_holder_that_is_only_short_of_a_resource_keeps_it(flag: ResourceFlag) -> None:
    cluster = sticky()
    cluster.do(SetNodeFlags(tag="B", flags=(flag,)))
    commit(cluster, seen())
    assert cluster.database().topology.promotables_status["B"] == flag
    assert decide(cluster.record, seen(later_ms=60 * MIN_MS)).graces == ()
    assert cluster.placed("backup").node == "B"


@pytest.mark.parametrize("what", ["database", "task"])
def test_what_is_disabled_waits_for_nobody(what: str) -> None:
    cluster = sticky()
    commit(cluster, seen(silent("B")))
    if what == "database":
        cluster.do(SetDatabaseState(name="Northwind", disabled=True))
    else:
        cluster.do(SetTaskState(database="Northwind", id=cluster.task_now("backup").id, disabled=True))
    assert decide(cluster.record, seen(silent("B"), later_ms=60 * MIN_MS)).graces == ()


def test_a_holder_that_was_replaced_keeps_nothing_anyway() -> None:
    cluster = sticky()
    commit(cluster, seen(silent("B")))
    database = replace(cluster.database(), deletion_in_progress=Map({"B": "HardDelete"}))
    cluster.record = replace(cluster.record, databases=cluster.record.databases.set(FOLDED, database))
    assert decide(cluster.record, seen(silent("B"), later_ms=60 * MIN_MS)).graces == ()
    assert cluster.placed("backup").node in ("A", "C")


def test_the_grace_counts_from_the_last_demotion() -> None:
    cluster = sticky()
    commit(cluster, seen(silent("B")))
    commit(cluster, seen(later_ms=10_000))
    assert "B" in cluster.database().topology.members
    assert not cluster.record.observer.rehab_since
    commit(cluster, seen(silent("B"), later_ms=20 * MIN_MS))
    assert cluster.record.observer.rehab_since == Map({f"{FOLDED}/B": NOW_MS + 20 * MIN_MS})
    assert decide(cluster.record, seen(silent("B"), later_ms=40 * MIN_MS)).graces == ()
    assert task_key(KIND, "backup") == cluster.task_now("backup").key
