"""What the observer leaves behind once nodes are silent: asked beforehand, and decided afterwards."""

from itertools import combinations

import pytest
from msgspec.structs import replace

from observer.rules.decide import after_loss, decide
from raftnode.record.commands import SetDatabaseState, SetDraining, SetNodeFlags, SuspendObserver
from raftnode.record.model import Topology
from tests.unit.observer.build import FOLDED, facts, group, silent, well
from tests.unit.record.build import RecordCluster

LOSSES = [frozenset(lost) for count in range(4) for lost in combinations("BCD", count)]


def cluster() -> RecordCluster:
    """Northwind is on A, B and C, D is its Rehab; Other is on D and E."""
    made = group("A", "B", "C", rehabs=("D",))
    made.create("D", "E", name="Other")
    return made


def decided(made: RecordCluster, lost: frozenset[str]) -> Topology:
    """Northwind's topology after the turn in which the nodes turn out to be silent."""
    nodes = [silent(tag) if tag in lost else well(tag) for tag in "BCDE"]
    found = {new.database: new.topology for new in decide(made.record, facts(*nodes)).topologies if new.demoted}
    return found.get("Northwind", made.database().topology)


@pytest.mark.parametrize("lost", LOSSES, ids=lambda lost: "".join(sorted(lost)))
@pytest.mark.parametrize("flagged", [None, "A", "C"])
@pytest.mark.parametrize("drained", [None, "B"])
def test_it_is_what_the_observer_decides_once_they_are_silent(
    lost: frozenset[str], flagged: str | None, drained: str | None
) -> None:
    made = cluster()
    if flagged is not None and not lost.isdisjoint("ABC"):
        made.do(SetNodeFlags(tag=flagged, flags=("HighDirtyMemory",)))
    if drained is not None:
        made.do(SetDraining(tag=drained, draining=True))
    after, expected = after_loss(made.record, lost, 30).databases[FOLDED].topology, decided(made, lost)
    assert (after.members, after.rehabs) == (expected.members, expected.rehabs)
    assert set(after.demotion_reasons) == set(expected.demotion_reasons)


def test_only_the_databases_that_lose_a_member_change() -> None:
    """Another one keeps also the Member that the observer is about to demote for a resource."""
    made = cluster()
    made.do(SetNodeFlags(tag="B", flags=("HighDirtyMemory",)))
    record = made.record
    assert after_loss(record, frozenset(), 30) == record
    after = after_loss(record, frozenset("E"), 30)
    assert after.databases[FOLDED] is record.databases[FOLDED]
    assert after.databases["other"].topology.rehabs == ("E",)
    assert replace(after, databases=record.databases) == record


def test_a_suspended_observer_leaves_everything_as_it_is() -> None:
    made = cluster()
    made.do(SuspendObserver(suspended=True))
    assert after_loss(made.record, frozenset("B"), 30) is made.record


def test_a_database_that_is_disabled_keeps_its_topology() -> None:
    made = cluster()
    made.do(SetDatabaseState(name="Northwind", disabled=True))
    assert after_loss(made.record, frozenset("B"), 30) == made.record
