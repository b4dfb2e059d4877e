"""How the tests are laid out over workers (`-n 2`): what starts nodes on one of them, what computes on the others.

Nodes have deadlines of a fraction of a second, so never do two clusters run at once. They mostly wait, and what
computes takes the processor's time that they leave. A unit of work goes to one worker, in the order of `rank`.
"""

ORDER = ("cluster", "scenarios", "partition", "chaos", "fuzz", "simulation", "properties", "fixtures", "unit")
"""The directories of tests, in the order in which their tests begin. The longest come first: they cannot be divided."""

NODES = frozenset({"cluster", "scenarios", "partition", "chaos", "fuzz"})
"""Those whose tests start nodes as processes, or need a network or the machine as a whole: all one unit."""

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


def unit(nodeid: str) -> str:
    """The name of the unit that the test belongs to."""
    if directory(nodeid) in NODES:
        return "nodes"
    return nodeid if directory(nodeid) in APART else nodeid.partition("::")[0]


def share(worker: str | None, workers: int) -> tuple[int, int]:
    """Which of how many equal shares of the machine's ports that worker (`gw0`, ...) may use; all of them without."""
    return (int(worker.removeprefix("gw")) % workers, workers) if worker else (0, 1)
