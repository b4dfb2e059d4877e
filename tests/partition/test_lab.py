"""The lab itself: what is cut is cut, what is not is not, and nothing is left behind."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.partition import echo
from tests.partition.lab import LabNetwork, network, remove_stale

TAGS = "ABC"
pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def net() -> Iterator[LabNetwork]:
    """A network with a listener on each node."""
    with network(TAGS) as made:
        program = [sys.executable, str(Path(echo.__file__))]
        listeners = [subprocess.Popen([*made.inside(tag), *program], stdout=subprocess.PIPE, text=True) for tag in TAGS]
        for listener in listeners:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "ready\n"
        yield made
        for listener in listeners:
            listener.kill()
            listener.communicate()


@pytest.fixture(autouse=True)
def _healed(net: LabNetwork) -> Iterator[None]:
    yield
    net.heal()


def hears(net: LabNetwork, sender: str, receiver: str, word: str, times: int = 1) -> int:
    """How often the receiver hears what the sender says. Both answer the management address in any case."""
    echo.ask(net.address(sender), f"say {net.address(receiver)} {times} {word}")
    return echo.ask(net.address(receiver), "heard?").split().count(word)


def links(net: LabNetwork, word: str) -> set[str]:
    """The links that work, as "AB" for A to B."""
    return {a + b for a in TAGS for b in TAGS if a != b and hears(net, a, b, f"{word}{a}")}


ALL = {"AB", "AC", "BA", "BC", "CA", "CB"}


def test_every_link_works_at_first_and_after_healing(net: LabNetwork) -> None:
    assert links(net, "first") == ALL
    net.isolate("A")
    net.lose("B", "C", 99)
    net.heal()
    assert links(net, "healed") == ALL


def test_an_isolated_node_hears_and_reaches_nobody_but_the_test(net: LabNetwork) -> None:
    net.isolate("B")
    assert links(net, "isolated") == {"AC", "CA"}


def test_one_direction_alone_can_be_cut(net: LabNetwork) -> None:
    net.drop("A", "C")
    assert links(net, "oneway") == ALL - {"AC"}


def test_any_shape_of_partition(net: LabNetwork) -> None:
    net.partition("A", "B")
    assert links(net, "shape") == ALL - {"AB", "BA"}


def test_a_share_of_the_packets_is_lost_in_one_direction(net: LabNetwork) -> None:
    net.lose("A", "B", 40)
    heard = hears(net, "A", "B", "lossy", times=1000)
    assert 450 < heard < 750
    assert hears(net, "B", "A", "other", times=100) == 100


def test_a_slow_node_loses_what_its_queue_does_not_hold(net: LabNetwork) -> None:
    net.slow("A", 100)
    echo.tell(net.address("A"), f"say {net.address('B')} 500 {'x' * 1200}")
    while not dropped(net, "A"):
        assert hears(net, "B", "C", "y" * 1200, times=10) == 10
        echo.tell(net.address("C"), "forget")
    assert not dropped(net, "B")


def test_what_a_node_sends_arrives_late_where_the_kernel_has_netem(net: LabNetwork) -> None:
    if not net.can_delay():
        pytest.skip("this kernel has no netem")
    net.delay("A", 200)
    began_s = time.monotonic()
    echo.ask(net.address("A"), "heard?")
    assert time.monotonic() - began_s >= 0.1


def dropped(net: LabNetwork, tag: str) -> int:
    """How many packets the node's own limit has dropped."""
    shown = subprocess.run(
        ["tc", "-s", "-j", "-n", net.namespace(tag), "qdisc", "show"], capture_output=True, text=True, check=True
    )
    return sum(queue["drops"] for queue in json.loads(shown.stdout) if queue["kind"] == "tbf")


def test_what_a_dead_test_process_left_is_removed_with_its_processes_and_the_living_stays(net: LabNetwork) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    stale = f"rnlab{child.pid}-A"
    subprocess.run(["ip", "netns", "add", stale], check=True)
    orphan = subprocess.Popen(["ip", "netns", "exec", stale, "sleep", "600"])
    while not subprocess.run(["ip", "netns", "pids", stale], capture_output=True, check=True).stdout:
        assert orphan.poll() is None
    remove_stale()
    assert orphan.wait(10) == -9
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert stale not in left
    assert net.namespace("A") in left


def test_nothing_is_left_when_making_the_network_fails() -> None:
    broken = LabNetwork("ABC")
    broken.name += "x"
    broken.tags.append("A" * 99)
    with pytest.raises(RuntimeError):
        broken.up()
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert broken.name not in left
