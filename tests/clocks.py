"""The slowest and the fastest clock that the guarantee allows together: the model and the simulator run both."""

import math

from raftnode.foundation.clock_margins import CLOCK_DRIFT_PERCENT_MAX

FASTEST = math.sqrt(1 + CLOCK_DRIFT_PERCENT_MAX / 100)
"""How many of its seconds pass in a true one."""
SLOWEST = 1 / FASTEST
