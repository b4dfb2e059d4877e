"""How far the clocks of two nodes may be apart, and what that adds to every span that one of them judges about another.

The one place for these numbers: the settings are checked with them, the lease is computed with them, and the model and
the simulator run clocks that are as far apart as they allow. docs/guarantees.md carries the proof.
"""

RATES_APART_PERCENT = 5
"""The clock of one node never runs faster than that of another by more than this, over a few seconds."""
MARGIN_MS = 100
"""Scheduling and the resolution of clocks."""

FACTOR_TEXT = f"{1 + RATES_APART_PERCENT / 100:g}"


def with_clock_margin(span: int, margin: int) -> int:
    """How long whoever judges waits for a span of somebody else's clock to be over, rounded up; in the unit of both."""
    return -(-span * (100 + RATES_APART_PERCENT) // 100) + margin
