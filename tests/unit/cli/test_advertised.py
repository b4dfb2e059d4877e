"""What a node that joins calls itself."""

import pytest

from config import load
from raftnode.cli.advertised import _is_here, unknown, unreachable

TRUSTED = {"security.unsecured_access_allowed": "private_network"}
FAR = "http://192.0.2.7:8080"
"""Of a network that is for documentation only, so that no machine has it."""


@pytest.mark.parametrize("join", [FAR, "http://user:s3cret@192.0.2.7:8080", "https://no-such-host.invalid:8080"])
def test_loopback_is_refused_for_a_cluster_on_another_machine(join: str) -> None:
    said = unreachable(load(None, {}, {}), join)
    assert said is not None
    for part in ("http://127.0.0.1:8080", "127.0.0.1:38888", "--http.host ADDRESS --cluster.host ADDRESS"):
        assert part in said
    assert "s3cret" not in said


def test_only_what_is_loopback_is_named() -> None:
    said = unreachable(load(None, {}, TRUSTED | {"http.host": "10.1.2.3"}), FAR)
    assert said is not None
    assert "--cluster.host ADDRESS" in said
    assert "--http.host" not in said


@pytest.mark.parametrize(
    ("flags", "join"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({}, "http://localhost:8080"),
        ({}, "127.0.0.1:8080"),
        ({}, "far.example:8080"),
        ({}, "ftp://far.example"),
        ({}, "http://"),
        ({}, "http://[::1"),
        (TRUSTED | {"http.host": "10.1.2.3", "cluster.host": "10.1.2.3"}, FAR),
        ({"node.url": "http://a.example:80", "cluster.public_address": "a.example:81"}, FAR),
    ],
)
def test_what_others_can_reach_or_what_is_no_address_is_no_fault_of_this_ones(flags: dict[str, str], join: str) -> None:
    assert unreachable(load(None, {}, flags), join) is None


def test_an_address_of_this_machine_is_known() -> None:
    assert _is_here("127.0.0.2")
    assert not _is_here("192.0.2.7")


def test_a_name_that_nobody_may_know_is_named_in_a_warning() -> None:
    given = {"node.url": "http://no-such-host.invalid:80", "cluster.public_address": "127.0.0.1:81"}
    said = unknown(load(None, {}, given))
    assert said is not None
    assert "http://no-such-host.invalid:80, a name" in said
    assert "correct node.url" in said
    assert unknown(load(None, {}, {})) is None
