"""Settled databases are not looked at, and every decision is the same as if they were."""

import random

import pytest
from msgspec.structs import replace

from observer.rules import settled as rules
from observer.rules.decide import decide
from observer.rules.facts import NS_PER_MS, CopyState, DatabaseReport, Facts, NodeFacts, holder_of
from observer.rules.settled import NOTHING_SETTLED, Settled, all_settled, is_settled, settled_after, still_settled
from raftnode.record.commands import SuspendObserver
from raftnode.record.model import Database, Record
from tests.unit.observer.build import FOLDED, LIMITS, NOW_MS, NOW_NS, R_MS, group, report
from tests.unit.record.build import RecordCluster

TAGS = "ABCDE"
LATER_MS = 3_600_000


class WatchedNodes:
    """The five nodes as a leader sees them, each copy with reports of its own, all of them well."""

    def __init__(self, cluster: RecordCluster) -> None:
        self.record = cluster.record
        self.now_ms = 0
        same = {tag: {FOLDED: report()} for tag in TAGS}
        well = CopyState(True, NOW_NS - LATER_MS * NS_PER_MS)
        self.nodes = {
            tag: NodeFacts(
                tag=tag,
                silent=False,
                fresh=True,
                heard_ns=NOW_NS,
                current=same[tag],
                previous=same[tag],
                previous_ns=NOW_NS,
                copies={FOLDED: well},
            )
            for tag in TAGS
        }
        self.settled = NOTHING_SETTLED

    def facts(self) -> Facts:
        now_ns = NOW_NS + self.now_ms * NS_PER_MS
        return Facts(
            leader="A",
            term=1,
            now_ns=now_ns,
            now_ms=NOW_MS + self.now_ms,
            void_allowed=True,
            silence_ms=R_MS,
            limits=LIMITS,
            nodes={tag: replace(node, heard_ns=node.heard_ns + now_ns - NOW_NS) for tag, node in self.nodes.items()},
            holders=frozenset(holder_of(c) for c in self.record.claims.values() if c.state == "Held"),
        )

    def change(self, tag: str, **fields: object) -> None:
        self.nodes[tag] = replace(self.nodes[tag], **fields)

    def reports(self, tag: str, given: DatabaseReport) -> None:
        """One more sample, another report."""
        self.change(tag, previous=self.nodes[tag].current, current={FOLDED: given})

    def again(self, tag: str) -> None:
        """One more sample, the same report."""
        self.change(tag, previous=self.nodes[tag].current)

    def look(self) -> bool:
        """One iteration; whether nothing had to be looked at. The decisions must be that of a look at everything."""
        facts = self.facts()
        settled = still_settled(self.record, facts, self.settled)
        quiet = all_settled(settled, self.record, facts) and settled.claims is self.record.claims
        decisions = decide(self.record, facts, self.settled)
        assert decisions == decide(self.record, facts)
        self.settled = settled_after(self.record, facts, (one.database for one in decisions.sentences), self.settled)
        return quiet


def idle() -> WatchedNodes:
    """A cluster in which all is well, and has been looked at."""
    watched = WatchedNodes(group())
    assert not watched.look()
    assert watched.look()
    return watched


def idle_with(cluster: RecordCluster) -> WatchedNodes:
    """The same of that cluster."""
    watched = WatchedNodes(cluster)
    watched.look()
    return watched


def test_time_alone_wakes_nobody() -> None:
    watched = idle()
    for _ in range(20):
        watched.now_ms += LATER_MS
        kept = watched.settled
        assert watched.look()
        assert watched.settled is kept


def test_another_report_is_looked_at_until_both_samples_are_it() -> None:
    watched = idle()
    watched.reports("B", report(last_etag=11))
    assert not watched.look()
    assert not is_settled(watched.settled, watched.facts(), FOLDED, watched.record.databases[FOLDED])
    watched.again("B")
    assert not watched.look()
    assert watched.look()


def test_other_databases_stay_settled_while_one_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = group()
    cluster.create("A", "B", "C", name="Other")
    watched = WatchedNodes(cluster)
    other = {tag: report() for tag in TAGS}
    for tag in TAGS:
        both = {FOLDED: report(), "other": other[tag]}
        well = CopyState(True, 0)
        watched.change(tag, current=both, previous=both, copies={FOLDED: well, "other": well})
    watched.look()
    busy = {FOLDED: report(last_etag=12), "other": other["A"]}
    watched.change("A", previous=watched.nodes["A"].current, current=busy)
    examined: list[str] = []
    examine = rules._reports

    def reports(facts: Facts, folded: str, database: Database) -> rules.Reports | None:
        examined.append(folded)
        return examine(facts, folded, database)

    monkeypatch.setattr(rules, "_reports", reports)
    assert not watched.look()
    assert examined == [FOLDED], "of thousands of settled ones only that is asked whether they still are"
    facts, databases = watched.facts(), watched.record.databases
    assert is_settled(watched.settled, facts, "other", databases["other"])
    assert not is_settled(watched.settled, facts, FOLDED, databases[FOLDED])


