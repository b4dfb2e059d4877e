"""How long a sticky task waits: what its kind says, or else its database, or else the cluster."""

import pytest
from immutables import Map

from raftnode.record.grace import GRACE_MIN_MAX, GRACE_SETTING, grace_min, minutes
from raftnode.record.model import Database, KindTraits, Task, Topology


@pytest.mark.parametrize(
    ("given", "means"),
    [("0", 0), ("7", 7), ("007", 7), ("10080", 10_080), ("10081", None), ("00010", 10), ("000010", None), ("", None),
     ("-1", None), ("1.5", None), ("soon", None), ("\u0663", None), (" 7", None)],
)  # fmt: skip
def test_a_setting_is_a_whole_number_of_minutes(given: str, means: int | None) -> None:
    assert minutes(given) == means
    assert GRACE_MIN_MAX == 10_080


@pytest.mark.parametrize(
    ("own", "setting", "expected"), [(3, "5", 3), (0, "5", 0), (None, "5", 5), (None, "0", 0), (None, "x", 30)]
)
def test_the_nearest_one_counts(own: int | None, setting: str, expected: int) -> None:
    task = Task(id=1, name="t", kind="Backup", key=1, traits=KindTraits(sticky=True, grace_min=own))
    database = Database(name="d", etag=1, topology=Topology(), settings=Map({GRACE_SETTING: setting}))
    assert grace_min(database, task, 30) == expected
    assert grace_min(Database(name="d", etag=1, topology=Topology()), task, 30) == (30 if own is None else own)
    assert GRACE_SETTING == "Backup.MoveToNewResponsibleNodeGracePeriodInMin"
