"""Proposals in flight: from the append, here or on the leader, to the answer of this node's own state machine.

One attempt each. A proposal made on a follower is sent to the leader, which answers with the place in the log it gave
it; from then on the follower waits for its own apply of that place. What stands there in the end is the proposal if
the terms are equal, and another command otherwise.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from raftnode.consensus.engine import Engine, RequestRefused
from raftnode.consensus.model import Add, Change, NotCommitted, OutcomeUnknown, Peer, Proposed, Remove
from raftnode.foundation.decoding import DECODE_ERRORS, MsgpackDecoder

log = structlog.get_logger(__name__)

FORWARDED_MAX = 10_000


class Request(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of what a leader can be asked to append."""


class CommandRequest(Request, frozen=True):
    """An application's command."""

    command: bytes


class BarrierRequest(Request, frozen=True):
    """An entry that changes nothing."""


class AddPeerRequest(Request, frozen=True):
    """A peer is added or changed, together with an application's command."""

    peer: Peer
    command: bytes


class RemovePeerRequest(Request, frozen=True):
    """A peer is removed, together with an application's command."""

    tag: str
    command: bytes


class TransferRequest(Request, frozen=True):
    """The leadership goes to another node."""

    to: str | None


AnyRequest = CommandRequest | BarrierRequest | AddPeerRequest | RemovePeerRequest | TransferRequest


class _ForwardedRequest(msgspec.Struct, frozen=True, array_like=True, tag=True):
    number: int
    request: AnyRequest


class _Accepted(msgspec.Struct, frozen=True, array_like=True, tag=True):
    number: int
    index: int
    term: int


class _Rejected(msgspec.Struct, frozen=True, array_like=True, tag=True):
    number: int
    reason: str


_encode = msgspec.msgpack.Encoder().encode
_decoder: MsgpackDecoder[_ForwardedRequest | _Accepted | _Rejected] = MsgpackDecoder(
    _ForwardedRequest | _Accepted | _Rejected
)

Position = tuple[int, int]


def change_request(change: Change, command: bytes) -> AnyRequest:
    """The request for a membership change."""
    return AddPeerRequest(change.peer, command) if isinstance(change, Add) else RemovePeerRequest(change.tag, command)


