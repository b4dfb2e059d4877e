"""Every command there is, and its form in the log: msgpack of {version, request id, command}."""

from typing import Any

import msgspec

from raftnode.foundation.decoding import MsgpackDecoder
from raftnode.record.commands.base import Changes, Command, CommandRefused, Entry, Outcome
from raftnode.record.commands.claims import ClaimTask, ReleaseTask
from raftnode.record.commands.cluster import (
    AddNode,
    AnnounceNode,
    FormCluster,
    RemoveNode,
    SetDraining,
    SetLicence,
    SetNodeFlags,
    SetNodeKind,
    SetNodeTraits,
)
from raftnode.record.commands.counters import AdvanceCounter, SetCounter
from raftnode.record.commands.databases import (
    AddDatabaseNode,
    ConfirmDeletion,
    CreateDatabase,
    DeleteDatabase,
    DeleteIndex,
    PromoteDatabaseNode,
    PutIndex,
    ReorderMembers,
    SetDatabaseState,
    SetDynamicDistribution,
    SetLockMode,
    SetUpdateMentor,
)
from raftnode.record.commands.observer import Decide, GraceEnd, NewTopology, SuspendObserver, VoidClaim
from raftnode.record.commands.tasks import (
    BlameTask,
    Checkpoint,
    DeleteConnectionString,
    DeleteTask,
    ProgressMade,
    PutConnectionString,
    PutTask,
    RetryFailed,
    SetTaskPin,
    SetTaskState,
)
from raftnode.record.encoding import dec_hook, enc_hook
from raftnode.record.model import SCHEMA_VERSION

AnyCommand = (
    AddDatabaseNode | AddNode | AdvanceCounter | AnnounceNode | BlameTask | Checkpoint | ClaimTask | ConfirmDeletion
    | CreateDatabase | Decide | DeleteConnectionString | DeleteDatabase | DeleteIndex | DeleteTask | FormCluster
    | PromoteDatabaseNode | PutConnectionString | PutIndex | PutTask | ReleaseTask | RemoveNode | ReorderMembers
    | RetryFailed | SetCounter | SetDatabaseState | SetDraining | SetDynamicDistribution | SetLicence | SetLockMode
    | SetNodeFlags | SetNodeKind | SetNodeTraits | SetTaskPin | SetTaskState | SetUpdateMentor | SuspendObserver
)  # fmt: skip


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A command as it stands in the log. The request id makes proposing it again safe. `asked`: a hash of what its
    client asked for, by which a repeat is told from another request under the same id; empty if the id is our own, as
    only the very same command is then proposed under it."""

    command: AnyCommand
    request_id: str = ""
    asked: str = ""
    version: int = SCHEMA_VERSION


_encoder = msgspec.msgpack.Encoder(enc_hook=enc_hook)
_decoder: MsgpackDecoder[Envelope] = MsgpackDecoder(Envelope, dec_hook=dec_hook)


def encode(command: Any, request_id: str = "", asked: str = "") -> bytes:
    """The command as bytes for the log."""
    return _encoder.encode(Envelope(command=command, request_id=request_id, asked=asked))


def decode(data: bytes) -> Envelope:
    """The envelope back from `encode`. Raises one of `DECODE_ERRORS` for anything else."""
    return _decoder.decode(data)


__all__ = [
    "AddDatabaseNode",
    "AddNode",
    "AdvanceCounter",
    "AnnounceNode",
    "AnyCommand",
    "BlameTask",
    "Changes",
    "Checkpoint",
    "ClaimTask",
    "Command",
    "CommandRefused",
    "ConfirmDeletion",
    "CreateDatabase",
    "Decide",
    "DeleteConnectionString",
    "DeleteDatabase",
    "DeleteIndex",
    "DeleteTask",
    "Entry",
    "Envelope",
    "FormCluster",
    "GraceEnd",
    "NewTopology",
    "Outcome",
    "ProgressMade",
    "PromoteDatabaseNode",
    "PutConnectionString",
    "PutIndex",
    "PutTask",
    "ReleaseTask",
    "RemoveNode",
    "ReorderMembers",
    "RetryFailed",
    "SetCounter",
    "SetDatabaseState",
    "SetDraining",
    "SetDynamicDistribution",
    "SetLicence",
    "SetLockMode",
    "SetNodeFlags",
    "SetNodeKind",
    "SetNodeTraits",
    "SetTaskPin",
    "SetTaskState",
    "SetUpdateMentor",
    "SuspendObserver",
    "VoidClaim",
    "decode",
    "encode",
]  # fmt: skip
