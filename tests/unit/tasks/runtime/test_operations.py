"""What a node does for users."""

import pytest

from tasks.runtime import operations
from tasks.runtime.operations import Operations


def test_ids_grow_and_what_ended_first_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "OPERATIONS_MAX", 2)
    known = Operations()
    running = known.begin("a", type="T")
    ended = known.begin("b", type="T")
    ended.completed({"x": 1})
    last = known.begin("c", type="T")
    assert running.id < ended.id < last.id
    assert [one.id for one in known.all()] == [running.id, last.id]
    assert known.get(ended.id) is None
    assert (ended.status, ended.result, ended.cancel) == ("Completed", {"x": 1}, None)


def test_an_operation_ends_once() -> None:
    operation = Operations().begin("a", type="T")
    operation.failed("why")
    with pytest.raises(AssertionError):
        operation.canceled()
    assert (operation.status, operation.error) == ("Faulted", "why")
