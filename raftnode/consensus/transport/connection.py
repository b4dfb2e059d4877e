"""One TCP or TLS connection between two nodes: frames in, frames out, and the signs that it is dead."""

import asyncio
import socket
import struct
import zlib
from typing import Any, Protocol

import msgspec

from raftnode.consensus.transport.handshake import HELLO_BYTES_MAX
from raftnode.foundation.decoding import DECODE_ERRORS, MsgpackDecoder

LENGTH = struct.Struct(">I")
HEADER = struct.Struct(">III")
NOT_SENT_BYTES_MAX = 128 * 1024
DAMAGED = "does not match its checksum: it was damaged, or is of another protocol"

_encode = msgspec.msgpack.Encoder().encode
_decoder: MsgpackDecoder[tuple[str, bytes]] = MsgpackDecoder(tuple[str, bytes])


class HandshakeHandler(Protocol):
    """Told how a connection begins. All calls come on the event loop."""

    def opened(self, connection: "Connection") -> None: ...
    def handshake_received(self, connection: "Connection", frame: bytes) -> None:
        """The other side's first frame."""


class ConnectionOwner(Protocol):
    """Told of what comes on a connection, and of its end."""

    def received(self, connection: "Connection", channel: str, payload: bytes) -> None: ...
    def closed(self, connection: "Connection", reason: str) -> None: ...


def framed(body: bytes) -> bytes:
    """The body as a frame. TCP's own checksum misses one damaged packet in some thousands, and a flipped bit in a
    well-formed message could make a node believe that it lost committed entries. The length has a checksum of its own:
    a wrong one would swallow all that comes after, on a connection that looks alive."""
    return HEADER.pack(len(body), _of_length(len(body)), zlib.crc32(body)) + body


def _of_length(length: int) -> int:
    return zlib.crc32(LENGTH.pack(length))


class Connection(asyncio.Protocol):
    """Frames are a length, its CRC-32 and the body's, four bytes each, big-endian, and the body: first a handshake
    each way, then msgpack pairs of channel and payload. A ping is a pair with an empty channel."""

    def __init__(
        self,
        handshakes: HandshakeHandler,
        host: ConnectionOwner,
        *,
        dialed: str | None,
        frame_bytes_max: int,
        dead_peer_ms: int,
    ) -> None:
        self.dialed = dialed
        """The tag this side dialed, None on the side that was dialed."""
        self.tag: str | None = None
        """Who is on the other side, once it is let in."""
        self.welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the other side is let in; fails when the connection ends before that."""
        self.heard_s = self.spoke_s = asyncio.get_running_loop().time()
        self._handshakes = handshakes
        self._host = host
        self._frame_bytes_max = frame_bytes_max
        self._dead_peer_ms = dead_peer_ms
        self._buffer = bytearray()
        self._first = True
        self._transport: asyncio.Transport | None = None
        self._written_bytes = 0
        self._flushed_bytes = 0
        self._flushed_s = self.heard_s

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The kernel gives up on data that nobody acknowledges, and keeps little unsent: what waits, waits here,
        # where it is counted.
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._dead_peer_ms)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_BYTES_MAX)
        self._handshakes.opened(self)

    def data_received(self, data: bytes) -> None:
        if not self._first:
            # A handshake has to be there as a whole in time, or strangers could hold their places for ever.
            self.heard_s = asyncio.get_running_loop().time()
        self._buffer += data
        offset = 0
        while len(self._buffer) - offset >= HEADER.size and self._transport is not None:
            length, of_length, checksum = HEADER.unpack_from(self._buffer, offset)
            limit = HELLO_BYTES_MAX if self._first else self._frame_bytes_max
            if length > limit:
                self.drop(f"a frame of {length} bytes is above the limit of {limit}")
                return
            if of_length != _of_length(length):
                self.drop(f"a frame's length {DAMAGED}")
                return
            begin, end = offset + HEADER.size, offset + HEADER.size + length
            if len(self._buffer) < end:
                break
            frame = bytes(self._buffer[begin:end])
            offset = end
            if zlib.crc32(frame) != checksum:
                self.drop(f"a frame {DAMAGED}")
                return
            self._frame(frame)
        del self._buffer[:offset]

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(repr(exc) if exc else "the other side closed it")

    # ours

    @property
    def backlog_bytes(self) -> int:
        """What was written and has not left this process."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    @property
    def peer_host(self) -> str:
        """The other side's IP address, empty once it is gone."""
        name: Any = self._transport.get_extra_info("peername") if self._transport else None
        return str(name[0]) if name else ""

    def certificate_names(self) -> set[str] | None:
        """The DNS names in the other side's certificate, None without TLS."""
        secured: Any = self._transport.get_extra_info("ssl_object") if self._transport else None
        if secured is None:
            return None
        return {value for kind, value in secured.getpeercert().get("subjectAltName", ()) if kind == "DNS"}

    def send(self, channel: str, payload: bytes) -> None:
        """Writes one message."""
        self.send_frame(_encode((channel, payload)))

    def send_frame(self, frame: bytes) -> None:
        """Writes one frame."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(framed(frame))
            self._written_bytes += HEADER.size + len(frame)
            self.spoke_s = asyncio.get_running_loop().time()

    def stalled(self, now_s: float) -> bool:
        """Whether nothing of what is waiting has left for longer than a peer may be silent."""
        flushed = self._written_bytes - self.backlog_bytes
        if flushed != self._flushed_bytes or not self.backlog_bytes:
            self._flushed_bytes, self._flushed_s = flushed, now_s
        return now_s - self._flushed_s > self._dead_peer_ms / 1000

    def drop(self, reason: str) -> None:
        """Ends the connection at once; what was not sent is lost."""
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

    def finish(self, reason: str) -> None:
        """Ends the connection once all is sent."""
        if self._transport is not None:
            self._transport.close()
        self._end(reason)

    def _frame(self, frame: bytes) -> None:
        if self._first:
            self._first = False
            self.heard_s = asyncio.get_running_loop().time()
            self._handshakes.handshake_received(self, frame)
            return
        try:
            channel, payload = _decoder.decode(frame)
        except DECODE_ERRORS as error:
            self.drop(f"a frame cannot be read: {error}")
            return
        if channel:
            self._host.received(self, channel, payload)

    def _end(self, reason: str) -> None:
        if self._transport is None:
            return
        self._transport = None
        if not self.welcome.done():
            self.welcome.set_exception(ConnectionError(reason))
            self.welcome.exception()  # nobody waits for it on the side that was dialed
        self._host.closed(self, reason)
