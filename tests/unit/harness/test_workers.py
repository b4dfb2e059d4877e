from pathlib import Path

import pytest

from raftnode.cli import local_cluster
from tests import workers

TESTS = Path(__file__).resolve().parents[2]


def test_every_directory_of_tests_has_its_place() -> None:
    directories = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")}
    assert directories == set(workers.ORDER)
    assert set(workers.ORDER) >= workers.TOGETHER | workers.APART


def test_what_keeps_every_core_busy_is_one_unit() -> None:
    assert workers.unit("tests/simulation/test_a.py::t") == workers.unit("tests/simulation/test_b.py::t")
    assert workers.unit("tests/cluster/test_a.py::t") != workers.unit("tests/cluster/test_b.py::t")


def test_what_shares_fixtures_stays_together_and_properties_go_one_by_one() -> None:
    assert workers.unit("tests/unit/web/test_a.py::test_b[x::y]") == "tests/unit/web/test_a.py"
    assert workers.unit("tests/properties/test_a.py::test_b[1]") == "tests/properties/test_a.py::test_b[1]"


def test_what_cannot_be_divided_comes_first_and_the_unknown_last() -> None:
    given = [
        "tests/test_x.py::t",
        "tests/unit/a/test_x.py::t",
        "tests/cluster/test_x.py::t",
        "tests/simulation/test_x.py::t",
    ]
    assert sorted(given, key=workers.rank) == given[::-1]


def test_two_workers_never_choose_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for worker in ("gw0", "gw1"):
        monkeypatch.setattr(local_cluster, "share", workers.share(worker, 2))
        found.append(set(local_cluster.free_ports(500)))
    assert [len(ports) for ports in found] == [500, 500]
    assert not found[0] & found[1]


def test_nodes_with_the_shortest_leases_come_before_all_others_and_simulated_worlds_last() -> None:
    nice = [workers.niceness(f"tests/{name}/test_a.py::t") for name in ("partition", "cluster", "unit", "simulation")]
    assert nice[0] < nice[1] == nice[2] < nice[3]
