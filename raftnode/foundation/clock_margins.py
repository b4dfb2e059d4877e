"""How far the clocks of two nodes may drift apart, and what that adds to every time that one node waits for another.

The clocks of two machines never run equally fast. A node that waits until another one's lease has ended must wait
longer, by its own clock, than the lease lasts by the other's. These are the only numbers for that: the settings are
checked with them, the lease is computed with them, and the model and the simulator run clocks that drift as far as they
allow. docs/guarantees.md has the proof.
"""

CLOCK_DRIFT_PERCENT_MAX = 5
"""The clock of one node never runs faster than that of another by more than this, over a few seconds."""
MARGIN_MS = 100
"""Scheduling and the resolution of clocks."""

FACTOR_TEXT = f"{1 + CLOCK_DRIFT_PERCENT_MAX / 100:g}"


def with_clock_margin(span: int, margin: int) -> int:
    """How long whoever judges waits for a span of somebody else's clock to be over, rounded up; in the unit of both."""
    return -(-span * (100 + CLOCK_DRIFT_PERCENT_MAX) // 100) + margin
