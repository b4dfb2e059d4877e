"""What beats and reports look like on the wire: nodes of an earlier and of a later version read them."""

import msgspec
import pytest

from raftnode.lease import Beat, Report
from tests.unit.lease.world import TIMINGS, own, theirs

TEXTS: list[tuple[Beat | Report, str]] = [
    (
        Beat(term=4, stamp=own(1), echo=theirs(2), timings=TIMINGS),
        '{"type":"beat","term":4,"stamp":[3,77,1000000],"echo":[1,5,2000000],"timings":{"HeartbeatMs":200,'
        '"LeaseMs":1800,"TaskStopTimeoutMs":1000,"TimeBeforeMovingToRehabMs":4000}}',
    ),
    (
        Report(term=4, stamp=theirs(2), echo=None, has_lease=True, applied_index=9, payload=b"x"),
        '{"type":"report","term":4,"stamp":[1,5,2000000],"echo":null,"has_lease":true,"applied_index":9,'
        '"payload":"eA=="}',
    ),
]


@pytest.mark.parametrize(("message", "text"), TEXTS)
def test_on_the_wire(message: Beat | Report, text: str) -> None:
    assert msgspec.json.encode(message).decode() == text
    wire = msgspec.msgpack.encode(message)
    assert msgspec.msgpack.decode(wire, type=Beat | Report) == message
