"""Last resort: no Member is alive, so the most up-to-date of the others takes over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from immutables import Map
from msgspec.structs import replace

from observer.rules.facts import DatabaseReport, NodeFacts
from observer.rules.last_resort import most_up_to_date
from tests.unit.observer.build import (
    FOLDED,
    commit,
    facts,
    group,
    report,
    sentences,
    silent,
    topology_after,
    unwell,
    well,
)


def holding(tag: str, vector: dict[str, int], documents: int = 0) -> NodeFacts:
    return well(tag, good_ms=0, current={FOLDED: report(vector=vector, documents=documents)})


def test_the_most_up_to_date_rehab_takes_over_at_once_and_then_the_dead_are_demoted() -> None:
    cluster = group("A", "B", "C", members=("A",), rehabs=("B", "C"))
    seen = facts(silent("A"), holding("B", {"x": 5}), holding("C", {"x": 6}), leader="D")
    decisions = commit(cluster, seen)
    assert cluster.database().topology.members == ("A", "C")
    assert "C was promoted to Member as a last resort: no Member is alive (A), and of B, C" in sentences(decisions)
    assert topology_after(cluster, seen).members == ("C",)
    assert set(cluster.database().topology.rehabs) == {"A", "B"}


def test_a_dead_or_faulted_rehab_cannot_take_over() -> None:
    cluster = group(members=("A",), rehabs=("B", "C", "D"))
    seen = facts(silent("A"), silent("B"), unwell("C", for_ms=1), well("D", fresh=False), leader="E")
    decisions = commit(cluster, seen)
    assert cluster.database().topology.members == ("A",)
    assert "nobody healthy can take over" in sentences(decisions)
    assert {sentence.key for sentence in decisions.sentences} == {"unreachable A", None}


@pytest.mark.parametrize(
    "b",
    [well("B", silent=True), well("B", current={})],
    ids=["is heard and has no lease", "has not said how its copy is"],
)
def test_a_rehab_that_is_not_known_to_serve_cannot_take_over(b: NodeFacts) -> None:
    cluster = group(members=("A",), rehabs=("B",))
    assert topology_after(cluster, facts(silent("A"), b, leader="E")).members == ("A",)


def test_of_all_that_can_take_over_one_does_and_no_copy_that_goes() -> None:
    cluster = group(members=(), rehabs=("E", "D", "C", "B"))
    database = replace(cluster.database(), deletion_in_progress=Map({"E": "HardDelete"}))
    cluster.record = replace(cluster.record, databases=cluster.record.databases.set(FOLDED, database))
    assert sentences(commit(cluster, facts(*(holding(tag, {"x": 5}) for tag in "BCDE")))) == (
        "B was promoted to Member as a last resort: no Member is alive (none), and of B, C, D it is the most "
        "up-to-date."
    )


def test_a_promotable_takes_over_only_if_there_are_no_members_at_all() -> None:
    lost = facts(silent("A"), well("B"), leader="B")
    assert topology_after(group(members=("A",), promotables=("B",)), lost).members == ("A",)
    assert topology_after(group(members=(), promotables=("B",)), lost).members == ("B",)


def test_nothing_is_said_while_a_member_is_alive() -> None:
    cluster = group(members=("A",), rehabs=("B",))
    assert sentences(commit(cluster, facts(silent("B")))).startswith("B is not promoted yet (NotResponding)")


@pytest.mark.parametrize(
    ("candidates", "best"),
    [
        ({"B": ({"x": 5}, 9), "C": ({"x": 6}, 1)}, "C"),
        ({"B": ({"x": 5}, 9), "C": ({"x": 6}, 1), "D": ({"x": 7}, 0)}, "D"),
        ({"B": ({"x": 7}, 0), "C": ({"x": 6}, 1), "D": ({"x": 5}, 9)}, "B"),
        ({"B": ({"x": 5, "y": 1}, 1), "C": ({"x": 6}, 2)}, "C"),
        ({"B": ({"x": 5, "y": 1}, 2), "C": ({"x": 6}, 1)}, "B"),
        ({"B": ({"x": 5}, 1), "C": ({"x": 5}, 1)}, "B"),
        ({"B": ({}, 5), "C": ({"x": 1}, 1)}, "C"),
    ],
)
def test_the_most_up_to_date_is_picked(candidates: dict[str, tuple[dict[str, int], int]], best: str) -> None:
    reports = {tag: report(vector=vector, documents=count) for tag, (vector, count) in candidates.items()}
    assert most_up_to_date(reports) == best


vectors = st.dictionaries(st.sampled_from("xyz"), st.integers(1, 4))
reports = st.builds(DatabaseReport, status=st.just("Loaded"), vector=vectors, documents=st.integers(0, 3))


@given(st.dictionaries(st.sampled_from("BCDEFG"), reports, min_size=1))
def test_no_other_candidate_has_all_that_the_chosen_one_has_and_more(candidates: dict[str, DatabaseReport]) -> None:
    chosen = candidates[most_up_to_date(candidates)].vector
    for other in candidates.values():
        has_all = all(other.vector.get(id, 0) >= etag for id, etag in chosen.items())
        assert not (has_all and dict(other.vector) != dict(chosen))
