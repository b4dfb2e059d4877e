"""The sink of RavenDB ETL: another cluster's database, reached over HTTP by any of its nodes.

If the destination knows the fence (`raftnode.documents.store.fencing`), a run makes itself known there before it reads
how far the task is, and documents and progress are written in one transaction. Another server takes the same documents
without it: then what was sent may be sent again, and a request that comes late may leave an old version.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import msgspec
import structlog

from raftnode.foundation.decoding import DECODE_ERRORS, from_json
from raftnode.foundation.http_client import HttpClient, HttpError, HttpFailed, Response
from raftnode.foundation.masking import in_text
from raftnode.foundation.names import fold
from tasks.etl.refusals import DocumentRefusal, RefusalCheck
from tasks.kinds.connection_types import RavenConnectionString
from tasks.kinds.registry import RunSuperseded, TaskFailed
from tasks.sinks.documents.commands import DocumentCommands
from tasks.sinks.documents.discovery import reasons

log = structlog.get_logger(__name__)

COMMANDS_MAX = 4_096
REQUEST_BYTES_MAX = 32 << 20
"""A batch that is larger goes in several requests, of which the last one has the progress."""
OPEN_TIMEOUT_S = 15.0
OF_DOCUMENTS = frozenset({400, 409, 413, 415, 422, 501})
"""What a server answers when it does not take some document, and could take others."""

_sequences = itertools.count(1)
"""An epoch is one process's. So whatever its run does, and however often its body begins again, requests of one epoch
are numbered in the order in which they are sent."""


class DestinationFailed(TaskFailed):
    """The destination could not be reached, or refuses all that it is sent."""


class _Refused(Exception):
    """Something in a request is refused by itself."""


class FencedEtl(msgspec.Struct, frozen=True, kw_only=True):
    """Which run of which task writes: the task's cluster, database and id, the log index at which it was created or
    last reset, and the run's epoch."""

    cluster: str
    database: str
    task: int
    generation: int
    epoch: int


class StoredProgress(msgspec.Struct, frozen=True, rename="pascal"):
    """What the destination keeps of a task: progress of the time before a reset does not count."""

    generation: int
    transforms: msgspec.Raw


class _Known(msgspec.Struct, frozen=True, rename="pascal"):
    """The answer of a destination that has the fence."""

    cluster_id: str
    database: str
    database_id: str
    node_tag: str
    progress: msgspec.Raw = msgspec.Raw(b"null")


class _TopologyNode(msgspec.Struct, frozen=True, rename="pascal"):
    url: str
    server_role: str = "Member"


class _Topology(msgspec.Struct, frozen=True, rename="pascal"):
    nodes: list[_TopologyNode] = []


