"""What goes between a running ETL and its target."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from raftnode.documents.store.model import Batch, Document
from tasks.etl.refusals import DocumentRefusal, RefusalCheck

ON_LOOP_DOCUMENTS_MAX = 64


class DocumentLoads(Protocol):
    """What a document becomes in a target."""

    @property
    def count(self) -> int:
        """How many rows, documents or messages it is."""


Loads = TypeVar("Loads", bound=DocumentLoads)
LoadsTaken = TypeVar("LoadsTaken", contravariant=True)
Result = TypeVar("Result")


class EtlSink(Protocol[LoadsTaken]):
    """A run's way into its target. `progress` is the JSON that the target has of the transforms, by name. `fenced`
    tells whether it keeps runs out that were replaced."""

    progress: bytes
    fenced: bool

    async def write(
        self,
        documents: Sequence[LoadsTaken],
        progress: Callable[[Sequence[DocumentRefusal]], bytes],
        check_refusals: RefusalCheck,
    ) -> list[DocumentRefusal]:
        """Replace what the target has of these documents and store the progress, together. `progress` is called with
        the refused documents, which are returned."""

    async def find(self, targets: Sequence[str]) -> bool:
        """Look whether what was missing there is there now; False if nothing was. Raises when it is not."""


class TooManyPoisonous(Exception):
    """More than POISONOUS_MAX documents of a batch of so many `documents` make the script exceed its limits."""

    def __init__(self, documents: int = 0) -> None:
        super().__init__()
        self.documents = documents


class MadeBatch(NamedTuple, Generic[Loads]):
    """A batch after a place, what is to be done of it, and what that becomes."""

    after_etag: int
    batch: Batch
    todo: Sequence[Document]
    loads: list[Loads]
    failures: list[DocumentRefusal]


async def off_the_loop(documents: int, work: Callable[..., Result], *arguments: Any) -> Result:
    """What `work` returns, which takes some time for each of so many documents: for many it is done in a thread."""
    if documents <= ON_LOOP_DOCUMENTS_MAX:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)
