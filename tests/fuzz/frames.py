"""Frames for the transport of a real node: broken ones, sound ones around garbage, and good messages out of place.

What is made here never lies in a way that a node has to believe: nodes do not lie, says `docs/guarantees.md`, and a
well-formed message of a newer term is a newer leader. So a mutated message that can still be read is sent only if its
term is over, or if it is of a kind that is no leader's.
"""

import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from raftnode.consensus import proposals
from raftnode.consensus.engine import messages
from raftnode.consensus.engine.messages import AnyMessage, AppendEntries, SnapshotChunk, SnapshotHeartbeat, TimeoutNow
from raftnode.consensus.model import Peer
from raftnode.consensus.transport import handshake as handshake
from raftnode.consensus.transport.connection import HEADER, framed
from raftnode.consensus.transport.handshake import HELLO_BYTES_MAX, PROTOCOL_VERSION, Handshake
from raftnode.consensus.transport.raft_channel import PROPOSAL_CHANNEL, RAFT_CHANNEL
from raftnode.foundation.decoding import DECODE_ERRORS
from raftnode.lease.messages import Beat, Report, Stamp
from raftnode.liveness import heartbeat
from raftnode.record.commands import Checkpoint, ClaimTask, DeleteIndex, SetDatabaseState, encode
from tests.fuzz.mutate import bent, strange_message

CHANNELS = (RAFT_CHANNEL, PROPOSAL_CHANNEL, heartbeat.CHANNEL)
WILD = "Wild"
"""No database of this name exists: whatever of a mutated command still makes sense concerns nothing."""
INDEX_MAX = 2**62
FRAME_BYTES_MAX = 8 * 1024 * 1024


