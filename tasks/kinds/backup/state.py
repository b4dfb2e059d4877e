"""What is known of a backup task: when it ran, what it made and where, and from where it may go on. It is the task's
progress, so that every node knows it and it survives whoever made it.
"""

from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import field
from msgspec.structs import replace

from raftnode.foundation import timestamps
from raftnode.foundation.decoding import DECODE_ERRORS, JsonDecoder
from raftnode.record.progress import STATE_BYTES_MAX

CHAINS_MAX = 8
CHAIN_KEPT = timedelta(days=7)
"""So long after its last backup a node that lost the task may go on from there incrementally; it keeps tombstones."""
RETRY_MIN_S = 60.0
RETRY_MAX_S = 3600.0


class Chain(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node's newest backup, from which its next incremental one goes on: in which folder, up to which etag of which
    copy (`database_id` is the key it stands under), the manifest's checksum, and a hash of where to and with which
    key."""

    node: str
    folder: str
    checksum: str
    etag: int
    change_vector: str
    where: str
    at: str


class DestinationState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was done last at one destination."""

    last_full: str | None = None
    last_incremental: str | None = None
    full_ms: int | None = None
    incremental_ms: int | None = None
    bytes: int = 0
    exception: str | None = None


class NodeBackups(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one node has made."""

    last_full: str | None = None
    last_incremental: str | None = None
    backups: int = 0
    size_bytes: int = 0
    documents: int = 0
    error: str = ""


class BackupState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """See the module. Times are timestamps. `tried_full` and `tried_incremental` advance with failures, too, and are
    what the schedule counts from; `failures` are those in a row, after which it is tried again at `retry_at`."""

    version: int = 0
    node: str | None = None
    full: bool = True
    last_full: str | None = None
    last_incremental: str | None = None
    tried_full: str | None = None
    tried_incremental: str | None = None
    folder: str | None = None
    file: str | None = None
    last_etag: int = 0
    change_vector: str = ""
    duration_ms: int = 0
    size_bytes: int = 0
    documents: int = 0
    encrypted: bool = False
    operation: int | None = None
    error: str = ""
    error_at: str | None = None
    failures: int = 0
    retry_at: str | None = None
    retry_full: bool = False
    delay_until: str | None = None
    original_time: str | None = None
    retention_ms: int | None = None
    retention_error: str = ""
    destinations: dict[str, DestinationState] = field(default_factory=dict)
    nodes: dict[str, NodeBackups] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)


_decoder: JsonDecoder[BackupState] = JsonDecoder(BackupState)


def read(stored: bytes) -> BackupState:
    """The state in a task's progress; a new one where there is none yet, or none that can be read."""
    try:
        return _decoder.decode(stored) if stored else BackupState()
    except (*DECODE_ERRORS, msgspec.ValidationError):
        return BackupState()


def encoded(state: BackupState) -> bytes:
    """The state as it is stored. Where change vectors are very long, the oldest chains are forgotten."""
    data = msgspec.json.encode(state)
    while len(data) > STATE_BYTES_MAX and state.chains:
        oldest = min(state.chains, key=lambda id: state.chains[id].at)
        state = replace(state, chains={id: chain for id, chain in state.chains.items() if id != oldest})
        data = msgspec.json.encode(state)
    return data


def with_chain(state: BackupState, database_id: str, chain: Chain, now: datetime) -> BackupState:
    """The state with a node's newest backup. Those of others are forgotten after CHAIN_KEPT."""
    oldest = timestamps.of(now.astimezone(UTC) - CHAIN_KEPT)
    kept = sorted(state.chains.items(), key=lambda item: item[1].at)[1 - CHAINS_MAX :]
    others = {id: other for id, other in kept if other.at >= oldest and id != database_id}
    return replace(state, chains=others | {database_id: chain})


def moment(text: str | None) -> datetime | None:
    """A timestamp as a time."""
    if text is None:
        return None
    return datetime.fromtimestamp(timestamps.to_ticks(text) // timestamps.TICKS_PER_SECOND, UTC)


def later(*texts: str | None) -> datetime | None:
    """The latest of the times that are known."""
    return max((time for text in texts if (time := moment(text)) is not None), default=None)