class ProposalTracker:
    """The proposals of one node, and those other nodes send it as leader."""

    def __init__(
        self,
        engine: Callable[[], Engine],
        send: Callable[[str, bytes], bool],
        transfer_leadership: Callable[[str | None], None],
        refuses: Callable[[bytes], str | None],
        timeout_ms: int,
    ) -> None:
        self._engine = engine
        self._send = send
        self._hand_over = transfer_leadership
        self._refuses = refuses
        self._timeout_ms = timeout_ms
        self._number = 0
        self._asked: dict[int, tuple[str, asyncio.Future[Position]]] = {}
        self._placed: dict[int, list[tuple[int, asyncio.Future[Proposed]]]] = defaultdict(list)

    async def submit(self, request: AnyRequest, timeout_ms: int | None = None, *, term: int | None = None) -> Proposed:
        """Has the request placed in the log, by this node as leader (of `term`, if given) or by the leader, and waits
        until this node has applied it. Raises NotCommitted or OutcomeUnknown."""
        failure = self._engine().status.failure
        if failure is not None:
            raise NotCommitted(str(failure))
        wait_ms = self._timeout_ms if timeout_ms is None else timeout_ms
        try:
            async with asyncio.timeout(wait_ms / 1000):
                index, at_term = await self._position(request, term)
                future: asyncio.Future[Proposed] = asyncio.get_running_loop().create_future()
                self._placed[index].append((at_term, future))
                return await future
        except TimeoutError:
            raise OutcomeUnknown(f"The command was not applied here within {wait_ms} ms.") from None

    async def _position(self, request: AnyRequest, term: int | None) -> Position:
        status = self._engine().status
        if term is None and not status.leads:
            index, at_term = await self.ask_leader(request)
            if self._engine().status.applied_index >= index:
                raise OutcomeUnknown(f"Entry {index} was passed before its place in the log was known here.")
            return index, at_term
        if term is not None and (status.term != term or not status.leads):
            raise NotCommitted(f"This node is not the leader of term {term}; it is {status.role} of {status.term}.")
        try:
            return self._place(request)
        except RequestRefused as refused:
            raise NotCommitted(f"The leader refused: {refused}.") from None

    def _place(self, request: AnyRequest) -> Position:
        """Does what this node is asked for as leader, be it by itself or by another node. Raises RequestRefused."""
        engine = self._engine()
        change: Change
        match request:
            case CommandRequest(command):
                return engine.propose(command)
            case BarrierRequest():
                return engine.propose_no_op()
            case TransferRequest(to):
                if not engine.status.leads:
                    raise RequestRefused("this node is not the leader")
                self._hand_over(to)
                return (0, engine.status.term)
            case AddPeerRequest(peer, command):
                change = Add(peer)
            case RemovePeerRequest(tag, command):
                change = Remove(tag)
        # Changes are taken one at a time, so what the leader has applied holds every earlier one.
        reason = self._refuses(command)
        if reason is not None:
            raise RequestRefused(reason)
        return engine.propose_change(change, command)

    async def ask_leader(self, request: AnyRequest) -> Position:
        """Has the leader place the request, or do what has no place in the log. Raises NotCommitted, or OutcomeUnknown
        if the leader is lost meanwhile."""
        leader = self._engine().status.leader
        if leader is None:
            raise NotCommitted("No leader is known.")
        if len(self._asked) >= FORWARDED_MAX:
            raise NotCommitted(f"{FORWARDED_MAX} proposals wait for the leader's answer, which is the limit.")
        self._number += 1
        number = self._number
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self._asked[number] = (leader, future)
        try:
            if not self._send(leader, _encode(_ForwardedRequest(number, request))):
                raise NotCommitted(f"The leader {leader} cannot be reached.")
            return await future
        finally:
            del self._asked[number]

    # events

    def receive(self, sender: str, payload: bytes) -> None:
        """Takes another node's request, or the leader's answer to one of ours."""
        try:
            message = _decoder.decode(payload)
        except DECODE_ERRORS as error:
            log.warning("A proposal is dropped, as it cannot be read.", sender=sender, reason=str(error))
            return
        if isinstance(message, _ForwardedRequest):
            self._send(sender, _encode(self._answer(message)))
            return
        leader, future = self._asked.get(message.number, ("", None))
        if future is None or future.done() or leader != sender:
            return
        if isinstance(message, _Rejected):
            future.set_exception(NotCommitted(f"The leader {sender} refused: {message.reason}."))
        else:
            future.set_result((message.index, message.term))

    def _answer(self, ask: _ForwardedRequest) -> _Accepted | _Rejected:
        try:
            return _Accepted(ask.number, *self._place(ask.request))
        except RequestRefused as refused:
            return _Rejected(ask.number, str(refused))

    def applied(self, index: int, term: int, answer: Any) -> None:
        """The entry at `index` is applied here."""
        for at_term, future in self._placed.pop(index, ()):
            if future.done():
                continue
            if at_term != term:
                future.set_exception(NotCommitted(f"Another leader's entry took place {index} in the log."))
            else:
                future.set_result(Proposed(index, term, answer))

    def jumped(self, index: int) -> None:
        """A snapshot took the state to `index`: what was applied on the way had no answer here."""
        for place in [place for place in self._placed if place <= index]:
            for _, future in self._placed.pop(place):
                _fail(future, OutcomeUnknown(f"A snapshot passed entry {place}; its answer is not known here."))

    def leader_lost(self, still: str | None) -> None:
        """The leader is now `still` or unknown: what others were asked and did not answer has no known outcome."""
        for leader, future in self._asked.values():
            if leader != still:
                _fail(future, OutcomeUnknown(f"The leader {leader} was lost before it answered."))

    def fail_all(self, reason: str) -> None:
        """This node stops."""
        for _, asked in self._asked.values():
            _fail(asked, OutcomeUnknown(reason))
        for waiting in self._placed.values():
            for _, future in waiting:
                _fail(future, OutcomeUnknown(reason))
        self._placed.clear()


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
