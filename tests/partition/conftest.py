"""One lab of five nodes for all tests of a module; each test has a database of its own and leaves the network whole.

Tests in here need a lab; where there can be none, they are skipped with the reason.
"""

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.harness.runs import assert_no_overlap
from tests.partition.lab import Lab, unavailable
from tests.partition.scene import MEMBERS, all_good, insert_only, revive
from tests.scenarios.conftest import Group

_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def _lab_is_possible() -> None:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def profile() -> str:
    """The timing profile of the nodes; a module may say otherwise."""
    return "fast"


@pytest.fixture(scope="module")
def flags() -> tuple[str, ...]:
    """More flags of every node; a module may have some."""
    return ()


@pytest.fixture(scope="module")
def guests() -> str:
    """The nodes that join later; a module may have some."""
    return ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(
    tmp_path_factory: pytest.TempPathFactory, profile: str, flags: tuple[str, ...], guests: str
) -> AsyncIterator[Lab]:
    """Five nodes in a network; at the end no two runs of a task may have overlapped."""
    flags = ("--cluster.stabilization-time-sec", "0", *flags)
    async with Lab(tmp_path_factory.mktemp("lab"), guests=guests, profile=profile, flags=flags) as made:
        yield made
        assert_no_overlap(made.runs(), [])


@pytest_asyncio.fixture(loop_scope="module")
async def group(lab: Lab) -> AsyncIterator[Group]:
    """A database on A, B and E with a task for each of them. A test that fails does so alone: the next finds all
    well."""
    made = await Group(lab, f"Db{next(_numbers)}", MEMBERS).create()
    for tag in MEMBERS:
        await made.add_task(f"on{tag}", MentorNode=tag, **insert_only())
    for tag in MEMBERS:
        await made.held_by(f"on{tag}", tag)
    yield made
    lab.network.heal()
    for tag in lab.nodes:
        lab.thaw(tag)
    revive(lab)
    await lab.wait_until(lambda: all_good(lab), "every node to be ready")
    await lab.call("DELETE", "/admin/databases", {"DatabaseNames": [made.name], "HardDelete": True}, "A")
