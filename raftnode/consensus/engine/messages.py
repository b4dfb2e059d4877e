"""Raft's messages as they travel: msgpack arrays, validated on arrival, never pickled."""

from typing import Annotated

import msgspec
from msgspec import Meta

from raftnode.foundation.decoding import DECODE_ERRORS as DECODE_ERRORS
from raftnode.foundation.decoding import MsgpackDecoder

Index = Annotated[int, Meta(ge=0, le=2**62)]
Term = Annotated[int, Meta(ge=0, le=2**62)]
Command = Annotated[bytes, Meta(min_length=1, max_length=1024 * 1024)]
WireEntry = tuple[Command, Index, Term]

SNAPSHOT_CHUNK_BYTES_MAX = 256 * 1024


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all. `term` is the sender's current term, in requests and in answers alike."""

    term: Term


class AppendEntries(Message, frozen=True):
    """Entries behind (`prev_index`, `prev_term`), possibly none, and the leader's commit index. `stream` counts the
    times the leader started over with this follower: an answer that asks for a reset counts once per stream."""

    prev_index: Index
    prev_term: Term
    entries: tuple[WireEntry, ...]
    commit_index: Index
    stream: int


class AppendResponse(Message, frozen=True):
    """The answer to Append. `next_index` is what the follower wants next; with `success` it holds all before it,
    synced. `reset` asks the leader to go back to `next_index`. Neither: a sign of life and of the term."""

    next_index: Index
    success: bool
    reset: bool
    stream: int


class SnapshotHeartbeat(Message, frozen=True):
    """A heartbeat to a follower that is being sent a snapshot. It vouches for no log position."""


class PreVote(Message, frozen=True):
    """Would you vote for me? `term` is the present one; the vote would be for the next."""

    nonce: int
    last_index: Index
    last_term: Term


class PreVoteGranted(Message, frozen=True):
    """The answer to PreVote, with the answering node's term."""

    nonce: int
    granted: bool


class RequestVote(Message, frozen=True):
    """A candidate asks for the vote of its term."""

    last_index: Index
    last_term: Term


class VoteGranted(Message, frozen=True):
    """The vote of `term` is given."""


class TimeoutNow(Message, frozen=True):
    """The leader hands over: the receiver is to stand for election at once."""


class SnapshotChunk(Message, frozen=True):
    """Part of the leader's snapshot file, which contains all entries up to `index`."""

    index: Index
    index_term: Term
    size_bytes: Index
    offset: Index
    data: Annotated[bytes, Meta(max_length=SNAPSHOT_CHUNK_BYTES_MAX)]


class SnapshotChunkAck(Message, frozen=True):
    """How much of the snapshot up to `index` the follower holds."""

    index: Index
    offset: Index


AnyMessage = (
    AppendEntries
    | AppendResponse
    | SnapshotHeartbeat
    | PreVote
    | PreVoteGranted
    | RequestVote
    | VoteGranted
    | TimeoutNow
    | SnapshotChunk
    | SnapshotChunkAck
)

_encoder = msgspec.msgpack.Encoder()
_decoder: MsgpackDecoder[AnyMessage] = MsgpackDecoder(AnyMessage)


def encode(message: AnyMessage) -> bytes:
    """The message's bytes."""
    return _encoder.encode(message)


def decode(data: bytes) -> AnyMessage:
    """The message, validated. Raises one of `DECODE_ERRORS`."""
    return _decoder.decode(data)
