"""A randomised model of a cluster that runs one task under the real lease: small Raft, bad network, bad
clocks.

Time goes in steps of 10 ms of true time; the nodes' clocks run as far apart as `raftnode.foundation.clock_margins`
allows. Raft is reduced to terms, votes and whole logs; claims, sessions and voids follow the rules of the record.
Bodies stop as late as they may. The things checked are that no two bodies exist at once and that no claim is
void while its body lives, whatever the network, pauses, crashes and elections do.

A node's directory may be copied, and a second process started on the copy, as a later start or as the same one: both
run under one tag, hear the leader, report and claim. In Raft, and for the leader's authority, only the first one
counts: two processes that both vote as one voter break any Raft (docs/guarantees.md, Assumptions).
"""

import random
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from config.timings import rehab_ms_min
from raftnode import lease as rules
from raftnode.lease import Incarnation, LeaseState, Now, RaftView
from raftnode.record.model import Timings
from tests.clocks import FASTEST, SLOWEST

STEP_MS = 10
MS = 1_000_000
TIMINGS = Timings(
    heartbeat_ms=40, lease_ms=800, task_stop_timeout_ms=100, time_before_moving_to_rehab_ms=rehab_ms_min(800, 100)
)
STOP_NS = TIMINGS.task_stop_timeout_ms * MS
ELECTION_MS = (100, 200)
RATES = (SLOWEST, 1.0, FASTEST)


class Broken(Exception):
    """Two bodies of the task existed at once, or a claim was void while its body lived."""


@dataclass(frozen=True)
class ModelClaim:
    holder: str
    process: Incarnation
    session: int
    epoch: int
    held: bool = True


@dataclass
class ModelRecord:
    """What the log has made of the task: who should run it and who claims it."""

    tags: str
    preferred: str
    claim: ModelClaim | None = None
    incarnations: dict[str, Incarnation] = field(default_factory=dict)
    demoted: set[str] = field(default_factory=set)

    def responsible(self) -> str | None:
        order = self.preferred + self.tags
        return next((tag for tag in order if tag not in self.demoted), None)

    def apply(self, index: int, term: int, command: tuple[Any, ...]) -> None:
        match command:
            case ("announce", tag, process):
                if tag not in self.incarnations or process.boot > self.incarnations[tag].boot:
                    self.incarnations[tag] = process
            case ("claim", tag, process, session) if tag == self.responsible():
                held = self.claim if self.claim and self.claim.held else None
                if self.incarnations.get(tag) == process and (held is None or self.again(held, process, session)):
                    self.claim = ModelClaim(tag, process, session, index)
            case ("release", epoch) if self.claim and self.claim.epoch == epoch:
                self.claim = ModelClaim(**{**vars(self.claim), "held": False})
            case ("void" | "void and demote" as kind, tag, epoch, decided) if decided == term:
                if kind != "void":
                    self.demoted.add(tag)
                if self.claim and self.claim.epoch == epoch:
                    self.claim = ModelClaim(**{**vars(self.claim), "held": False})
            case ("promote", tag):
                self.demoted.discard(tag)
            case ("prefer", tag):
                self.preferred = tag

    def again(self, held: ModelClaim, process: Incarnation, session: int) -> bool:
        """Whether it claims over a claim of its own, of an earlier session."""
        return held.process == process and held.session < session


@dataclass
class ModelBody:
    epoch: int
    session: int
    end_ns: int | None = None


