"""The decisions as a whole: its order, what a suspended observer leaves alone, and what a loss alone would lead to."""

from itertools import combinations

from msgspec.structs import replace

from observer.rules.decide import IterationDecisions, Sentence, after_loss, decide
from raftnode.record.commands import DeleteDatabase, SetDatabaseState, SetDraining, SuspendObserver
from raftnode.record.model import KindTraits
from tests.unit.observer.build import FOLDED, NOW_MS, commit, facts, group, silent, well
from tests.unit.record.build import RecordCluster

TAGS = "ABCDE"
REASON = "B has not been heard for 800 ms (limit 750 ms)"


def test_databases_are_decided_about_in_the_order_of_their_names() -> None:
    cluster = RecordCluster(*TAGS)
    names = [f"Db{number}" for number in range(8)]
    for name in reversed(names):
        cluster.create("A", "B", "C", name=name)
    decisions = decide(cluster.record, facts(silent("B"), well("C")))
    assert [new.database for new in decisions.topologies] == names
    assert decisions.sentences == tuple(Sentence(name, f"B was moved to Rehab: {REASON}.") for name in names)


def test_nothing_is_said_of_a_database_that_is_disabled_or_being_deleted() -> None:
    seen = facts(*(silent(tag) for tag in "ABC"), leader="D")
    cluster = group()
    cluster.do(SetDatabaseState(name="Northwind", disabled=True))
    assert decide(cluster.record, seen) == IterationDecisions()
    deleted = group()
    deleted.do(DeleteDatabase(name="Northwind"))
    assert decide(deleted.record, seen) == IterationDecisions()


def test_a_suspended_observer_ends_no_grace_and_speaks_of_none() -> None:
    cluster = group()
    cluster.task("backup", mentor="B", traits=KindTraits(sticky=True, grace_min=1))
    cluster.do(cluster.claim("B", "backup"))
    commit(cluster, facts(silent("B"), well("C")))
    lasts, over = (facts(silent("B"), well("C"), now_ms=NOW_MS + ms) for ms in (59_999, 60_000))
    (grace,) = decide(cluster.record, over).graces
    (said,) = [sentence for sentence in decide(cluster.record, over).sentences if " leaves B" in sentence.message]
    assert said.key is None, "it is said each time it happens"
    (said,) = [sentence for sentence in decide(cluster.record, lasts).sentences if " stays with B" in sentence.message]
    assert said.key == f"grace {cluster.task_now('backup').id} {grace.epoch}"
    cluster.do(SuspendObserver(suspended=True))
    assert decide(cluster.record, over) == decide(cluster.record, lasts) == IterationDecisions()


def several() -> RecordCluster:
    """Groups of three, two and one, one that is disabled, and one with a drained Member."""
    cluster = group()
    cluster.create("B", name="Alone")
    cluster.create("D", "E", name="Pair")
    cluster.create("A", "B", name="Disabled")
    cluster.do(SetDatabaseState(name="Disabled", disabled=True))
    cluster.do(SetDraining(tag="E", draining=True))
    return cluster


def test_what_a_loss_leads_to_is_what_the_observer_decides_once_those_nodes_are_silent() -> None:
    record = several().record
    for count in range(len(TAGS) + 1):
        for lost in combinations(TAGS, count):
            seen = facts(*(silent(tag) if tag in lost else well(tag) for tag in TAGS))
            moved = {new.database: new.topology for new in decide(record, seen).topologies if new.demoted}
            left = after_loss(record, frozenset(lost), 30)
            for folded, database in record.databases.items():
                after = left.databases[folded].topology
                decided = moved.get(database.name, database.topology)
                assert (after.members, after.rehabs) == (decided.members, decided.rehabs), (lost, database.name)
                assert database.name in moved or left.databases[folded] is database


def test_a_loss_changes_nothing_but_topologies_and_nothing_at_all_of_a_suspended_observer() -> None:
    cluster = several()
    left = after_loss(cluster.record, {"B"}, 30)
    assert left.databases[FOLDED].topology.demotion_reasons["B"] == "B has not been heard for 0 ms (limit 0 ms)"
    assert replace(left, databases=cluster.record.databases) == cluster.record
    cluster.do(SuspendObserver(suspended=True))
    assert after_loss(cluster.record, {"B"}, 30) is cluster.record
