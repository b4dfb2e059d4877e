"""A script on one document, to see what it would make: nothing is stored, and no task need be there."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from raftnode.documents.store.model import Document
from raftnode.record.model import Database
from raftnode.scripting.javascript import ScriptEnded, ScriptError
from raftnode.scripting.sandbox import Sandbox, ScriptWorkers
from tasks.etl.stream import TransformStream
from tasks.etl.transform import TransformedDocument
from tasks.kinds.registry import ConfigurationError
from tasks.runtime.context import RunSettings
from tasks.runtime.shared_resources import SharedResources

OUTPUT_LENGTH_MAX = 1_000


class TrialWorkers(ScriptWorkers):
    """A process for all trials: a script that is only tried, and never ends, keeps no task waiting."""


class TrialTools(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial works with: those of the node's runs, and `load`, which gives other documents by their ids."""

    node: str
    settings: RunSettings
    shared: SharedResources
    load: Callable[[Sequence[str]], Awaitable[Sequence[Document | None]]]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """`configuration` is that of an ETL with the one transform that is tried, `document` what it is tried on, a
    tombstone to try a deletion. `rolled_back` asks to write to the target as well, in a transaction that is rolled
    back."""

    configuration: Mapping[str, Any]
    database: Database
    document: Document
    rolled_back: bool = False


class ScriptFailure(msgspec.Struct, frozen=True, rename="pascal"):
    """Why a document cannot be carried over."""

    document_id: str
    error: str


@runtime_checkable
class TriesScripts(Protocol):
    """What an ETL kind provides besides, if its scripts can be tried."""

    async def try_script(self, trial: Trial, tools: TrialTools) -> msgspec.Struct:
        """RavenDB's result for the kind. Raises ConfigurationError."""


def only(transforms: Sequence[Any]) -> Any:
    """The one transform that is tried. Raises ConfigurationError if there are others."""
    if len(transforms) != 1:
        raise ConfigurationError("Transforms", f"has {len(transforms)} entries; give only the one that is tried")
    return transforms[0]


async def transformed(
    stream: TransformStream, document: Document, given: Document, tools: TrialTools
) -> TransformedDocument:
    """What the script makes of the document; a reason in `error` if it cannot be carried over."""
    if not stream.takes(document.collection):
        reason = f"it is in the collection '{document.collection}', and the transform takes others"
        return TransformedDocument(error=reason)
    sandbox = Sandbox(tools.shared.get(TrialWorkers, lambda: TrialWorkers(tools.settings.script, 1)))
    try:
        [answer] = await stream.transform.apply(sandbox, [given], tools.load)
        return answer
    except (ScriptEnded, ScriptError) as error:
        return TransformedDocument(error=str(error))
    finally:
        await sandbox.close()


def shown_output(answer: TransformedDocument) -> list[str]:
    """What the script gave to `output`."""
    return [text[:OUTPUT_LENGTH_MAX] for text in answer.output]
