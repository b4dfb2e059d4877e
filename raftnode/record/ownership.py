"""Who is responsible for a task: one local function over the record, the same on every node.

Placement by hash is rendezvous hashing (Thaler & Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996) with
weights as repeated draws: a demotion, return, removal or addition moves only the tasks that must move.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import msgspec
import xxhash

from raftnode.foundation.names import fold
from raftnode.record.model import Claim, ClusterNode, Database, NodeState, Record, Task

Rule = Literal["PinnedMentor", "Mentor", "LicenceKeepsLast", "StickyHolder", "Hash", "NoRunner", "NoMember", "HeldBack"]

ENDINGS_MAX = 2
UPDATE_KIND = "Update"
"""The kind of the synthetic task in which a mentor updates a Promotable or Rehab. Every node can run it."""
OF_REHAB = b'{"Of":"Rehab"}'
"""The configuration of the update of a Rehab, which all Members send to anyway: its mentor tells how far it is."""


class RankedNode(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One node of the group as placement saw it. `ruled_out` is the reason, None for a node that could be picked."""

    node: str
    state: NodeState
    score: int
    ruled_out: str | None = None


class Placement(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The responsible node, the rule that named it, and the group by descending score."""

    node: str | None
    rule: Rule
    ranking: tuple[RankedNode, ...] = ()


def task_key(kind: str, name: str, *fields: str) -> int:
    """A task's unique hash: xxh3_64 over its kind, its name and the fields that say what goes where.

    Names are folded; every part is length-prefixed, so that no two lists of parts read alike.
    """
    digest = xxhash.xxh3_64()
    for part in (kind, fold(name), *fields):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "little"))
        digest.update(encoded)
    return digest.intdigest()


def score(key: int, tag: str, weight: int) -> int:
    """The node's rendezvous score: the best of `weight` draws, so that twice the weight wins twice as often."""
    return _best_draw(key.to_bytes(8, "little"), _draws(tag, weight))


@lru_cache(maxsize=1024)
def _draws(tag: str, weight: int) -> tuple[bytes, ...]:
    return tuple(tag.encode() + i.to_bytes(4, "little") for i in range(weight))


def _best_draw(prefix: bytes, draws: tuple[bytes, ...]) -> int:
    if len(draws) == 1:
        return xxhash.xxh3_64_intdigest(prefix + draws[0])
    return max((xxhash.xxh3_64_intdigest(prefix + draw) for draw in draws), default=0)


class PlacementGroup:
    """A database's group as placement sees it: worked out once, then asked about any number of its tasks."""

    def __init__(self, record: Record, database: Database) -> None:
        self._record = record
        self._database = database
        topology = database.topology
        states: dict[str, NodeState] = dict.fromkeys(topology.promotables, "Promotable")
        states |= dict.fromkeys(topology.rehabs, "Rehab")
        states |= dict.fromkeys(topology.members, "Member")
        self._states = dict(sorted(states.items()))
        self._draws = {tag: _draws(tag, self._weight(tag)) for tag in self._states}
        self._ruled_out: dict[tuple[str, tuple[str, ...]], dict[str, str | None]] = {}
        self._eligible: dict[tuple[str, tuple[str, ...], bool], list[tuple[str, tuple[bytes, ...]]]] = {}

    def place(self, task: Task) -> tuple[str | None, Rule]:
        """The node that is responsible for the task, by the first rule that answers; total and deterministic."""
        if held_back(task):
            return None, "HeldBack"
        placed = self._by_mentor(task) or self._by_history(task)
        if placed is not None:
            return placed
        best, best_score = None, -1
        prefix = task.key.to_bytes(8, "little")
        for tag, draws in self._candidates(task):
            drawn = _best_draw(prefix, draws)
            if drawn > best_score:
                best, best_score = tag, drawn
        if best is not None:
            return best, "Hash"
        return None, "NoRunner" if _NO_RUNNER in self.ruled_out(task).values() else "NoMember"

    def placement(self, task: Task) -> Placement:
        """The node that is responsible for the task, the rule that named it, and the whole group's ranking."""
        node, rule = self.place(task)
        return Placement(node=node, rule=rule, ranking=self.rank(task))

    def rank(self, task: Task) -> tuple[RankedNode, ...]:
        """Every node of the group by descending score (ties by tag), each with what rules it out, if anything."""
        reasons = self.ruled_out(task)
        ranked = (
            RankedNode(node=tag, state=state, score=score(task.key, tag, self._weight(tag)), ruled_out=reasons[tag])
            for tag, state in self._states.items()
        )
        return tuple(sorted(ranked, key=lambda r: (-r.score, r.node)))

    def _weight(self, tag: str) -> int:
        node = self._record.nodes.get(tag)
        return node.weight if node else 1

    def ruled_out(self, task: Task) -> dict[str, str | None]:
        """What rules each node out for tasks of this kind with these requirements."""
        what = (task.kind, task.requires)
        if what not in self._ruled_out:
            nodes = self._record.nodes
            self._ruled_out[what] = {
                tag: _ruled_out(self._database, task, nodes.get(tag), state) for tag, state in self._states.items()
            }
        return self._ruled_out[what]

    def _candidates(self, task: Task) -> list[tuple[str, tuple[bytes, ...]]]:
        """The nodes between which the score decides, by tag, so that the first of equals wins."""
        what = (task.kind, task.requires, task.traits.resource_heavy)
        if what not in self._eligible:
            tags = [tag for tag, reason in self.ruled_out(task).items() if reason is None]
            if task.traits.resource_heavy and len(tags) > 1:
                tags = [tag for tag in tags if tag != self._database.topology.members[0]]
            self._eligible[what] = [(tag, self._draws[tag]) for tag in tags]
        return self._eligible[what]

    def _by_mentor(self, task: Task) -> tuple[str, Rule] | None:
        mentor = task.mentor
        if mentor is None or mentor not in self._states or mentor in self._database.deletion_in_progress:
            return None
        if task.pinned:
            return mentor, "PinnedMentor"
        return (mentor, "Mentor") if self.ruled_out(task)[mentor] is None else None

    def _by_history(self, task: Task) -> tuple[str, Rule] | None:
        # A mentor that is lost must not keep its node from being filled: an update is no task of a user's.
        keeps_last = not self._record.highly_available_tasks and task.kind != UPDATE_KIND
        if not keeps_last and not task.traits.sticky:
            return None
        claim = last_claim(self._record, self._database, task)
        if claim is None or claim.tag not in self._states or claim.tag in self._database.deletion_in_progress:
            return None
        if keeps_last:
            return claim.tag, "LicenceKeepsLast"
        reason = self.ruled_out(task)[claim.tag]
        stays = reason is None or (reason == "Rehab" and not self._grace_ended(claim))
        return (claim.tag, "StickyHolder") if stays else None

    def _grace_ended(self, claim: Claim) -> bool:
        """Whether the observer has ended the grace of this stay in Rehab, and not of an earlier one."""
        since_ms = self._record.observer.in_rehab_since(self._database.name, claim.tag)
        return claim.grace_ended and claim.grace_since_ms == since_ms


def held_back(task: Task) -> bool:
    """Whether runs of the task have ended so many nodes that it would end the next one too. It stays so until it is
    edited or enabled by hand."""
    return len(task.endings) >= ENDINGS_MAX


def responsible_node(record: Record, database: Database, task: Task) -> Placement:
    """Where the task is placed; whoever asks about many tasks of a database shares one `PlacementGroup`."""
    return PlacementGroup(record, database).placement(task)


def update_task(record: Record, database: Database, tag: str) -> Task:
    """The synthetic task in which one mentor fills the Promotable `tag`, or a Rehab is measured against its mentor."""
    node = record.nodes.get(tag)
    return Task(
        id=0,
        name=tag,
        kind=UPDATE_KIND,
        key=task_key(UPDATE_KIND, tag, node.url if node else "", fold(database.name)),
        mentor=database.topology.predefined_mentors.get(tag),
        configuration=OF_REHAB if tag in database.topology.rehabs else b"{}",
    )


def updated(database: Database) -> tuple[str, ...]:
    """The nodes that a mentor updates: every Promotable, and each Rehab that stays and is not known to be lost. One
    that is lost needs no mentor, and a task for each database of a node would come at a bad time."""
    topology = database.topology
    rehabs = (tag for tag in topology.rehabs if tag not in database.deletion_in_progress)
    heard = (tag for tag in rehabs if topology.promotables_status.get(tag) != "NotResponding")
    return (*topology.promotables, *heard)


def mentor_of(record: Record, database: Database, tag: str) -> str | None:
    """The mentor of a Promotable or Rehab: the predefined one if it is a Member, else by hash over the Members."""
    return PlacementGroup(record, database).place(update_task(record, database, tag))[0]


def tasks_of(record: Record, database: Database) -> Sequence[Task]:
    """Every task of the database: the ongoing tasks by id, then the updates of Promotables and Rehabs."""
    ongoing = sorted(database.tasks.values(), key=lambda t: t.id)
    return [*ongoing, *(update_task(record, database, tag) for tag in updated(database))]


def task_named(record: Record, database: Database, kind: str, name: str) -> Task | None:
    """The database's task of that kind and name, the updates of Promotables and Rehabs among them."""
    if kind == UPDATE_KIND:
        tag = name.upper()
        return update_task(record, database, tag) if tag in updated(database) else None
    task = database.task_named(name)
    return task if task is not None and task.kind == kind else None


def task_of(record: Record, key: str) -> tuple[Database, Task] | None:
    """The task of that claim key, with its database, if there is one."""
    folded, kind, name = key.split("/", 2)
    database = record.databases.get(folded)
    if database is None:
        return None
    task = task_named(record, database, kind, name)
    return None if task is None else (database, task)


def last_claim(record: Record, database: Database, task: Task) -> Claim | None:
    """The task's last granted claim, whatever became of it."""
    return record.claims.get(database.claim_key(task))


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
