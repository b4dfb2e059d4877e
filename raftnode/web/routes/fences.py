"""The destination's side of the fence of RavenDB ETL: a run makes itself known before it reads how far the task is."""

import msgspec
from aiohttp import web

from raftnode.documents.store.fencing import FencedRequest, FenceToken
from raftnode.foundation.decoding import from_json
from raftnode.web.requests import INTEGER_MAX, Input, answer, body
from raftnode.web.services import SERVICES
from raftnode.web.stores import store_to_write
from raftnode.web.views.documents import FenceView


class FenceInput(Input, frozen=True, kw_only=True):
    """A request of an ETL task, see `fencing.FenceToken`; `progress` is an object that is the task's own."""

    source: str
    task: int
    epoch: int
    sequence: int
    progress: msgspec.Raw = msgspec.Raw()

    def __post_init__(self) -> None:
        for name in ("task", "epoch", "sequence"):
            if not 0 <= getattr(self, name) <= INTEGER_MAX:
                raise ValueError(f"{name.capitalize()} must be from 0 to {INTEGER_MAX}")
        if bytes(self.progress) not in (b"", b"null") and not bytes(self.progress).startswith(b"{"):
            raise ValueError("Progress must be an object")

    def request(self) -> FencedRequest:
        """The same for the store."""
        token = FenceToken(self.source, self.task, self.epoch, self.sequence)
        given = bytes(self.progress)
        return FencedRequest(token=token, progress=given if given.startswith(b"{") else None)


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.post("/databases/{database}/etl/fence", pass_fence)]


async def pass_fence(request: web.Request) -> web.Response:
    """Notes a request of an ETL task and tells how far the task is in this copy; 409 if a newer one has been here."""
    store = await store_to_write(request)
    known = await store.pass_fence((await body(request, FenceInput)).request())
    services = request.app[SERVICES]
    return answer(
        FenceView(
            cluster_id=services.replica.record.cluster_id,
            database=store.database,
            database_id=store.database_id,
            node_tag=services.tag,
            epoch=known.epoch,
            sequence=known.sequence,
            progress=from_json(known.progress) if known.progress else None,
        )
    )
