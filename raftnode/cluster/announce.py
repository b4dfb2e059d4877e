"""How a cluster begins, and how a node makes itself known in it.

A node without data starts Raft among `cluster.initial_nodes`; whoever leads first writes that list into the record as
the cluster's nodes. From then on the record rules. Every node that starts announces its incarnation, its addresses and
the task kinds it can run. One that has moved to another address then has Raft's membership say so too, by which the
others dial it: two nodes that have moved would not find each other otherwise. A node that joined as a Promotable asks
to be a voter once it has applied its own announcement, hence all that was committed before: an empty voter would make
votes wait for it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from raftnode.cluster.replica import Replica, Unavailable
from raftnode.consensus.raft import Add, Peer, Raft
from raftnode.record.commands import AnnounceNode, FormCluster, SetNodeKind
from raftnode.record.model import Record

log = structlog.get_logger(__name__)

REMOVED_POLL_S = 0.5


class NodeRefused(Exception):
    """The cluster does not take this node; the message says why and what to do."""


class Announcer:
    """Forms the cluster if this node is the first to lead it, then announces the node."""

    def __init__(
        self,
        replica: Replica,
        raft: Raft,
        form: FormCluster,
        announcement: AnnounceNode,
        removed: Callable[[], bool] = lambda: False,
    ) -> None:
        """`removed`: whether another node has said that the cluster goes on without this one."""
        self._removed = removed
        self._replica = replica
        self._raft = raft
        self._form = form
        self._announcement = announcement
        self._role_changed = asyncio.Event()
        raft.on_role_change.append(lambda role, term: self._role_changed.set())

    async def run(self) -> None:
        """Returns once the record knows this incarnation. Raises NodeRefused."""
        await self._formed()
        await self._replica.until(lambda record: self._announcement.tag in record.nodes)
        while not self._announced(self._replica.record):
            if self._removed():
                # Said when it was learnt. Whoever is let in again goes on.
                await asyncio.sleep(REMOVED_POLL_S)
            else:
                await self._announce()
        while (peer := self._moved()) is not None:
            await self._move(peer)
        while self._is_promotable(self._replica.record):
            await self._become_voter()

    async def _formed(self) -> None:
        while not self._replica.record.nodes:
            self._role_changed.clear()
            if self._raft.status.role == "Leader":
                await self._propose_forming()
                continue
            waiters = (self._replica.until(lambda record: bool(record.nodes)), self._role_changed.wait())
            tasks = [asyncio.ensure_future(waiter) for waiter in waiters]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)  # both only wait: they end by being cancelled

    async def _propose_forming(self) -> None:
        try:
            await self._replica.propose(self._form)
            tags = ", ".join(node.tag for node in self._form.nodes)
            log.info("The cluster is formed, as the record was empty.", cluster_id=self._form.cluster_id, nodes=tags)
        except Unavailable as error:
            log.info("The cluster could not be formed; it is tried again.", reason=str(error))

    def _announced(self, record: Record) -> bool:
        node, mine = record.nodes.get(self._announcement.tag), self._announcement
        return node is not None and (
            (node.node_id, node.boot, node.nonce, node.url, node.cluster_address, node.kinds)
            == (mine.node_id, mine.boot, mine.nonce, mine.url, mine.cluster_address, mine.kinds)
        )

    async def _announce(self) -> None:
        try:
            result = await self._replica.propose(self._announcement)
        except Unavailable as error:
            if not self._removed():
                log.info("This node could not be announced; it is tried again.", reason=str(error))
            return
        if result.error is not None:
            raise NodeRefused(result.error.message)

    def _moved(self) -> Peer | None:
        """This node as the membership should know it; None if it does. Asked once the announcement is applied: a log
        that lags may not know yet that this node votes no longer."""
        known = next((peer for peer in self._raft.status.peers if peer.tag == self._announcement.tag), None)
        if known is None or known.address == self._announcement.cluster_address:
            return None
        return replace(known, address=self._announcement.cluster_address, node_id=self._announcement.node_id)

    async def _move(self, peer: Peer) -> None:
        try:
            result = await self._replica.change_membership(Add(peer), self._announcement)
        except Unavailable as error:
            log.info("The others could not be told this node's new address; it is tried again.", reason=str(error))
            return
        if result.error is not None:
            raise NodeRefused(result.error.message)
        log.info("The others know this node at its new address, as it has moved.", address=peer.address)

    def _is_promotable(self, record: Record) -> bool:
        node = record.nodes.get(self._announcement.tag)
        return node is not None and node.kind == "Promotable"

    async def _become_voter(self) -> None:
        mine = self._announcement
        peer = Peer(mine.tag, mine.cluster_address, voter=True, node_id=mine.node_id)
        try:
            result = await self._replica.change_membership(Add(peer), SetNodeKind(tag=mine.tag, kind="Member"))
        except Unavailable as error:
            log.info("This node could not become a voter; it is tried again.", reason=str(error))
            return
        if result.error is not None:
            raise NodeRefused(result.error.message)
        log.info("This node is a voter now, as it has caught up.")
