"""What a node tells the leader of itself in its answers to beats, and what the leader has heard.

For `raftnode.lease` the payload of a report is bytes. Here it is a `NodeReport`, from the node that makes it to the
observer that reads it.
"""

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Literal

import msgspec
import structlog

from raftnode.foundation.decoding import DECODE_ERRORS, MsgpackDecoder
from raftnode.foundation.ports import NS_PER_MS
from raftnode.lease import Report
from raftnode.record.model import ResourceFlag

PAYLOAD_BYTES_MAX = 1024 * 1024
PAYLOAD_PERIOD_MS = 200
"""A report carries its payload no more often than this, so that short heartbeats stay small."""

_log = structlog.get_logger(__name__)


class CopyReport(msgspec.Struct, frozen=True, kw_only=True):
    """A node's copy of a database: whether it serves, how far it is, and up to which etag it has sent its changes to
    each other node."""

    status: Literal["Loaded", "Loading", "Faulted", "Unloaded"]
    documents: int = 0
    last_etag: int = 0
    change_vector: str = ""
    sent: Mapping[str, int] = {}
    error: str | None = None


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the observer is to know of a node: the resources that it is short of, and its copies by database."""

    node_id: str = ""
    flags: tuple[ResourceFlag, ...] = ()
    databases: Mapping[str, CopyReport] = {}


_decoder: MsgpackDecoder[NodeReport] = MsgpackDecoder(NodeReport)


class ReportPayload:
    """This node's own report as bytes, at most every PAYLOAD_PERIOD_MS to one leader. `own` gives the same object as
    long as nothing has changed in it: then it is not encoded again."""

    def __init__(self, own: Callable[[], NodeReport]) -> None:
        self._own = own
        self._sent: tuple[int, int] | None = None
        self._encoded: tuple[NodeReport | None, bytes] = (None, b"")

    def due(self, term: int, now_ns: int) -> bytes:
        """What goes with the answer to a beat of that term; empty if it is too soon."""
        if self._sent is not None:
            sent_term, sent_ns = self._sent
            if sent_term == term and now_ns - sent_ns < PAYLOAD_PERIOD_MS * NS_PER_MS:
                return b""
        self._sent = (term, now_ns)
        report, (before, payload) = self._own(), self._encoded
        if report is not before:
            payload = msgspec.msgpack.encode(report)
            self._encoded = report, payload
        if len(payload) <= PAYLOAD_BYTES_MAX:
            return payload
        _log.error("The report is too large and goes without its payload.", bytes=len(payload), most=PAYLOAD_BYTES_MAX)
        return b""


@dataclass(frozen=True)
class ReceivedReport:
    """What a leader has heard of a node. `last` is the node's newest answer to a beat, heard at `heard_ns` (a judge
    reading). `node` is what it last told of itself, the same object as long as it tells the same, None before it has;
    `samples` counts how often it has, and `encoded` is how that came."""

    last: Report
    heard_ns: int
    node: NodeReport | None = None
    samples: int = 0
    encoded: bytes = b""


class ReceivedReports(Mapping[str, ReceivedReport]):
    """The last report of each node to this leader, by tag."""

    def __init__(self) -> None:
        self._heard: dict[str, ReceivedReport] = {}
        self._unreadable: dict[str, bytes] = {}

    def __getitem__(self, tag: str) -> ReceivedReport:
        return self._heard[tag]

    def __iter__(self) -> Iterator[str]:
        return iter(self._heard)

    def __len__(self) -> int:
        return len(self._heard)

    def clear(self) -> None:
        """The leadership is over."""
        self._heard, self._unreadable = {}, {}

    def keep(self, tags: Set[str]) -> None:
        """Forget the nodes that are not among these any more."""
        for tag in self._heard.keys() - tags:
            del self._heard[tag]

    def hear(self, tag: str, report: Report, now_ns: int) -> None:
        """The node's newest answer. What it tells of itself stands until it tells something else that can be read."""
        known = self._heard.get(tag) or ReceivedReport(report, now_ns)
        node, encoded, samples = known.node, known.encoded, known.samples
        if report.payload and report.payload == encoded:
            samples += 1
        elif report.payload and (told := self._read(tag, report.payload)) is not None:
            node, encoded, samples = told, report.payload, samples + 1
        self._heard[tag] = ReceivedReport(report, now_ns, node, samples, encoded)

    def _read(self, tag: str, payload: bytes) -> NodeReport | None:
        """The report, or None, which is complained of once as long as it is the same."""
        if payload == self._unreadable.get(tag):
            return None
        try:
            return _decoder.decode(payload)
        except DECODE_ERRORS as error:
            self._unreadable[tag] = payload
            _log.warning("The report of a node cannot be read.", tag=tag, error=str(error))
            return None
