"""How the tests are laid out over workers (`-n 3`).

Tests that start nodes wait most of the time, and what computes takes the processor's time that they leave. So each
module goes to the worker that is free first, in the order of `rank`: the simulation to the first, nodes to the others.
"""

ORDER = ("simulation", "partition", "chaos", "cluster", "scenarios", "client", "fuzz", "properties", "fixtures", "unit")
"""The directories of tests, in the order in which their tests begin. What takes longest and cannot be divided comes
first."""

TOGETHER = frozenset({"simulation", "partition"})
"""Those of which all tests are one unit: the simulation keeps every core busy by itself, and no two networks of nodes
with the shortest leases are to run at once."""

NICENESS = {"partition": 0, "simulation": 10}
"""The nodes of `partition` have leases of a fraction of a second and come first; simulated worlds wait for nobody and
take what is left."""
NICENESS_OF_OTHERS = 5

APART = frozenset({"properties"})
"""Those whose tests share nothing, so that each is a unit. Of all others each module is one, as its fixtures are."""


def directory(nodeid: str) -> str:
    """The directory below `tests` in which the test is."""
    parts = nodeid.partition("::")[0].split("/")
    return parts[1] if parts[0] == "tests" and len(parts) > 2 else ""


def rank(nodeid: str) -> int:
    """Where the test's directory comes in the order; one that it does not have comes last."""
    name = directory(nodeid)
    return ORDER.index(name) if name in ORDER else len(ORDER)


def niceness(nodeid: str) -> int:
    """How nice the test's worker is, and with it all that the test starts."""
    return NICENESS.get(directory(nodeid), NICENESS_OF_OTHERS)


def unit(nodeid: str) -> str:
    """The name of the unit that the test belongs to."""
    if directory(nodeid) in TOGETHER:
        return directory(nodeid)
    return nodeid if directory(nodeid) in APART else nodeid.partition("::")[0]


def share(worker: str | None, workers: int) -> tuple[int, int]:
    """Which of how many equal shares of the machine's ports that worker (`gw0`, ...) may use; all of them without."""
    return (int(worker.removeprefix("gw")) % workers, workers) if worker else (0, 1)
