"""How fast something is counted, over the last while."""

import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 10.0
SAMPLE_S = 0.25


class Rate:
    """Of a count that only grows, as `saw` is told of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def saw(self, count: int) -> None:
        """The count is this now. Cheap: most calls remember nothing."""
        now_s = self._clock()
        if self._samples and count < self._samples[-1][1]:
            self._samples.clear()
        if not self._samples or now_s >= self._samples[-1][0] + SAMPLE_S:
            self._samples.append((now_s, count))
        while len(self._samples) > 1 and self._samples[1][0] <= now_s - WINDOW_S:
            self._samples.popleft()

    def per_s(self, count: int) -> float:
        """How many a second were counted within the last WINDOW_S, or since the first call; the count is this now."""
        self.saw(count)
        since_s, before = self._samples[0]
        return (count - before) / max(self._clock() - since_s, SAMPLE_S)