class Bomb:
    """Whoever unpickles it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._mark,))


class Frames:
    """Frames by one random sequence. `term` is one that the attacked cluster has reached; `mark` is the file that a
    pickle of ours would make if anybody ran it."""

    def __init__(self, random: Random, *, cluster: str, tag: str, membership_index: int, mark: Path) -> None:
        self.random = random
        self.term = 0
        self._hello = Handshake(PROTOCOL_VERSION, cluster, tag, f"{tag:x>32}", 1, 1, membership_index)
        self._bomb = pickletools.optimize(pickle.dumps(Bomb(mark)))
        self._sent: list[bytes] = []

    # greetings

    def greeting(self) -> bytes:
        """The one that is let in."""
        return framed(handshake.encode(self._hello))

    def no_greeting(self) -> bytes:
        """The first bytes of a stranger, who must not be let in."""
        random, good = self.random, handshake.encode(self._hello)
        ways: list[Callable[[], bytes]] = [
            lambda: random.randbytes(random.randint(1, 200)),
            lambda: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(200),
            lambda: framed(self._bomb),
            lambda: HEADER.pack(random.randint(HELLO_BYTES_MAX + 1, 2**32 - 1), 0, 0) + good,
            lambda: bent(random, framed(good)),
            lambda: framed(self._unwelcome(bent(random, good))),
            lambda: framed(self._unwelcome(strange_message(random, good))),
            lambda: self.sound(),
        ]
        return random.choice(ways)()

    def _unwelcome(self, greeting: bytes) -> bytes:
        """The bytes, unless a node would take them for a greeting of somebody."""
        try:
            handshake.decode(greeting)
        except DECODE_ERRORS:
            return greeting
        return b"\xc1"

    # frames

    def damaged(self) -> bytes:
        """Bytes behind a good greeting that have to end the connection."""
        random, good = self.random, self.sound()
        ways: list[Callable[[], bytes]] = [
            lambda: HEADER.pack(random.randint(FRAME_BYTES_MAX + 1, 2**32 - 1), *self._checksums()) + good,
            lambda: HEADER.pack(len(good) + random.randint(-8, 8), *self._checksums()) + good[HEADER.size :],
            lambda: bent(random, good),
            lambda: framed(bent(random, good[HEADER.size :]))[:-1],
            lambda: framed(random.choice((b"", b"\xc1", self._bomb, b"\x91" * 3000, msgspec.msgpack.encode([1, 2])))),
        ]
        return random.choice(ways)()

    def _checksums(self) -> tuple[int, int]:
        return self.random.getrandbits(32), self.random.getrandbits(32)

    def sound(self) -> bytes:
        """A frame that is well made. What is in it may be garbage, and now and then it has been there before."""
        random = self.random
        if self._sent and random.random() < 0.1:
            return random.choice(self._sent)
        channel = random.choice((*CHANNELS, *CHANNELS, *CHANNELS, "", "nobody's", "raft\x00", "x" * 200))
        frame = framed(msgspec.msgpack.encode((channel, self._payload(channel))))
        self._sent = [*self._sent[-20:], frame]
        return frame

    def _payload(self, channel: str) -> bytes:
        random = self.random
        while True:
            good = self._good(channel if channel in CHANNELS else random.choice(CHANNELS))
            how = random.random()
            if how < 0.1:
                data = random.choice((b"", self._bomb, b"\x93\xa5Voted\x03" + b"\x91" * 3000, random.randbytes(40)))
            elif how < 0.2:
                data = good
            else:
                data = strange_message(random, good) if how < 0.6 else bent(random, good)
            if channel not in CHANNELS or self._believed_by_nobody(channel, data):
                return data

    def _believed_by_nobody(self, channel: str, data: bytes) -> bool:
        """Whether the payload is garbage, or nothing that commands a node to do what would do harm."""
        try:
            if channel == RAFT_CHANNEL:
                message = messages.decode(data)
                leads = isinstance(message, AppendEntries | SnapshotHeartbeat | SnapshotChunk | TimeoutNow)
                return message.term < self.term if leads else message.term <= self.term
            if channel == heartbeat.CHANNEL:
                return bool(heartbeat._decoder.decode(data).term <= self.term)
            asked = proposals._decoder.decode(data)
            return not (
                isinstance(asked, proposals._ForwardedRequest) and isinstance(asked.request, proposals.TransferRequest)
            )
        except DECODE_ERRORS:
            return True

    # good messages

    def _good(self, channel: str) -> bytes:
        if channel == RAFT_CHANNEL:
            return messages.encode(self._raft())
        return msgspec.msgpack.encode(self._proposal() if channel == PROPOSAL_CHANNEL else self._beat())

    def _index(self) -> int:
        return self.random.choice((0, 1, 2, self.random.randint(1, 10_000), INDEX_MAX))

    def _raft(self) -> AnyMessage:
        random, index = self.random, self._index
        term, entry_term = random.randint(0, self.term), random.randint(0, self.term + 1)
        first = index()
        entries = tuple(
            (bytes((random.randrange(4),)) + random.randbytes(20), min(first + 1 + n, INDEX_MAX), entry_term)
            for n in range(random.randint(0, 3))
        )
        flag = random.random() < 0.5
        choices: list[AnyMessage] = [
            AppendEntries(term, first, entry_term, entries, index(), random.randint(-1, 9)),
            messages.AppendResponse(term, index(), flag, not flag, random.randint(-1, 9)),
            SnapshotHeartbeat(term),
            messages.PreVote(term, random.getrandbits(60), index(), entry_term),
            messages.PreVoteGranted(term, random.getrandbits(60), flag),
            messages.RequestVote(term, index(), entry_term),
            messages.VoteGranted(term),
            TimeoutNow(term),
            SnapshotChunk(term, index(), entry_term, index(), index(), random.randbytes(50)),
            messages.SnapshotChunkAck(term, index(), index()),
        ]
        return random.choice(choices)

    def _proposal(self) -> proposals._ForwardedRequest | proposals._Accepted | proposals._Rejected:
        random, number = self.random, self.random.randint(0, 20)
        garbage = random.randbytes(random.randint(0, 60))
        requests: list[proposals.AnyRequest] = [
            proposals.CommandRequest(self._command()),
            proposals.CommandRequest(bent(random, self._command())),
            proposals.CommandRequest(strange_message(random, self._command())),
            proposals.CommandRequest(garbage),
            proposals.BarrierRequest(),
            proposals.AddPeerRequest(Peer("Y", "127.0.0.1:1", random.random() < 0.5), garbage),
            proposals.RemovePeerRequest(random.choice("ABCXY"), garbage),
        ]
        if random.random() < 0.2:
            return random.choice(
                (proposals._Accepted(number, self._index(), self.term), proposals._Rejected(number, "no"))
            )
        return proposals._ForwardedRequest(number, random.choice(requests))

    def _command(self) -> bytes:
        random = self.random
        command = random.choice(
            (
                DeleteIndex(database=WILD, name="i"),
                SetDatabaseState(name=WILD, disabled=True),
                Checkpoint(made=()),
                ClaimTask(database=WILD, kind="SqlEtl", name="t", tag="X", node_id="x" * 32, boot=1, session=1),
            )
        )
        return encode(command, f"{random.getrandbits(60):x}")

    def _beat(self) -> Beat | Report:
        random = self.random
        stamps = [Stamp(random.randint(0, 3), random.getrandbits(63), random.getrandbits(62)) for _ in range(2)]
        term = random.randint(0, self.term)
        if random.random() < 0.4:
            return Beat(term=term, stamp=stamps[0], echo=random.choice((None, stamps[1])), timings=None)
        payload = {
            "node_id": f"{random.getrandbits(128):032x}",
            "flags": [],
            "databases": {"shop": {"status": "Loaded", "last_etag": self._index(), "change_vector": "A:1-x"}},
        }
        data = msgspec.msgpack.encode(payload)
        how = random.random()
        data = data if how < 0.2 else strange_message(random, data) if how < 0.7 else bent(random, data)
        return Report(
            term=term,
            stamp=stamps[0],
            echo=random.choice((None, stamps[1])),
            has_lease=random.random() < 0.5,
            applied_index=self._index(),
            payload=data,
        )