class DocumentSink:
    """A run's way to its destination; see the module. `fenced` tells whether the destination knows the fence."""

    def __init__(
        self, http: HttpClient, string: RavenConnectionString, run: FencedEtl, guard: Callable[[], None], timeout_s: int
    ) -> None:
        self._http, self._string, self._run, self._guard, self._timeout_s = http, string, run, guard, timeout_s
        self.url = self._database_id = ""
        self.fenced = False
        self.progress = b"{}"

    @classmethod
    async def open(
        cls,
        http: HttpClient,
        string: RavenConnectionString,
        run: FencedEtl,
        *,
        guard: Callable[[], None],
        timeout_s: int,
        unfenced_progress: bytes = b"{}",
    ) -> "DocumentSink":
        """Find a node of the destination that takes the run, and the task's progress there (JSON, by transform).

        `guard` raises when the runner has lost its lease. `unfenced_progress` is what is known without the destination.
        Raises RunSuperseded, DestinationFailed.
        """
        sink = cls(http, string, run, guard, timeout_s)
        sink.progress = unfenced_progress
        problems: dict[str, str] = {}
        async for url in sink._nodes(problems):
            try:
                await sink._open_at(url)
            except HttpError as error:
                problems[url] = in_text(str(error))
            else:
                return sink
        told = f"no node of the destination takes documents of database '{string.database}' ({reasons(problems)})"
        raise DestinationFailed(told)

    async def write(
        self,
        documents: Sequence[DocumentCommands],
        progress: Callable[[Sequence[DocumentRefusal]], bytes],
        check_refusals: RefusalCheck,
    ) -> list[DocumentRefusal]:
        """See `EtlSink`. Documents that the destination does not take are found and skipped. Raises RunSuperseded,
        DestinationFailed."""
        refused: list[DocumentRefusal] = []
        *earlier, last = _requests(documents)
        for some in earlier:
            await self._take(some, refused, check_refusals)
        if not refused and last:
            check_refusals(len(documents), refused, final=True)
            with suppress(_Refused):
                # The progress looks at every document of the batch.
                await self._post(last, await asyncio.to_thread(progress, []))
                return []
        await self._take(last, refused, check_refusals)
        check_refusals(len(documents) - len(refused), refused, final=True)
        await self._store(progress(refused))
        return refused

    async def _store(self, progress: bytes) -> None:
        """Store the progress alone."""
        try:
            await self._post([], progress)
        except _Refused as error:
            raise DestinationFailed(f"{self.url} takes no progress: {error}") from None

    async def find(self, targets: Sequence[str]) -> bool:
        """See `EtlSink`. A destination makes collections by itself."""
        return False

    async def _take(
        self, documents: Sequence[DocumentCommands], refused: list[DocumentRefusal], check_refusals: RefusalCheck
    ) -> None:
        """Send the documents that can be taken; the others are halved until each stands alone."""
        if not documents:
            return
        try:
            await self._post(documents, None)
        except _Refused as error:
            if len(documents) == 1:
                refused.append(DocumentRefusal(documents[0].id, str(error)))
                check_refusals(0, refused, final=False)
                return
            middle = len(documents) // 2
            await self._take(documents[:middle], refused, check_refusals)
            await self._take(documents[middle:], refused, check_refusals)

    async def _post(self, documents: Sequence[DocumentCommands], progress: bytes | None) -> None:
        """One request: one transaction of the destination."""
        if not documents and not self.fenced:
            return
        commands = b",".join(command for one in documents for command in one.commands)
        body = [b'{"TransactionMode":"SingleNode","Commands":[', commands, b"]"]
        if self.fenced:
            token = self._token() | {"DatabaseId": self._database_id}
            if progress is not None:
                token["Progress"] = StoredProgress(self._run.generation, msgspec.Raw(progress))
            body += [b',"Fence":', msgspec.json.encode(token)]
        self._guard()
        try:
            await self._request("POST", self.url, "bulk_docs", b"".join([*body, b"}"]), self._timeout_s)
        except HttpFailed as error:
            if error.status in OF_DOCUMENTS:
                raise _Refused(in_text(str(error))) from None
            raise DestinationFailed(in_text(f"{self.url}: {error}")) from None
        except HttpError as error:
            raise DestinationFailed(in_text(str(error))) from None

    async def _nodes(self, problems: Mapping[str, str]) -> AsyncIterator[str]:
        """The addresses of the connection string, then those of other nodes that have the database, as far as one of
        them tells. Those with `problems` have failed."""
        given = list(dict.fromkeys(url.rstrip("/") for url in self._string.topology_discovery_urls))
        for url in given:
            yield url
        for url in given:
            for other in await self._discovered(url):
                if other not in problems:
                    yield other

    async def _discovered(self, url: str) -> list[str]:
        self._guard()
        try:
            address = f"{url}/topology?name={quote(self._string.database, safe='')}"
            topology = from_json((await self._http.request("GET", address, timeout_s=OPEN_TIMEOUT_S)).body, _Topology)
        except (HttpError, *DECODE_ERRORS):
            return []
        return [node.url.rstrip("/") for node in topology.nodes if node.server_role != "Promotable"]

    async def _open_at(self, url: str) -> None:
        """Raises HttpError when this node does not take documents of the database."""
        self._guard()
        try:
            answer = await self._request("POST", url, "etl/fence", msgspec.json.encode(self._token()), OPEN_TIMEOUT_S)
        except HttpFailed as error:
            if error.type != "RouteNotFoundException" and not (error.status in (404, 405) and not error.type):
                raise
            await self._request("GET", url, "stats", None, OPEN_TIMEOUT_S)
            self.fenced = False
        else:
            self._read(url, answer)
            self.fenced = True
        self.url = url

    def _read(self, url: str, answer: Response) -> None:
        try:
            known = from_json(answer.body, _Known)
            text = bytes(known.progress)
            stored = None if text == b"null" else from_json(text, StoredProgress)
        except DECODE_ERRORS as error:
            raise DestinationFailed(f"{url} answers the fence with what cannot be read: {error}") from None
        if known.cluster_id == self._run.cluster and fold(known.database) == self._run.database:
            raise DestinationFailed(
                f"{url} is a node of this cluster, and '{known.database}' this very database: name another one in the "
                "connection string"
            )
        self._database_id = known.database_id
        if stored is not None and stored.generation >= self._run.generation:
            self.progress = bytes(stored.transforms)
        else:
            self.progress = b"{}"

    def _token(self) -> dict[str, Any]:
        run = self._run
        return {
            "Source": f"{run.cluster}/{run.database}",
            "Task": run.task,
            "Epoch": run.epoch,
            "Sequence": next(_sequences),
        }

    async def _request(self, method: str, url: str, what: str, body: bytes | None, timeout_s: float) -> Response:
        address = f"{url}/databases/{quote(self._string.database, safe='')}/{what}"
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            return await self._http.request(method, address, body=body, headers=headers, timeout_s=timeout_s)
        except HttpFailed as error:
            if "HeardEpoch" in error.answer:
                raise RunSuperseded(f"{url}: {error.message}") from None
            if "DatabaseId" in error.answer:
                # The database was created again, say. What it lacks is sent again, from its progress on.
                raise DestinationFailed(f"{url}: {error.message}") from None
            if error.status in (401, 403):
                remedy = "Register this cluster's certificates at the destination, with write access"
                raise DestinationFailed(in_text(f"{url}: {error}. {remedy}")) from None
            raise


def _requests(documents: Sequence[DocumentCommands]) -> list[Sequence[DocumentCommands]]:
    """The documents in requests of limited size, in their order."""
    requests: list[Sequence[DocumentCommands]] = []
    first = commands = size = 0
    for place, one in enumerate(documents):
        commands, size = commands + len(one.commands), size + one.size
        if place > first and (commands > COMMANDS_MAX or size > REQUEST_BYTES_MAX):
            requests.append(documents[first:place])
            first, commands, size = place, len(one.commands), one.size
    return [*requests, documents[first:]]