def test_whatever_is_not_well_keeps_everything_awake() -> None:
    broken = {FOLDED: CopyState(False, NOW_NS)}
    changes: tuple[dict[str, object], ...] = (
        {"silent": True, "fresh": False},
        {"fresh": False},
        {"heard_ns": NOW_NS - LIMITS.rotate_ms * NS_PER_MS},
        {"flags": ("EarlyOutOfMemory",)},
        {"copies": broken},
        {"copies": {}},
        {"current": {FOLDED: report(status="Faulted")}},
        {"current": {}, "previous": {}},
    )
    for fields in changes:
        watched = idle()
        watched.change("B", **fields)
        watched.look()
        assert not watched.look(), fields


def test_a_database_that_is_changed_or_waits_is_looked_at() -> None:
    for change in (
        {"replication_factor": 4},
        {"rehabs": ("C",), "members": ("A", "B")},
        {"promotables": ("D",)},
        {"demotion_reasons": group().database().topology.demotion_reasons.set("A", "it was lost")},
        {"members": ("A", "B", "Z")},
    ):
        watched = WatchedNodes(group(**change))
        watched.look()
        assert not watched.look(), change
    watched = idle()
    database = watched.record.databases[FOLDED]
    young = replace(database.topology.stamp, leader_wall_ms=NOW_MS)
    changed = replace(database, topology=replace(database.topology, stamp=young))
    watched.record = replace(watched.record, databases=watched.record.databases.set(FOLDED, changed))
    assert not watched.look()
    assert not watched.look()
    watched.now_ms += LIMITS.stabilization_ms
    watched.look()
    assert watched.look()


def test_a_disabled_database_is_settled() -> None:
    watched = idle()
    disabled = replace(watched.record.databases[FOLDED], disabled=True)
    watched.record = replace(watched.record, databases=watched.record.databases.set(FOLDED, disabled))
    assert not watched.look()
    watched.change("B", copies={}, current={}, previous={})
    watched.look()
    assert watched.look()


def test_a_claim_of_a_nodes_former_process_is_waited_for() -> None:
    cluster = group()
    cluster.task("t")
    holder = cluster.placed("t").node
    assert holder is not None
    cluster.do(cluster.claim(holder, "t"))
    assert idle_with(cluster).settled.claims is cluster.record.claims
    watched = idle_with(cluster)
    assert cluster.announce(holder, boot=2, nonce=8).error is None
    watched.record = cluster.record
    assert not watched.look()
    assert watched.settled.claims is None


def test_a_suspended_observer_takes_nothing_for_settled() -> None:
    """It looks at no topology, and so has not found that nothing is to be done."""
    cluster = group()
    cluster.do(SuspendObserver(suspended=True))
    watched = WatchedNodes(cluster)
    watched.look()
    assert not watched.look()
    assert watched.settled is NOTHING_SETTLED


def test_random_worlds_come_to_the_same_verdicts() -> None:
    quiet = looked = 0
    for seed in range(60):
        chance = random.Random(seed)
        watched = WatchedNodes(group(members=tuple(chance.sample(TAGS, 3))))
        records: list[Record] = [watched.record]
        for _ in range(40):
            watched.now_ms += chance.choice((100, 1000, 10_000))
            for tag in TAGS:
                if chance.random() < 0.1:
                    watched.reports(tag, report(last_etag=chance.randint(1, 3000), sent=dict.fromkeys(TAGS, 10)))
                elif chance.random() < 0.8:
                    watched.again(tag)
            if chance.random() < 0.05:
                tag = chance.choice(TAGS)
                watched.change(tag, silent=not watched.nodes[tag].silent, fresh=watched.nodes[tag].silent)
            if chance.random() < 0.05:
                watched.change(chance.choice(TAGS), flags=chance.choice(((), ("EarlyOutOfMemory",))))
            if chance.random() < 0.1:
                watched.record = chance.choice(records)
            records.append(watched.record)
            quiet += watched.look()
            looked += 1
    assert looked > quiet > looked // 20, "some iterations have nothing to look at, others have"


def test_nothing_is_settled_at_first() -> None:
    assert Settled() == NOTHING_SETTLED
