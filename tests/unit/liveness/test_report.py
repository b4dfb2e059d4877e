"""What the leader keeps of the nodes' reports, whatever comes over the wire."""

from typing import Any

import msgspec
import pytest
import structlog.testing

from raftnode.lease import Report, Stamp
from raftnode.liveness.report import CopyReport, NodeReport, ReceivedReports

COPY = CopyReport(status="Loaded", documents=3, last_etag=7, change_vector="A:7-AAAAAAAAAAAAAAAAAAAAAA", sent={"B": 7})
TOLD = NodeReport(node_id="id-B", flags=("HighDirtyMemory",), databases={"Northwind": COPY})


def report(payload: bytes = b"", applied_index: int = 5) -> Report:
    return Report(term=1, stamp=Stamp(1, 2, 3), echo=None, has_lease=True, applied_index=applied_index, payload=payload)


def encoded(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def test_a_report_comes_back_as_it_was_made() -> None:
    reports = ReceivedReports()
    reports.hear("B", report(encoded(TOLD)), 9)
    assert (reports["B"].node, reports["B"].heard_ns, reports["B"].samples) == (TOLD, 9, 1)


def test_a_report_of_another_version_is_read_as_far_as_it_is_known() -> None:
    """Names on the wire stay; what is missing has a default, and what is new is skipped."""
    wire = {
        "node_id": "id-B",
        "flags": ["HighDirtyMemory"],
        "databases": {
            "Northwind": {
                "status": "Loaded", "documents": 3, "last_etag": 7, "change_vector": "A:7-AAAAAAAAAAAAAAAAAAAAAA",
                "sent": {"B": 7}, "error": None, "colour": "blue",
            },
            "Small": {"status": "Unloaded"},
        },
        "kinds": ["SqlEtl"],
    }  # fmt: skip
    reports = ReceivedReports()
    reports.hear("B", report(encoded(wire)), 0)
    assert reports["B"].node == NodeReport(
        node_id="id-B",
        flags=("HighDirtyMemory",),
        databases={"Northwind": COPY, "Small": CopyReport(status="Unloaded")},
    )


def test_an_answer_without_a_payload_keeps_what_was_told_and_takes_the_rest() -> None:
    reports = ReceivedReports()
    reports.hear("B", report(), 0)
    assert (reports["B"].node, reports["B"].samples) == (None, 0)
    reports.hear("B", report(encoded(TOLD)), 1)
    told = reports["B"].node
    reports.hear("B", report(applied_index=6), 2)
    assert reports["B"].node is told
    assert (reports["B"].samples, reports["B"].last.applied_index, reports["B"].heard_ns) == (1, 6, 2)
    reports.hear("B", report(encoded(TOLD)), 3)
    assert reports["B"].node is told
    assert reports["B"].samples == 2


GARBAGE = [
    b"\x81\xa7node_id\xa1\xff",
    b"\x91" * 3000 + b"\xc0",
    encoded({"databases": {"Northwind": {"status": "Molten"}}}),
    encoded([]),
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_report_that_cannot_be_read_is_complained_of_once_and_the_last_one_stands(garbage: bytes) -> None:
    reports = ReceivedReports()
    with structlog.testing.capture_logs() as logs:
        reports.hear("B", report(garbage), 0)
        reports.hear("B", report(encoded(TOLD)), 1)
        for at_ns in range(2, 5):
            reports.hear("B", report(garbage, applied_index=at_ns), at_ns)
    assert [(log["event"], log["tag"]) for log in logs] == [("The report of a node cannot be read.", "B")]
    assert (reports["B"].node, reports["B"].samples) == (TOLD, 1)
    assert (reports["B"].heard_ns, reports["B"].last.applied_index) == (4, 4)


def test_what_was_heard_goes_with_the_node_and_with_the_leadership() -> None:
    reports = ReceivedReports()
    for tag in "BCD":
        reports.hear(tag, report(), 0)
    reports.keep({"B", "C"})
    assert set(reports) == {"B", "C"}
    reports.clear()
    assert reports == {}
