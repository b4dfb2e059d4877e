"""The rules that bind settings to each other."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from config import InitialNode, Settings
from config.access import admits
from config.checks import problems
from config.errors import Problem
from config.schema import ClusterSettings, HttpSettings, NodeSettings, SecuritySettings, TasksSettings
from config.timings import rehab_ms_min, timing_problems

SPAN = st.integers(1, 1_000_000)


def found(settings: Settings) -> dict[str, Problem]:
    return {problem.key: problem for problem in problems(settings)}


@given(heartbeat=SPAN, lowest=SPAN, highest=SPAN, lease=SPAN, stop=SPAN, rehab=SPAN)
def test_timings_are_refused_exactly_when_an_inequality_breaks(
    heartbeat: int, lowest: int, highest: int, lease: int, stop: int, rehab: int
) -> None:
    cluster = ClusterSettings(
        heartbeat_ms=heartbeat,
        election_min_ms=lowest,
        election_max_ms=highest,
        lease_ms=lease,
        task_stop_timeout_ms=stop,
        time_before_moving_to_rehab_ms=rehab,
    )
    broken = {problem.key for problem in timing_problems(cluster)}
    assert ("cluster.election_min_ms" in broken) == (lowest < 2 * heartbeat)
    assert ("cluster.election_max_ms" in broken) == (highest <= lowest)
    assert ("cluster.lease_ms" in broken) == (lease < highest + 3 * heartbeat)
    assert ("cluster.time_before_moving_to_rehab_ms" in broken) == (100 * (rehab - 100) < 105 * (lease + stop))


def test_the_remedy_for_a_timing_is_the_least_that_will_do() -> None:
    cluster = ClusterSettings(lease_ms=1801, task_stop_timeout_ms=1000, time_before_moving_to_rehab_ms=3041)
    (problem,) = timing_problems(cluster)
    assert rehab_ms_min(1801, 1000) == 3042
    assert "3042" in problem.remedy
    assert timing_problems(replace(cluster, time_before_moving_to_rehab_ms=3042)) == []


@pytest.mark.parametrize(
    ("allowed", "host", "refused"),
    [
        ("local", "127.0.0.1", False),
        ("local", "::1", False),
        ("local", "localhost", False),
        ("local", "0.0.0.0", True),
        ("local", "192.168.1.5", True),
        ("local", "node-a", True),
        ("private_network", "0.0.0.0", False),
        ("private_network", "::", False),
        ("private_network", "192.168.1.5", False),
        ("private_network", "node-a", False),
        ("private_network", "8.8.8.8", True),
        ("public_network", "8.8.8.8", False),
    ],
)
def test_without_certificates_a_node_listens_only_where_it_was_allowed_to(
    allowed: str, host: str, refused: bool
) -> None:
    settings = Settings(
        node=NodeSettings(url="http://n:1"),
        http=HttpSettings(host=host),
        cluster=ClusterSettings(host=host, public_address="n:2"),
        security=SecuritySettings(unsecured_access_allowed=allowed),  # type: ignore[arg-type]
    )
    assert set(found(settings)) == ({"http.host", "cluster.host"} if refused else set())


def test_with_certificates_a_node_listens_anywhere(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("node.pem", "key.pem", "ca.pem")]
    for file in files:
        file.write_text("pem")
    security = SecuritySettings(certificate_file=str(files[0]), key_file=str(files[1]), ca_file=str(files[2]))
    settings = Settings(
        node=NodeSettings(url="https://n:1"),
        http=HttpSettings(host="0.0.0.0"),
        cluster=ClusterSettings(host="0.0.0.0", public_address="n:2"),
        security=security,
    )
    assert found(settings) == {}
    assert settings.secured
    assert admits(settings, "8.8.8.8")
    assert Settings(security=security).url == "https://127.0.0.1:8080"
    plain = replace(settings, node=NodeSettings(url="http://n:1"))
    assert "https://" in found(plain)["node.url"].rule
    assert set(found(replace(settings, security=replace(security, ca_file="")))) == {"security.ca_file"}
    files[1].unlink()
    assert "no such file" in found(settings)["security.key_file"].rule


def test_half_given_certificates_are_refused_for_each_missing_file() -> None:
    assert set(found(Settings(security=SecuritySettings(key_file=__file__)))) >= {
        "security.certificate_file",
        "security.ca_file",
    }


@pytest.mark.parametrize(
    ("allowed", "peer", "served"),
    [
        ("local", "127.0.0.1", True),
        ("local", "::ffff:127.0.0.1", True),
        ("local", "10.0.0.1", False),
        ("private_network", "10.0.0.1", True),
        ("private_network", "fe80::1%eth0", True),
        ("private_network", "8.8.8.8", False),
        ("private_network", "someone", False),
        ("public_network", "8.8.8.8", True),
    ],
)
def test_without_certificates_only_the_allowed_peers_are_served(allowed: str, peer: str, served: bool) -> None:
    settings = Settings(security=SecuritySettings(unsecured_access_allowed=allowed))  # type: ignore[arg-type]
    assert admits(settings, peer) == served


def test_a_node_that_listens_everywhere_says_where_it_is_reached() -> None:
    settings = Settings(
        http=HttpSettings(host="0.0.0.0"),
        cluster=ClusterSettings(host="::"),
        security=SecuritySettings(unsecured_access_allowed="public_network"),
    )
    assert set(found(settings)) == {"node.url", "cluster.public_address"}


def nodes(*hosts: str) -> tuple[InitialNode, ...]:
    return tuple(
        InitialNode(tag=tag, url=f"http://{host}:80", cluster_address=f"{host}:81")
        for tag, host in zip("ABC", hosts, strict=False)
    )


def test_the_list_of_initial_nodes_must_hold_this_node_once() -> None:
    assert found(Settings(cluster=ClusterSettings(initial_nodes=nodes("a", "b")))) == {}
    away = Settings(node=NodeSettings(tag="X"), cluster=ClusterSettings(initial_nodes=nodes("a", "b")))
    assert "X" in found(away)["cluster.initial_nodes"].rule
    twice = Settings(cluster=ClusterSettings(initial_nodes=nodes("a", "a")))
    assert "same url" in " ".join(p.rule for p in problems(twice))


def test_an_address_of_ones_own_that_contradicts_the_list_is_refused() -> None:
    cluster = ClusterSettings(initial_nodes=nodes("a", "b"), public_address="c:81")
    settings = Settings(node=NodeSettings(url="http://c:80"), cluster=cluster)
    assert set(found(settings)) == {"node.url", "cluster.public_address"}


def test_a_loopback_address_among_nodes_that_live_elsewhere_is_refused() -> None:
    settings = Settings(cluster=ClusterSettings(initial_nodes=nodes("127.0.0.1", "b")))
    assert set(found(settings)) == {"node.url", "cluster.public_address"}
    assert found(Settings(cluster=ClusterSettings(initial_nodes=nodes("[::1]", "localhost")))) == {}


def test_the_longest_backoff_is_not_below_the_first() -> None:
    assert set(found(Settings(tasks=TasksSettings(backoff_min_ms=5, backoff_max_ms=4)))) == {"tasks.backoff_max_ms"}


def test_an_ipv6_host_is_written_in_brackets() -> None:
    assert Settings(http=HttpSettings(host="::1")).url == "http://[::1]:8080"
