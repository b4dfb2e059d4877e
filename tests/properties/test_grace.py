"""A sticky task and its observer, in random histories of losses and returns: the task never leaves a holder that is in
Rehab before the grace has passed, always leaves it then if another Member is there, and stays where it has gone."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from observer.rules.facts import Facts
from raftnode.record.commands import ReleaseTask
from raftnode.record.model import KindTraits
from tests.unit.observer.build import FOLDED, NOW_MS, commit, facts, group, silent, well
from tests.unit.record.build import KIND, RecordCluster

MIN_MS = 60_000
GRACE_MIN = 3
TAGS = ("A", "B", "C")


def seen(lost: set[str], at_ms: int) -> Facts:
    return facts(*(silent(tag) if tag in lost else well(tag) for tag in TAGS), now_ms=at_ms)


def claim(cluster: RecordCluster, lost: set[str]) -> None:
    """A node that lives hands the task over if it is not its own any more, and the responsible one claims it."""
    key, tag = f"{FOLDED}/{KIND}/backup", cluster.placed("backup").node
    last = cluster.record.claims.get(key)
    if last is not None and last.state == "Held" and last.tag not in {*lost, tag}:
        cluster.do(ReleaseTask(key=key, epoch=last.epoch))
        last = cluster.record.claims[key]
    if tag is not None and tag not in lost and (last is None or last.state != "Held"):
        cluster.apply(cluster.claim(tag, "backup"))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_the_holder_keeps_the_task_for_the_grace_and_no_longer(seed: int) -> None:
    chance = random.Random(seed)
    cluster, at_ms, lost = group(*TAGS), NOW_MS, set[str]()
    cluster.task("backup", traits=KindTraits(sticky=True, resource_heavy=True, grace_min=GRACE_MIN))
    claim(cluster, lost)
    for _ in range(chance.randint(1, 12)):
        lost = set(chance.sample(TAGS, chance.randint(0, 2)))
        for _ in range(chance.randint(1, 5)):
            before = cluster.claimed("backup")
            at_ms += chance.choice((1, MIN_MS, MIN_MS * GRACE_MIN))
            for _ in range(4):
                commit(cluster, seen(lost, at_ms))
            claim(cluster, lost)
            check(cluster, before.tag, at_ms, lost)


def check(cluster: RecordCluster, holder: str, at_ms: int, lost: set[str]) -> None:
    topology, now = cluster.database().topology, cluster.claimed("backup")
    since_ms = cluster.record.observer.rehab_since.get(f"{FOLDED}/{holder}")
    if holder in topology.members:
        assert (cluster.placed("backup").node, cluster.placed("backup").rule) == (holder, "StickyHolder")
    elif since_ms is not None and at_ms - since_ms < GRACE_MIN * MIN_MS:
        assert now.tag == holder, "it left within the grace"
    elif topology.members and not set(topology.members) <= lost:
        assert now.tag != holder, "it waits beyond the grace"
        assert now.tag in topology.members
        assert now.cause is not None
        assert now.cause.what in ("Grace", "Group")
