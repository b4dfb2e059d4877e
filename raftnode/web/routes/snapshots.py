"""The cluster's record as a file, of a node that runs: what `raftnode snapshot restore` begins a cluster from."""

import asyncio
from collections.abc import Iterator

from aiohttp import web

from raftnode.cluster.replica import Replica
from raftnode.consensus.raft import NotCommitted, OutcomeUnknown, Raft
from raftnode.consensus.storage.snapshot import SnapshotDescription, encoded
from raftnode.web.errors import ApiError
from raftnode.web.requests import Query
from raftnode.web.services import SERVICES


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.get("/admin/cluster/snapshot", save)]


async def save(request: web.Request) -> web.StreamResponse:
    """The record with all that was acknowledged anywhere before the request; with `local=true` what this node has
    applied, which it gives without a leader too."""
    services = request.app[SERVICES]
    pieces = await saved(services.raft, services.replica, local=Query(request).flag("local", False))
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    while piece := await asyncio.to_thread(next, pieces, b""):
        await response.write(piece)
    await response.write_eof()
    return response


async def saved(raft: Raft, replica: Replica, *, local: bool) -> Iterator[bytes]:
    """The file, piece by piece, of the moment at which this returns. Raises ApiError."""
    if not local:
        try:
            await raft.barrier()
        except (NotCommitted, OutcomeUnknown) as error:
            message = f"{error} Try again, or take what this node has applied: local=true (--local)."
            raise ApiError("NoLeaderException", message) from None
    if not replica.record.nodes:
        raise ApiError("NoLeaderException", "This node is in no cluster yet; there is nothing to save.")
    # No await between these: they are of one moment.
    status = raft.status
    about = SnapshotDescription(status.applied_index, status.applied_term, status.peers, status.applied_index)
    return encoded(about, replica.dump()())
