"""Who is responsible for a task: one local function over the record, the same on every node.

Placement by hash is rendezvous hashing (Thaler & Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996) with
weights as repeated draws: a demotion, return, removal or addition moves only the tasks that must move.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
import xxhash

from raftnode.record.model import Claim, ClusterNode, Database, NodeState, Record, Task, Topology, claim_key

Rule = Literal["PinnedMentor", "Mentor", "LicenceKeepsLast", "StickyHolder", "Hash", "NoRunner", "NoMember"]

UPDATE_KIND = "Update"
"""The kind of the synthetic task in which a mentor fills a Promotable. Every node can run it."""


class Ranked(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One node of the group as placement saw it. `ruled_out` is the reason, None for a node that could be picked."""

    node: str
    state: NodeState
    score: int
    ruled_out: str | None = None


class Placement(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The responsible node, the rule that named it, and the group by descending score."""

    node: str | None
    rule: Rule
    ranking: tuple[Ranked, ...] = ()


def task_key(kind: str, name: str, *fields: str) -> int:
    """A task's unique hash: xxh3_64 over its kind, its name and the fields that say what goes where.

    Names are folded; every part is length-prefixed, so that no two lists of parts read alike.
    """
    digest = xxhash.xxh3_64()
    for part in (kind, name.lower(), *fields):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "little"))
        digest.update(encoded)
    return digest.intdigest()


def score(key: int, tag: str, weight: int) -> int:
    """The node's rendezvous score: the best of `weight` draws, so that twice the weight wins twice as often."""
    prefix = key.to_bytes(8, "little") + tag.encode()
    return max((xxhash.xxh3_64_intdigest(prefix + i.to_bytes(4, "little")) for i in range(weight)), default=0)


def responsible_node(record: Record, database: Database, task: Task) -> Placement:
    """The node that is responsible for the task, by the first rule that answers; total and deterministic."""
    topology = database.topology
    ranking = rank(record, database, task)
    placement = _by_mentor(topology, database, task, ranking) or _by_history(record, database, task, ranking)
    if placement is not None:
        return placement
    eligible = [r.node for r in ranking if r.ruled_out is None]
    if task.traits.resource_heavy and len(eligible) > 1:
        eligible = [node for node in eligible if node != topology.members[0]]
    if eligible:
        return Placement(node=eligible[0], rule="Hash", ranking=ranking)
    runnerless = any(r.ruled_out == _NO_RUNNER for r in ranking)
    return Placement(node=None, rule="NoRunner" if runnerless else "NoMember", ranking=ranking)


def rank(record: Record, database: Database, task: Task) -> tuple[Ranked, ...]:
    """Every node of the group by descending score (ties by tag), each with what rules it out, if anything."""
    ranked = []
    for tag in dict.fromkeys(database.topology.all_nodes):
        node = record.nodes.get(tag)
        state = database.topology.state_of(tag)
        assert state is not None
        ranked.append(
            Ranked(
                node=tag,
                state=state,
                score=score(task.key, tag, node.weight if node else 1),
                ruled_out=_ruled_out(database, task, node, state),
            )
        )
    return tuple(sorted(ranked, key=lambda r: (-r.score, r.node)))


def update_task(record: Record, database: Database, tag: str) -> Task:
    """The synthetic task in which one mentor fills the Promotable `tag`, or a Rehab is measured against its mentor."""
    node = record.nodes.get(tag)
    return Task(
        id=0,
        name=tag,
        kind=UPDATE_KIND,
        key=task_key(UPDATE_KIND, tag, node.url if node else "", database.name.lower()),
        mentor=database.topology.predefined_mentors.get(tag),
    )


def mentor_of(record: Record, database: Database, tag: str) -> str | None:
    """The mentor of a Promotable or Rehab: the predefined one if it is a Member, else by hash over the Members."""
    return responsible_node(record, database, update_task(record, database, tag)).node


def tasks_of(record: Record, database: Database) -> Sequence[Task]:
    """Every task of the database: the ongoing tasks by id, then the update of each Promotable."""
    ongoing = sorted(database.tasks.values(), key=lambda t: t.id)
    return [*ongoing, *(update_task(record, database, tag) for tag in database.topology.promotables)]


def last_claim(record: Record, database: Database, task: Task) -> Claim | None:
    """The task's last granted claim, whatever became of it."""
    return record.claims.get(claim_key(database.name, task.kind, task.name))


_NO_RUNNER = "NoRunner"


def _ruled_out(database: Database, task: Task, node: ClusterNode | None, state: NodeState) -> str | None:
    if node is None:
        return "NotInCluster"
    if state != "Member":
        return state
    if node.tag in database.deletion_in_progress:
        return "DeletionInProgress"
    if node.draining:
        return "Draining"
    if not set(task.requires) <= set(node.labels):
        return "LabelsMissing"
    if node.kinds is not None and task.kind not in (*node.kinds, UPDATE_KIND):
        return _NO_RUNNER
    return None


def _by_mentor(topology: Topology, database: Database, task: Task, ranking: tuple[Ranked, ...]) -> Placement | None:
    mentor = task.mentor
    if mentor is None or mentor in database.deletion_in_progress:
        return None
    if task.pinned and topology.state_of(mentor) is not None:
        return Placement(node=mentor, rule="PinnedMentor", ranking=ranking)
    if any(r.node == mentor and r.ruled_out is None for r in ranking):
        return Placement(node=mentor, rule="Mentor", ranking=ranking)
    return None


def _by_history(record: Record, database: Database, task: Task, ranking: tuple[Ranked, ...]) -> Placement | None:
    claim = last_claim(record, database, task)
    if claim is None or claim.tag in database.deletion_in_progress:
        return None
    last = next((r for r in ranking if r.node == claim.tag), None)
    if last is None:
        return None
    if not record.highly_available_tasks:
        return Placement(node=last.node, rule="LicenceKeepsLast", ranking=ranking)
    if not task.traits.sticky:
        return None
    waits = last.ruled_out == "Rehab" and not claim.grace_ended
    if last.ruled_out is None or waits:
        return Placement(node=last.node, rule="StickyHolder", ranking=ranking)
    return None
