"""The checker of histories finds what it is for."""

from tests.chaos.history import Instant, doubled, lost, overlaps, went_back


def run(node: str, epoch: int, *at: int, task: str = "t") -> list[Instant]:
    return [Instant(at_ns, task, node, epoch) for at_ns in at]


def test_runs_one_after_the_other_are_well() -> None:
    assert overlaps([*run("A", 1, 10, 20), *run("B", 2, 21, 30), *run("A", 5, 40), *run("C", 3, 15, task="u")]) == []


def test_a_run_that_begins_before_the_last_one_has_ended_is_found() -> None:
    (said,) = overlaps([*run("A", 1, 10, 30_000_010), *run("B", 2, 20, 40_000_000)])
    assert said == "t: epoch 2 on B began 30.0 ms before epoch 1 on A had ended"


def test_an_older_epoch_that_acts_again_is_found() -> None:
    assert len(overlaps([*run("A", 1, 10, 50), *run("B", 2, 20, 30)])) == 1


def test_an_epoch_that_two_nodes_ran_is_found() -> None:
    assert overlaps([*run("A", 1, 10), *run("B", 1, 20)]) == ["epoch 1 of t ran on A and on B"]


def test_a_run_of_a_tolerant_task_may_go_on_beside_the_next_and_no_epoch_on_two_nodes() -> None:
    both = [*run("A", 1, 10, 50), *run("B", 2, 20, 30)]
    assert overlaps(both, ["t"]) == []
    assert len(overlaps(both, ["u"])) == 1
    assert overlaps([*run("A", 1, 10), *run("B", 1, 20)], ["t"]) == ["epoch 1 of t ran on A and on B"]


def test_what_was_acknowledged_and_is_gone_is_found() -> None:
    assert lost({1, 2, 3}, [1, 2, 3, 4], "documents") == []
    assert lost(range(20), [], "documents") == [
        "20 acknowledged documents are not there: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 ..."
    ]


def test_what_is_there_twice_is_found() -> None:
    assert doubled([1, 2, 3], "rows") == []
    assert doubled([1, 2, 2, 3, 3], "rows") == ["2 rows are there more than once: 2, 3"]


def test_a_value_below_what_was_acknowledged_is_found() -> None:
    assert went_back({"a": 3, "b": 4}, {"a": 3, "b": 5}) == []
    assert went_back({"a": 3, "b": 4}, {"a": 2}) == [
        "a stands at 2, and 3 was acknowledged",
        "b stands at None, and 4 was acknowledged",
    ]
