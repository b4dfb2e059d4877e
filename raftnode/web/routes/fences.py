"""The destination's side of the fence of RavenDB ETL: a run makes itself known before it reads how far the task is."""

import msgspec
from aiohttp import web

from raftnode.documents.store.fencing import FencedRequest, FenceToken
from raftnode.documents.store.store import DocumentStore
from raftnode.web.errors import ApiError
from raftnode.web.requests import INTEGER_MAX, Input, answer, body
from raftnode.web.services import SERVICES
from raftnode.web.stores import store_to_write
from raftnode.web.views.documents import FenceView

SOURCE_LENGTH_MAX = 512
"""It stands in each version that the task writes."""


class FenceInput(Input, frozen=True, kw_only=True):
    """A request of an ETL task, see `fencing.FenceToken`; `progress` is an object that is the task's own."""

    source: str
    task: int
    epoch: int
    sequence: int
    progress: msgspec.Raw = msgspec.Raw()

    def __post_init__(self) -> None:
        if not 0 < len(self.source) <= SOURCE_LENGTH_MAX:
            raise ValueError(f"Source must have from 1 to {SOURCE_LENGTH_MAX} characters")
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


class FencedBatchInput(FenceInput, frozen=True, kw_only=True):
    """The same with documents. `database_id` is the copy's in which the task's progress was read."""

    database_id: str

    def check_copy(self, store: DocumentStore) -> None:
        """Refuses what was made for another copy, which was here before, or is elsewhere: this one may lack what the
        progress counts."""
        if self.database_id != store.database_id:
            message = (
                f"The request was made for the copy {self.database_id[:40]!r} of database '{store.database}', and this "
                f"is {store.database_id}. Make the run known here, and go on from the progress that this copy has."
            )
            raise ApiError("ConcurrencyException", message, details={"DatabaseId": store.database_id})


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
            progress=msgspec.Raw(known.progress) if known.progress else None,
        )
    )
