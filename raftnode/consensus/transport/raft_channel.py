"""What Raft needs of the transport, and its channel on it."""

from collections.abc import Callable
from typing import Protocol

RAFT_CHANNEL = "raft"
PROPOSAL_CHANNEL = "proposal"


class TransportPort(Protocol):
    """What Raft needs of the transport."""

    on_connection: list[Callable[[str, bool], None]]

    def send(self, tag: str, channel: str, payload: bytes) -> bool: ...
    def on_message(self, channel: str, handler: Callable[[str, bytes], None]) -> None: ...
    def backlog_bytes(self, tag: str) -> int: ...
    def connected_tags(self) -> frozenset[str]: ...
    def set_peers(self, addresses: dict[str, str], membership_index: int) -> None:
        """Whom to be connected with, by tag, and the log index of the membership that says so."""


class RaftWire:
    """The transport's Raft channel, as the engine wants it."""

    def __init__(self, transport: TransportPort) -> None:
        self._transport = transport

    def send(self, tag: str, payload: bytes) -> bool:
        return self._transport.send(tag, RAFT_CHANNEL, payload)

    def backlog_bytes(self, tag: str) -> int:
        return self._transport.backlog_bytes(tag)
