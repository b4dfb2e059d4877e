"""Consensus as the rest of the daemon sees it: propose opaque commands, read roles and indexes, change the membership.

`Raft` puts the engine on the event loop: it ticks it, carries its messages over the transport, and turns proposals
into coroutines.
"""

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from raftnode.consensus.engine import Engine, EngineEnvironment, RequestRefused, Storage, open_storage
from raftnode.consensus.model import (
    Add,
    ApplyFailed,
    Change,
    ConsensusFailed,
    JournalFailed,
    NotCommitted,
    OutcomeUnknown,
    Peer,
    Proposed,
    RaftConfig,
    RaftStatus,
    Remove,
    Role,
    StateMachine,
    StorageDamaged,
)
from raftnode.consensus.proposals import (
    BarrierRequest,
    CommandRequest,
    ProposalTracker,
    TransferRequest,
    change_request,
)
from raftnode.consensus.storage.disk import Disk, SystemDisk
from raftnode.consensus.transport.raft_channel import PROPOSAL_CHANNEL, RAFT_CHANNEL, RaftWire, TransportPort
from raftnode.foundation.background import watched
from raftnode.foundation.ports import Clock, Random, SystemClock, SystemRandom

__all__ = [
    "Add",
    "ApplyFailed",
    "Change",
    "ConsensusFailed",
    "JournalFailed",
    "NotCommitted",
    "OutcomeUnknown",
    "Peer",
    "Proposed",
    "Raft",
    "RaftConfig",
    "RaftStatus",
    "Remove",
    "Role",
    "StateMachine",
    "StorageDamaged",
    "TransportPort",
]

log = structlog.get_logger(__name__)

TICK_MS_MAX = 250
WATCH_S = 1.0


