"""Simulated worlds wait for nobody, and no deadline of theirs is in real time."""

import contextlib
import os
from collections.abc import Iterator

import pytest

NICENESS = 10


@pytest.fixture(scope="module", autouse=True)
def _what_others_leave() -> Iterator[None]:
    """The worlds' processes, one on each core, take the time that the nodes of another worker's tests leave."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, max(before, NICENESS))
    yield
    with contextlib.suppress(PermissionError):  # only root may take it back
        os.setpriority(os.PRIO_PROCESS, 0, before)
