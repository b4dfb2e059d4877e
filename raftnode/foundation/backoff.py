"""How long to wait before something that failed is tried again."""

from raftnode.foundation.ports import Random

DOUBLINGS_MAX = 30
"""A thousand million times the shortest wait, which is above every longest one; more would only make large numbers."""


def backoff(failures: int, shortest: float, longest: float, random: Random | None = None) -> float:
    """The wait after so many failures in a row, from 1: `shortest`, doubled with each further one, at most `longest`;
    in the unit of both. With `random` it is anywhere between half and all of that, so that what failed at the same time
    is not tried again at the same time."""
    wait: float = min(longest, shortest * 2 ** min(failures - 1, DOUBLINGS_MAX))
    return wait if random is None else wait * (1 + random.random()) / 2