class Raft:
    """One node of the cluster. Everything is called on the event loop that `start` ran on."""

    def __init__(
        self,
        *,
        tag: str,
        peers: Sequence[Peer],
        transport: TransportPort,
        machine: StateMachine,
        config: RaftConfig,
        clock: Clock | None = None,
        random: Random | None = None,
        disk: Disk | None = None,
    ) -> None:
        if tag not in {peer.tag for peer in peers}:
            raise ValueError(f"peers ({', '.join(peer.tag for peer in peers)}) must contain this node, {tag}.")
        self.tag = tag
        self.on_role_change: list[Callable[[Role, int], None]] = []
        """Called with the raw role and the term after a tick that changed either."""
        self.on_wiped: list[Callable[[str], None]] = []
        """Called with the reason when this node threw its log and state away to take the leader's."""
        self.on_fatal: list[Callable[[ConsensusFailed], None]] = []
        """Called when this node can take no further part: the daemon must end, and say why."""
        self._first_peers = tuple(peers)
        self._first_status = RaftStatus(
            peers=self._first_peers, voters=frozenset(peer.tag for peer in peers if peer.voter)
        )
        self._engine: Engine | None = None
        self._transport = transport
        self._machine = machine
        self._config = config
        self._clock = clock or SystemClock()
        self._random = random or SystemRandom()
        self._disk = disk or SystemDisk()
        self._proposals = ProposalTracker(
            lambda: self._running(),
            lambda to, payload: transport.send(to, PROPOSAL_CHANNEL, payload),
            lambda to: self._begin_hand_over(to),
            machine.refuses,
            config.proposal_timeout_ms,
        )
        self._tick_s = min(TICK_MS_MAX, max(1, config.append_period_ms // 2)) / 1000
        self._timer: asyncio.TimerHandle | None = None
        self._scheduled_tick: asyncio.Handle | None = None
        self._seen: tuple[Role, int, str | None] = ("Follower", 0, None)
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waiters = 0
        self._joined = False
        self._ticked = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None

    @property
    def status(self) -> RaftStatus:
        """What this node is to the cluster, as the engine published it last. Before the start: a follower of nobody."""
        return self._engine.status if self._engine else self._first_status

    def votes_granted(self, term: int) -> dict[str, int]:
        """Who voted for this node in `term`, itself included, with `Clock.elapsed_upper_ns` as it was when the vote was
        asked for: no voter granted before that moment. Empty for a term in which this node did not stand."""
        return self._engine.votes_granted(term) if self._engine else {}

    # life

    async def start(self) -> None:
        """Opens the directory, restores the state machine, and takes part. Raises ConsensusFailed."""
        empty_state = list(self._machine.dump()())
        storage = await asyncio.to_thread(self._open)
        self._loop = asyncio.get_running_loop()
        environment = EngineEnvironment(
            self._machine, self._config, self._clock, self._random, RaftWire(self._transport), self._offload, self
        )
        self._engine = Engine(self.tag, self._first_peers, storage, empty_state, environment)
        self.members_changed()
        self._transport.on_message(RAFT_CHANNEL, self._engine.receive)
        self._transport.on_message(PROPOSAL_CHANNEL, self._proposals.receive)
        self._transport.on_connection.append(self._connection)
        # Peers may have dialed this node while its directory was being read.
        for tag in sorted(self._transport.connected_tags()):
            self._connection(tag, True)
        self._on_timer()
        self._watch = watched(self._watch_files(self._engine), "watch over raft's files", self._defect, may_end=True)

    async def _watch_files(self, engine: Engine) -> None:
        """Ends this node when a file is gone that it rests on, or another is in its place. An open file is written and
        synced all the same, and would be missed at the next start."""
        while engine.status.failure is None:
            await asyncio.sleep(WATCH_S)
            gone = await asyncio.to_thread(self._disk.missing, engine.files)
            # What is gone for a reason, as the journal was cut meanwhile, is not asked for any more.
            gone = [path for path in gone if path in engine.files]
            if gone and engine.status.failure is None:
                engine.fail(
                    StorageDamaged(
                        f"{gone[0]} was deleted or replaced under this node ({len(gone)} files of its log are gone): "
                        "what it acknowledges would be lost. Remove the node from the cluster and let it join again "
                        "with an empty directory, or restore the directory from this node's backup."
                    )
                )

    def _open(self) -> Storage:
        storage = open_storage(self._disk, self._config, self._first_peers)
        if storage.description is not None:
            self._machine.restore(storage.snapshots.chunks())
        return storage

    async def stop(self) -> None:
        """Takes no further part; the files are closed when this returns. Proposals in flight end as unknown."""
        if self._engine is None:
            return
        for handle in (self._timer, self._scheduled_tick):
            if handle is not None:
                handle.cancel()
        self._timer = self._scheduled_tick = None
        self._fail_waiters("Raft was stopped.")
        self._transport.on_connection.remove(self._connection)
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)  # `watched` has told what failed
        self._engine.close()

    # doing

    async def propose(self, command: bytes, *, timeout_ms: int | None = None) -> Proposed:
        """Has the command appended, committed and applied, and gives this node's own answer to it. One attempt, from
        any node.

        Raises NotCommitted (certainly not applied) or OutcomeUnknown (perhaps applied, now or later).
        """
        if len(command) > self._config.command_bytes_max:
            limit = self._config.command_bytes_max
            raise NotCommitted(
                f"The command of {len(command)} bytes is above the limit of {limit} (command_bytes_max)."
            )
        return await self._proposals.submit(CommandRequest(command), timeout_ms)

    async def propose_here(self, command: bytes, *, term: int, timeout_ms: int | None = None) -> Proposed:
        """Like `propose`, but only if this node leads exactly `term` at the moment of the append. Never forwarded."""
        return await self._proposals.submit(CommandRequest(command), timeout_ms, term=term)

    async def change_membership(self, change: Change, command: bytes, *, timeout_ms: int | None = None) -> Proposed:
        """Changes the membership and applies `command` by one log entry. One change at a time; raises like `propose`.

        A node becomes a voter by `Add` with `voter=True` once it is a watcher that has caught up; before that it is
        refused with NotCommitted. The leader refuses to remove or demote itself.
        """
        return await self._proposals.submit(change_request(change, command), timeout_ms)

    async def barrier(self, *, timeout_ms: int | None = None) -> int:
        """Commits an entry that changes nothing and returns its index once this node has applied it: from here on
        this node's state contains everything that was acknowledged anywhere before the call."""
        return (await self._proposals.submit(BarrierRequest(), timeout_ms)).index

    async def transfer_leadership(self, tag: str | None, *, timeout_ms: int | None = None) -> None:
        """Hands the leadership to `tag`, or to the most advanced voter, and returns once this node knows the new
        leader. Raises NotCommitted when it does not come to that in time; the old leader then goes on."""
        before = self.status.leader
        if tag is not None and before == tag:
            return
        try:
            async with asyncio.timeout((self._config.proposal_timeout_ms if timeout_ms is None else timeout_ms) / 1000):
                if self.status.leads:
                    self._begin_hand_over(tag)
                else:
                    # Whether the leader has heard it shows below, in who leads.
                    with contextlib.suppress(OutcomeUnknown):
                        await self._proposals.ask_leader(TransferRequest(tag))
                while (leader := self.status.leader) in (None, before) or (tag is not None and leader != tag):
                    await self._ticked.wait()
        except RequestRefused as refused:
            raise NotCommitted(f"The leadership is not transferred: {refused}.") from None
        except TimeoutError:
            raise NotCommitted(f"The leadership was not transferred to {tag or 'another voter'} in time.") from None

    async def wait_applied(self, index: int, timeout_ms: int) -> None:
        """Returns once this node has applied `index`. Raises TimeoutError, or OutcomeUnknown when Raft stops."""
        if self.status.applied_index >= index:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters += 1
        heapq.heappush(self._waiting, (index, self._waiters, future))
        async with asyncio.timeout(timeout_ms / 1000):
            await future

    def step_down(self, term: int | None = None) -> None:
        """Stops leading at once: this node has no authority any more, or somebody reported the newer `term`."""
        self._running().step_down(term)
        self._notice()

    def take_snapshot(self) -> None:
        """Starts writing a snapshot now, whatever the size of the journal. The engine decides that by itself; this is
        for those who need one at a certain moment: the simulator's operators, and the makers of fixtures."""
        self._running().snapshot()

    # what the engine tells

    def schedule_tick(self) -> None:
        if self._scheduled_tick is None and self._timer is not None:
            self._scheduled_tick = self._loop.call_soon(self._on_scheduled_tick)

    def applied(self, index: int, term: int, answer: Any) -> None:
        self._proposals.applied(index, term, answer)
        if not self._joined:
            self.members_changed()

    def jumped(self, index: int) -> None:
        self._proposals.jumped(index)

    def members_changed(self) -> None:
        engine = self._engine
        if engine is not None:
            # A node that has applied nothing may have to wait until it is added; any other that nobody knows was
            # removed. Index 1 stands for the first peers.
            self._joined = engine.status.last_index > 1
            index = max(engine.applied_members[0], 1 if self._joined else 0)
            self._transport.set_peers({peer.tag: peer.address for peer in engine.contacts()}, index)

    def wiped(self, reason: str) -> None:
        for callback in self.on_wiped:
            self._loop.call_soon(callback, reason)

    def failed(self, error: ConsensusFailed) -> None:
        self._fail_waiters(str(error))
        for callback in self.on_fatal:
            self._loop.call_soon(callback, error)

    # inside

    def _running(self) -> Engine:
        if self._engine is None:
            raise NotCommitted("Raft has not been started.")
        return self._engine

    def _connection(self, tag: str, up: bool) -> None:
        self._running().connected(tag, up)
        if not up and tag == self.status.leader:
            self._proposals.leader_lost(None)

    def _on_timer(self) -> None:
        self._timer = self._loop.call_later(self._tick_s, self._on_timer)
        self._tick()

    def _on_scheduled_tick(self) -> None:
        self._scheduled_tick = None
        self._tick()

    def _tick(self) -> None:
        self._running().tick()
        self._notice()

    def _notice(self) -> None:
        """Tells of what changed; outside of every transition."""
        status = self._running().status
        # Wakes all who wait at this moment; whoever waits later waits for the next tick.
        self._ticked.set()
        self._ticked.clear()
        while self._waiting and self._waiting[0][0] <= status.applied_index:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)
        seen = (status.role, status.term, status.leader)
        before, self._seen = self._seen, seen
        if seen[2] != before[2]:
            log.info(f"{seen[2]} leads now." if seen[2] else "No leader is known.", term=seen[1], role=seen[0])
            self._proposals.leader_lost(seen[2])
        if seen[:2] != before[:2]:
            log.info(f"This node is {seen[0]} in the consensus.", term=seen[1])
            for callback in self.on_role_change:
                callback(seen[0], seen[1])

    def _begin_hand_over(self, tag: str | None) -> None:
        engine = self._running()
        if engine.handing_over:
            raise RequestRefused("the leadership is being transferred already")
        engine.check_transfer_target(tag)
        self._begin(self._hand_over(engine, tag), "hand-over")

    async def _hand_over(self, engine: Engine, tag: str | None) -> None:
        """Takes no commands until the follower holds the whole log and was told, or the time is up."""
        engine.handing_over = True
        reason = "it did not stand for election"
        told = False
        try:
            async with asyncio.timeout(self._config.election_max_ms / 1000):
                while engine.status.leads:
                    try:
                        if not told:
                            log.info("The leadership is handed over.", to=engine.transfer_leadership(tag))
                            told = True
                    except RequestRefused as refused:
                        reason = str(refused)
                    await self._ticked.wait()
        except TimeoutError:
            log.warning("The leadership stays, as the other node did not take it in time.", to=tag, reason=reason)
        finally:
            engine.handing_over = False

    def _offload(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        async def run() -> None:
            try:
                outcome = await asyncio.to_thread(work)
            except Exception as error:
                outcome = error
            done(outcome)

        self._begin(run(), "raft's heavy work")

    def _defect(self, error: Exception) -> None:
        self.failed(ConsensusFailed(f"A part of Raft failed ({error!r}); see the log. Start the node again."))

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = watched(work, name, self._defect, may_end=True)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _fail_waiters(self, reason: str) -> None:
        self._proposals.fail_all(reason)
        for _, _, future in self._waiting:
            if not future.done():
                future.set_exception(OutcomeUnknown(reason))
        self._waiting.clear()