class ModelNode:
    """A node: its clock, its Raft, its lease and its supervisor. What is on its disk survives `start`."""

    def __init__(self, tag: str, world: "ModelWorld", copied: "ModelNode | None" = None) -> None:
        self.tag, self.world = tag, world
        self.copied = copied is not None
        self.rate = world.chance.choice(RATES)
        self.boot = self.term = 0
        self.voted: str | None = None
        self.log: tuple[tuple[int, tuple[Any, ...]], ...] = ()
        self.down_until = self.paused_until = 0
        if copied is not None:
            self.boot, self.term, self.voted, self.log = copied.boot, copied.term, copied.voted, copied.log
        self.start()

    def start(self) -> None:
        self.boot += 1
        self.started = self.world.step
        self.process = Incarnation(self.boot, self.nonce())
        self.lease: LeaseState = rules.new_lease(self.tag, *self.process)
        self.record = ModelRecord(self.world.tags, self.world.tags[-1])
        self.role = "Follower"
        self.leader: str | None = None
        self.until_ns = 0
        self.commit = self.applied = self.noop = self.lag_until = 0
        self.votes: dict[str, int] = {}
        self.match: dict[str, int] = {}
        self.inbox: list[tuple[str, tuple[Any, ...]]] = []
        self.body: ModelBody | None = None
        self.ended: set[int] = set()
        self.next_beat = self.next_proposal = self.next_announcement = 0
        self.wait()

    def nonce(self) -> int:
        """What no other process has."""
        return 1 + self.world.chance.getrandbits(32)

    # ---- clock and view

    @property
    def ns(self) -> int:
        return int((self.world.step - self.started) * STEP_MS * MS * self.rate)

    def now(self) -> Now:
        return Now(self.ns, self.ns, self.ns // MS)

    def view(self) -> RaftView:
        role: Any = self.role
        if role == "Leader" and self.applied < self.noop:
            role = "LeaderElect"
        return RaftView(
            role=role,
            term=self.term,
            voters=frozenset(self.world.voters),
            peers=frozenset(self.world.tags) - {self.tag},
            applied_index=self.applied,
            commit_index=self.commit,
            timings=TIMINGS,
            votes=self.votes,
            incarnations=self.record.incarnations,
        )

    def wait(self) -> None:
        self.deadline_ns = self.ns + self.world.chance.randint(*ELECTION_MS) * MS

    def send(self, to: str, *message: Any) -> None:
        self.world.send(self.tag, to, message)

    # ---- Raft, in small

    def follow(self, term: int) -> None:
        if term > self.term:
            self.term, self.voted, self.leader = term, None, None
        self.role = "Follower"
        self.wait()

    def campaign(self) -> None:
        self.term += 1
        self.voted, self.role, self.leader = self.tag, "Candidate", None
        self.votes = {self.tag: self.ns}
        self.wait()
        for voter in self.world.voters:
            if voter != self.tag:
                self.send(voter, "ask", self.term, self.log[-1][0] if self.log else 0, len(self.log))

    def lead(self) -> None:
        self.role, self.leader, self.match, self.next_beat = "Leader", self.tag, {}, 0
        self.votes = dict.fromkeys(self.votes, self.votes[self.tag])
        self.append(("noop",))
        self.noop = len(self.log)

    def append(self, command: tuple[Any, ...]) -> None:
        self.log += ((self.term, command),)

    def propose(self, command: tuple[Any, ...]) -> None:
        if self.role == "Leader":
            self.append(command)
        elif self.leader:
            self.send(self.leader, "forward", command)

    def receive(self, sender: str, message: tuple[Any, ...]) -> None:
        match message:
            case ("ask", term, last_term, length):
                if term > self.term:
                    self.follow(term)
                if self.copied:
                    return
                mine = (self.log[-1][0] if self.log else 0, len(self.log))
                if term == self.term and self.voted in (None, sender) and (last_term, length) >= mine:
                    self.voted = sender
                    self.wait()
                    self.send(sender, "vote", term)
            case ("vote", term) if term == self.term and self.role == "Candidate":
                self.votes[sender] = 0
                if len(self.votes) > len(self.world.voters) // 2:
                    self.lead()
            case ("append", term, log, commit):
                self.appended(sender, term, log, commit)
            case ("appended", term, length) if term > self.term:
                self.follow(term)
            case ("appended", term, length) if term == self.term and self.role == "Leader":
                self.match[sender] = max(self.match.get(sender, 0), length)
                known = [len(self.log) if v == self.tag else self.match.get(v, 0) for v in self.world.voters]
                index = sorted(known, reverse=True)[len(known) // 2]
                if index > self.commit and self.log[index - 1][0] == self.term:
                    self.commit = index
            case ("forward", command) if self.role == "Leader":
                self.append(command)
            case ("beat", beat):
                self.lease, report, down = rules.on_beat(self.lease, beat, self.view(), self.now())
                self.obey(down)
                self.send(sender, "report", replace(report, echo=None) if self.copied else report)
            case ("report", report):
                self.lease, down = rules.on_report(self.lease, sender, report, self.view(), self.now())
                self.obey(down)

    def appended(self, sender: str, term: int, log: tuple[Any, ...], commit: int) -> None:
        if term < self.term:
            self.send(sender, "appended", self.term, 0)
            return
        self.follow(term)
        self.leader = sender
        if self.log[: len(log)] != log:
            self.log = log
        self.commit = max(self.commit, min(commit, len(log)))
        if not self.copied:
            self.send(sender, "appended", term, len(log))

    def obey(self, down: Any) -> None:
        if down and self.role == "Leader":
            self.follow(down.term or self.term)

    # ---- one step

    def run(self) -> None:
        self.check()
        inbox, self.inbox = self.inbox, []
        for sender, message in inbox:
            self.receive(sender, message)
        votes = self.tag in self.world.voters and not self.copied
        if self.role != "Leader" and votes and self.ns >= self.deadline_ns:
            self.campaign()
        self.apply()
        self.check()
        self.beat()
        if self.gone_past():
            return
        self.announce()
        if self.lease.authority and self.view().role == "Leader":
            self.observe()
        self.supervise()

    def check(self) -> None:
        self.lease, down = rules.advance(self.lease, self.view(), self.now())
        self.obey(down)
        body, holder = self.body, self.lease.holder
        if body and body.end_ns is None and (not holder.held or holder.session != body.session):
            self.stop(self.until_ns + STOP_NS)
        self.until_ns = holder.until_ns

    def beat(self) -> None:
        if self.ns < self.next_beat or self.role != "Leader":
            return
        self.next_beat = self.ns + TIMINGS.heartbeat_ms * MS
        # In the order of the tags: a set's differs from process to process, and with it everything that chance decides.
        for tag, beat in sorted(rules.beats(self.lease, self.view(), self.now()).items()):
            self.send(tag, "append", self.term, self.log, self.commit)
            self.send(tag, "beat", beat)

    def apply(self) -> None:
        if self.world.step < self.lag_until:
            return
        while self.applied < self.commit:
            term, command = self.log[self.applied]
            self.applied += 1
            self.record.apply(self.applied, term, command)
            self.world.void_of_the_living(self.record.claim, command)
        if self.world.chance.random() < 0.01:
            self.lag_until = self.world.step + self.world.chance.randint(1, 30)

    def announce(self) -> None:
        """Says who it is until the record knows."""
        if self.record.incarnations.get(self.tag) != self.process and self.ns >= self.next_announcement:
            self.next_announcement = self.ns + 8 * STEP_MS * MS
            self.propose(("announce", self.tag, self.process))

    def gone_past(self) -> bool:
        """Whether the record has another process of the node and will never have this one, which ends, late."""
        known = self.record.incarnations.get(self.tag, Incarnation(0, 0))
        if known == self.process or known.boot < self.boot:
            return False
        if self.body and self.body.end_ns is None:
            self.stop(self.until_ns + STOP_NS)
        if self.body and self.body.end_ns is not None and self.ns < self.body.end_ns:
            return True
        self.world.refused(self)
        return True

    def observe(self) -> None:
        claim, now = self.record.claim, self.now()
        if self.ns < self.next_proposal:
            return
        for tag in self.world.tags:
            silent = rules.is_silent(self.lease, tag, now)
            over = claim is not None and claim.held and claim.holder == tag and self.over(claim, now)
            if over or (silent and tag not in self.record.demoted):
                kind = "void and demote" if silent else "void"
                self.append((kind, tag, claim.epoch if claim and over else 0, self.term))
                self.world.voids += 1
                self.next_proposal = self.ns + 5 * STEP_MS * MS
            elif tag in self.record.demoted and not silent:
                self.append(("promote", tag))
                self.next_proposal = self.ns + 5 * STEP_MS * MS

    def over(self, claim: ModelClaim, now: Now) -> bool:
        """Whether the claim may be void."""
        return rules.is_over(self.lease, claim.holder, claim.process, now)

    # ---- the supervisor

    def supervise(self) -> None:
        claim, holder, body = self.record.claim, self.lease.holder, self.body
        mine = claim is not None and claim.held and self.owns(claim)
        if body:
            if body.end_ns is not None and self.ns >= body.end_ns:
                self.body = None
            elif body.end_ns is None and not (mine and claim and claim.epoch == body.epoch):
                self.stop(self.ns + STOP_NS)
            elif body.end_ns is None and self.record.responsible() != self.tag:
                self.stop(self.ns + self.world.chance.randint(0, STOP_NS))
            return
        if not holder.held or self.ns < self.next_proposal:
            return
        current = mine and claim is not None and claim.session == holder.session
        if claim and current and claim.epoch not in self.ended and self.record.responsible() == self.tag:
            self.body = ModelBody(claim.epoch, holder.session)
            self.world.starts += 1
        elif claim and current:
            self.propose_later(("release", claim.epoch))
        elif self.record.responsible() == self.tag and not self.waits_for(claim):
            self.propose_later(("claim", self.tag, self.process, holder.session))
        elif claim and mine:
            self.propose_later(("release", claim.epoch))

    def owns(self, claim: ModelClaim) -> bool:
        """Whether the claim is this very process's."""
        return claim.holder == self.tag and claim.process == self.process

    def waits_for(self, claim: ModelClaim | None) -> bool:
        """Whether the claim must end before this process may have one."""
        return claim is not None and claim.held and not self.owns(claim)

    def stop(self, end_ns: int) -> None:
        assert self.body
        self.ended.add(self.body.epoch)
        self.body.end_ns = min(end_ns, self.lease.holder.until_ns + STOP_NS)

    def propose_later(self, command: tuple[Any, ...]) -> None:
        self.propose(command)
        self.next_proposal = self.ns + 8 * STEP_MS * MS

    def outlived(self) -> bool:
        """Whether the kernel's timer goes off, frozen or not."""
        return self.body is not None and self.ns > self.lease.holder.until_ns + STOP_NS + STEP_MS * MS


class ModelWorld:
    """All nodes, the wire, and what goes wrong. The same seed gives the same trace. `copying`: how often a directory is
    copied in a step, by chance if it is not said."""

    def __init__(self, seed: int, copying: float | None = None) -> None:
        self.chance = random.Random(seed)
        self.voters, self.tags = self.chance.choice(
            [("ABC", "ABCW"), ("ABC", "ABCW"), ("ABCDE", "ABCDE"), ("ABC", "ABC")]
        )
        self.loss = self.chance.choice((0.0, 0.0, 0.02, 0.1))
        self.delay = self.chance.choice((1, 2, 4))
        self.crashes = self.chance.choice((0.0, 0.001))
        self.pauses = self.chance.choice((0.0, 0.002, 0.005))
        self.trouble = self.chance.choice((0.004, 0.01))
        self.step = self.starts = self.voids = 0
        self.cut: set[tuple[str, str]] = set()
        self.wire: dict[int, list[tuple[str, str, tuple[Any, ...]]]] = {}
        self.copying = self.chance.choice((0.0, 0.002)) if copying is None else copying
        self.copies: dict[str, ModelNode] = {}
        self.ended = 0
        self.nodes = {tag: ModelNode(tag, self) for tag in self.tags}

    def send(self, sender: str, to: str, message: tuple[Any, ...]) -> None:
        if (sender, to) not in self.cut and self.chance.random() >= self.loss:
            at = self.step + self.chance.randint(1, self.delay)
            self.wire.setdefault(at, []).append((sender, to, message))

    @property
    def all(self) -> list[ModelNode]:
        """Every process's node; one that was copied has two."""
        return [*self.nodes.values(), *self.copies.values()]

    def processes_of(self, tag: str) -> list[ModelNode]:
        return [holder[tag] for holder in (self.nodes, self.copies) if tag in holder]

    def copy(self, node: ModelNode) -> None:
        """Starts a second process on a copy of the directory. The first one goes on, or is started again from the same
        directory: then both are the same start."""
        self.copies[node.tag] = ModelNode(node.tag, self, node)
        if self.chance.random() < 0.5:
            node.start()

    def refused(self, node: ModelNode) -> None:
        """The process has learned that another one is the node, and ends; whoever it was a copy of may be started
        again, whoever was the copy may not."""
        self.ended += 1
        if node.copied:
            del self.copies[node.tag]
        else:
            self.crash(node)

    def run(self, steps: int) -> None:
        """Goes on for so many steps; raises Broken."""
        for _ in range(steps):
            self.step += 1
            self.go_wrong()
            for sender, to, message in self.wire.pop(self.step, ()):
                for node in self.processes_of(to):
                    node.inbox.append((sender, message))
            for node in self.all:
                self.turn(node)
            running = [f"{n.tag}@{n.body.epoch}" for n in self.all if n.body]
            if len(running) > 1:
                raise Broken(f"step {self.step}: {', '.join(running)}")

    def void_of_the_living(self, claim: ModelClaim | None, command: tuple[Any, ...]) -> None:
        if command[0] == "void" and claim and not claim.held and claim.epoch == command[2]:
            living = [node.tag for node in self.all if node.body and node.body.epoch == claim.epoch]
            if living:
                raise Broken(f"step {self.step}: epoch {claim.epoch} is void and runs on {living[0]}")

    def turn(self, node: ModelNode) -> None:
        if node.down_until:
            node.inbox.clear()
            if self.step >= node.down_until:
                node.down_until = 0
                node.start()
        elif node.outlived():
            self.crash(node)
        elif self.step >= node.paused_until and node in self.all:
            node.run()

    def crash(self, node: ModelNode) -> None:
        node.body, node.down_until = None, self.step + self.chance.randint(1, 60)

    def go_wrong(self) -> None:
        chance = self.chance
        if chance.random() < self.trouble:
            self.cut_somewhere()
        if self.copying and chance.random() < self.copying:
            node = chance.choice(list(self.nodes.values()))
            if node.tag not in self.copies and not node.down_until:
                self.copy(node)
        for node in self.all:
            if not node.down_until and chance.random() < self.crashes:
                self.crash(node)
            elif chance.random() < self.pauses:
                node.paused_until = self.step + chance.randint(1, 80)
        if chance.random() < 0.01:
            leaders = [n for n in self.nodes.values() if n.role == "Leader" and not n.down_until]
            if leaders:
                leaders[0].append(("prefer", chance.choice(self.tags)))

    def cut_somewhere(self) -> None:
        """Heals, or cuts: one node, one direction, two halves, or the old leader with the task's node from a
        majority that elects another at once, which is how a leadership is handed over."""
        chance, tags = self.chance, self.tags
        kind = chance.choice(("heal", "heal", "one", "in", "out", "halves", "lingering", "lingering"))
        runners = [tag for tag, node in self.nodes.items() if node.body]
        one = chance.choice(runners if runners and chance.random() < 0.5 else tags)
        if kind == "lingering":
            self.linger()
            return
        side = {tag for tag in tags if chance.random() < 0.5} if kind == "halves" else {one}
        self.cut = {(a, b) for a in tags for b in tags if (a in side) != (b in side)}
        if kind == "heal":
            self.cut = set()
        elif kind == "in":
            self.cut = {(a, b) for a, b in self.cut if b == one}
        elif kind == "out":
            self.cut = {(a, b) for a, b in self.cut if a == one}

    def linger(self) -> None:
        leader = next((n for n in self.nodes.values() if n.role == "Leader"), None)
        runner = next((n for n in self.nodes.values() if n.body), None)
        if leader is None or runner is None:
            return
        side = {leader.tag, runner.tag}
        others = [self.nodes[tag] for tag in self.voters if tag not in side]
        self.cut = {(a, b) for a in self.tags for b in self.tags if (a in side) != (b in side)}
        successor = self.chance.choice(others) if others else leader
        if successor.role == "Follower" and not successor.down_until and self.step >= successor.paused_until:
            successor.campaign()
