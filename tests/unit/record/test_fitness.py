"""The fittest nodes for one more copy."""

from raftnode.record.commands import DeleteDatabase, SetDraining
from raftnode.record.fitness import fittest_first
from tests.unit.record.build import RecordCluster


def cluster() -> RecordCluster:
    """B is in two groups, A and C in one, D in none."""
    made = RecordCluster("A", "B", "C", "D")
    made.create("A", "B")
    made.create("B", "C", name="Other")
    return made


def test_the_fewest_groups_come_first_then_the_first_tag() -> None:
    assert fittest_first(cluster().record, "ABCD") == ["D", "A", "C", "B"]
    assert fittest_first(cluster().record, "CBA") == ["A", "C", "B"]
    assert fittest_first(cluster().record, "") == []


def test_a_drained_node_comes_last_however_few_databases_it_has() -> None:
    made = cluster()
    made.do(SetDraining(tag="D", draining=True))
    assert fittest_first(made.record, "ABCD") == ["A", "C", "B", "D"]


def test_a_copy_that_is_being_deleted_counts_no_more() -> None:
    made = cluster()
    made.do(DeleteDatabase(name="Other", from_nodes=("B",)))
    assert fittest_first(made.record, "BC") == ["B", "C"]
