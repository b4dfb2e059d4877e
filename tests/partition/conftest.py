"""Tests in here need a lab; where there can be none, they are skipped with the reason."""

import pytest

from tests.partition.lab import unavailable


@pytest.fixture(scope="session", autouse=True)
def _lab_is_possible() -> None:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
