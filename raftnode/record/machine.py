"""The state machine: one log entry in, the next record out. Total: whatever the bytes, it answers.

What it answers must follow from the record and the bytes alone, as every node has to come to the same. So it raises
where that does not hold: out of memory, out of stack, and whatever else may be so on this node only. Whoever calls it
must then end the node before anything is answered; the entry is applied again after a restart.
"""

from typing import Final

import msgspec
from msgspec.structs import replace

from raftnode.foundation.decoding import DECODE_ERRORS
from raftnode.record.commands import Changes, CommandRefused, Entry, Envelope, decode
from raftnode.record.model import (
    ASKED_LENGTH_MAX,
    COMMAND_BYTES_MAX,
    REQUEST_ID_LENGTH_MAX,
    REQUESTS_MAX,
    SCHEMA_VERSION,
    CommandError,
    CommandResult,
    Record,
)

ALIKE: Final = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NameError, NotImplementedError, TypeError, ValueError,
    msgspec.MsgspecError,
)  # fmt: skip
"""What a defect in a command raises on every node alike. Not among them: MemoryError, RecursionError, OSError, and
whatever nobody has thought of."""


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """The record after an entry, the answer to its proposer, and what it changed."""

    record: Record
    result: CommandResult
    changes: Changes = Changes()


def apply(record: Record, entry: Entry, data: bytes) -> Applied:
    """The record with the entry's command applied.

    A refused or unreadable command changes nothing but the index. A repeated request id gets its first answer. An
    entry at or below the record's index was applied before and changes nothing.
    """
    if entry.index <= record.index:
        return Applied(
            record=record, result=_failed(entry, "AlreadyAppliedException", "This entry was applied before.")
        )
    record = replace(record, index=entry.index)
    if len(data) > COMMAND_BYTES_MAX:
        return _answer(record, None, _failed(entry, "BadRequestException", _too_large(len(data))))
    try:
        envelope = decode(data)
    except DECODE_ERRORS as error:
        return _answer(record, None, _failed(entry, "BadRequestException", f"Unreadable command: {error}."))
    if envelope.version > SCHEMA_VERSION:
        message = f"Command of schema version {envelope.version}; this node reads up to {SCHEMA_VERSION}. Upgrade."
        return _answer(record, None, _failed(entry, "ClientVersionMismatchException", message))
    if len(envelope.request_id) > REQUEST_ID_LENGTH_MAX:
        message = f"The request id is longer than {REQUEST_ID_LENGTH_MAX} characters. Choose a shorter one."
        return _answer(record, None, _failed(entry, "BadRequestException", message))
    if len(envelope.asked) > ASKED_LENGTH_MAX:
        message = f"The hash of what was asked for is longer than {ASKED_LENGTH_MAX} characters."
        return _answer(record, None, _failed(entry, "BadRequestException", message))
    first = first_result(record, envelope.request_id, envelope.asked, index=entry.index)
    if first is not None:
        return Applied(record=record, result=first)
    return _run(record, entry, envelope)


def first_result(record: Record, request_id: str, asked: str, *, index: int) -> CommandResult | None:
    """What a request of that id was answered with when it took effect, None if none did. `asked` is the hash of what
    is asked for now; another than the first one's is refused, as of `index`."""
    first = record.requests.get(request_id)
    if first is None or not first.asked or not asked or first.asked == asked:
        return first
    message = (
        f"The raft-request-id '{request_id}' was used for another request, at index {first.index}; "
        "nothing was changed. Give each request an id of its own, and a repeat the very same request."
    )
    return CommandResult(index=index, error=CommandError(type="RequestIdUsedException", message=message))


def _run(record: Record, entry: Entry, envelope: Envelope) -> Applied:
    try:
        outcome = envelope.command.apply(record, entry)
    except CommandRefused as refused:
        return _answer(record, envelope, CommandResult(index=entry.index, error=refused.error))
    except ALIKE as error:
        # A command must never raise, but if one does so by a defect, it does so on every node alike: answering keeps
        # them equal, raising would stop them all at this entry for ever.
        message = f"{type(error).__name__} in {type(envelope.command).__name__}; nothing was changed."
        return _answer(record, envelope, _failed(entry, "RavenException", message))
    result = CommandResult(index=entry.index, value=outcome.value)
    return _answer(outcome.record, envelope, result, outcome.changes)


def _answer(
    record: Record, envelope: Envelope | None, result: CommandResult, changes: Changes | None = None
) -> Applied:
    return Applied(
        record=_remember(record, envelope, result) if envelope and envelope.request_id else record,
        result=result,
        changes=changes or Changes(),
    )


def _remember(record: Record, envelope: Envelope, result: CommandResult) -> Record:
    requests = record.requests.set(envelope.request_id, replace(result, asked=envelope.asked))
    order = record.request_order.set(record.request_next, envelope.request_id)
    first = record.request_first
    if len(requests) > REQUESTS_MAX:
        requests = requests.delete(order[first])
        order = order.delete(first)
        first += 1
    return replace(
        record,
        requests=requests,
        request_order=order,
        request_first=first,
        request_next=record.request_next + 1,
    )


def _failed(entry: Entry, kind: str, message: str) -> CommandResult:
    return CommandResult(index=entry.index, error=CommandError(type=kind, message=message))


def _too_large(size: int) -> str:
    return f"Command of {size} bytes; the limit is {COMMAND_BYTES_MAX}."
