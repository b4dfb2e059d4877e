"""The rules that bind the timings to each other, and the profiles that keep them.

The proof that no two nodes run one task at once rests on these inequalities; docs/guarantees.md carries it.
"""

from config.errors import Problem
from config.schema import ClusterSettings
from raftnode.foundation.clock_margins import FACTOR_TEXT, MARGIN_MS, with_clock_margin

PROFILES: dict[str, dict[str, int]] = {
    "default": {
        "heartbeat_ms": 200,
        "election_min_ms": 500,
        "election_max_ms": 1000,
        "lease_ms": 1800,
        "task_stop_timeout_ms": 1000,
        "time_before_moving_to_rehab_ms": 4000,
        "observer_period_ms": 200,
        "dead_peer_ms": 1500,
    },
    "fast": {
        "heartbeat_ms": 40,
        "election_min_ms": 150,
        "election_max_ms": 300,
        "lease_ms": 450,
        "task_stop_timeout_ms": 150,
        "time_before_moving_to_rehab_ms": 750,
        "observer_period_ms": 50,
        "dead_peer_ms": 500,
    },
    "wan": {
        "heartbeat_ms": 500,
        "election_min_ms": 2000,
        "election_max_ms": 4000,
        "lease_ms": 6000,
        "task_stop_timeout_ms": 3000,
        "time_before_moving_to_rehab_ms": 12000,
        "observer_period_ms": 500,
        "dead_peer_ms": 5000,
    },
}


def rehab_ms_min(lease_ms: int, task_stop_timeout_ms: int) -> int:
    """The least `time_before_moving_to_rehab_ms`: the longest that a silent node's tasks may still run, as another
    node's clock judges it."""
    return with_clock_margin(lease_ms + task_stop_timeout_ms, MARGIN_MS)


def timing_problems(cluster: ClusterSettings) -> list[Problem]:
    """What is wrong with the timings taken together; empty when they fit."""
    heartbeat, lease = cluster.heartbeat_ms, cluster.lease_ms
    lowest, highest = cluster.election_min_ms, cluster.election_max_ms
    stop, rehab = cluster.task_stop_timeout_ms, cluster.time_before_moving_to_rehab_ms
    lease_min = highest + 3 * heartbeat
    rehab_min = rehab_ms_min(lease, stop)
    return [
        *_at_least(
            "election_min_ms",
            lowest,
            2 * heartbeat,
            "a node must hear two heartbeats before it may stand for election: election_min_ms >= 2 x"
            f" heartbeat_ms ({heartbeat})",
            ("heartbeat_ms",),
        ),
        *_at_least(
            "election_max_ms",
            highest,
            lowest + 1,
            f"elections need a random wait between two bounds: election_max_ms > election_min_ms ({lowest})",
            ("election_min_ms",),
        ),
        *_at_least(
            "lease_ms",
            lease,
            lease_min,
            "a leader's crash must not stop the other nodes' tasks: lease_ms >= election_max_ms"
            f" ({highest}) + 3 x heartbeat_ms ({heartbeat})",
            ("election_max_ms", "heartbeat_ms"),
        ),
        *_at_least(
            "time_before_moving_to_rehab_ms",
            rehab,
            rehab_min,
            "a silent node's tasks must have ended before others start them: time_before_moving_to_rehab_ms >="
            f" (lease_ms ({lease}) + task_stop_timeout_ms ({stop})) x {FACTOR_TEXT} + {MARGIN_MS}",
            ("lease_ms", "task_stop_timeout_ms"),
        ),
    ]


def _at_least(name: str, value: int, least: int, rule: str, others: tuple[str, ...]) -> list[Problem]:
    if value >= least:
        return []
    involved = tuple(f"cluster.{n}" for n in (name, *others))
    remedy = f"Raise it to {least} or more, lower the others, or use one of the profiles"
    return [Problem(f"cluster.{name}", str(value), rule, f"{remedy} {', '.join(PROFILES)}", involved=involved)]
