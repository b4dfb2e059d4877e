"""Looks for a seed whose world notices that a rule is left out.

  python -m tests.simulation.hunt RULE [--seeds 40]

Looks from the rule's seed in FIRST_SEEDS on. Prints the first breach and its seed, and exits with 1 if that world
notices nothing once the rule is kept, with 2 if it does then as well: it has found a defect of the product, or of the
world.
"""

import argparse
import sys
from collections.abc import Callable

import pytest

from tests.simulation import claim_variants as claims
from tests.simulation import directed, requests, variants
from tests.simulation import schedules as worlds
from tests.simulation.operators import Operators
from tests.simulation.schedules import Schedule
from tests.simulation.variants import Patch, Variant
from tests.simulation.world import simulate

RULES: dict[str, tuple[Variant, Schedule]] = {
    "R": (variants.half_a_lease_of_silence, worlds.as_it_comes),
    "R_factor": (variants.silence_without_margin, worlds.slow_holders),
    "wait2L": (variants.no_wait_after_the_election, worlds.as_it_comes),
    "waitL": (variants.short_wait_after_the_election, worlds.hanging_on_the_old_leader),
    "wait_factor": (variants.wait_without_margin, directed.handed_over),
    "silence": (variants.void_without_silence, worlds.as_it_comes),
    "echo": (variants.lease_from_receipt, directed.unheard),
    "authority": (variants.leader_without_authority, worlds.hanging_on_the_old_leader),
    "held": (claims.grant_over_a_held_claim, worlds.restless),
    "session": (claims.claim_outlives_its_session, worlds.returning_late),
    "elect_echo": (variants.leader_elect_grants, directed.last_decisions),
    "finished": (claims.spent_epoch_runs_again, worlds.restless),
    "rel_epoch": (claims.release_of_any_epoch, worlds.late_copies),
    "stop_first": (claims.release_before_the_end, worlds.restless),
    "stamp_inc": (variants.stamps_without_incarnation, directed.started_again),
    "incarnation": (claims.claim_outlives_its_process, worlds.lagging),
    "nonce": (variants.processes_without_nonce, directed.copied),
    "former": (claims.grant_over_a_former_process, directed.copied),
    "watchdog": (variants.no_watchdog, directed.freezing),
    "claim_lives": (claims.claim_dies_with_its_task, worlds.names_again),
    "clock": (variants.clock_that_stops_in_a_pause, directed.freezing),
    "sink": (variants.sink_without_epochs, worlds.slow_sinks),
    "fence_first": (variants.read_before_the_fence, worlds.slow_sinks),
    "void_epoch": (variants.void_of_any_epoch, worlds.late_copies),
    "void_term": (variants.void_of_any_term, directed.stale_decisions),
    "journal_sync": (variants.journal_without_sync, worlds.as_it_comes),
    "no_memory": (variants.any_error_is_an_answer, worlds.starving),
    "apply_failed": (variants.failed_entries_count_as_applied, worlds.starving),
    "asked": (variants.another_request_is_a_repeat, requests.repeating),
    "repeat": (variants.answers_are_not_kept, requests.repeating),
    "stored_vote": (variants.vote_that_is_not_stored, worlds.winners_alone),
}
"""Each rule: what leaves it out, and the world in which that shows."""


BESIDE: dict[Schedule, Callable[[Patch], None]] = {
    worlds.slow_sinks: worlds.hop_slowly,
    directed.handed_over: variants.no_fallback,
    directed.stale_decisions: variants.no_fallback,
    directed.last_decisions: claims.claim_outlives_its_session,
}
"""What else a world needs, whether the rule is kept or not."""


FIRST_SEEDS = {
    "R": 6, "R_factor": 5, "clock": 2, "fence_first": 3, "incarnation": 2, "rel_epoch": 2, "sink": 3, "stop_first": 8,
    "void_epoch": 9, "void_term": 7, "wait2L": 9, "watchdog": 3,
}  # fmt: skip
"""Where to look first for rules that few worlds miss; all others are counted from 1."""


def hunt(rule: str, seeds: range) -> tuple[int, str] | None:
    """The first seed that notices, and what it says; None if none does."""
    for seed in seeds:
        breaches = live(rule, seed, kept=False)
        if breaches:
            return seed, breaches[0]
    return None


def live(rule: str, seed: int, *, kept: bool) -> list[str]:
    """What that world notices, with the rule left out or kept."""
    leave_out, schedule = RULES[rule]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Operators, "plain", True)
        if schedule in BESIDE:
            BESIDE[schedule](patch)
        if not kept:
            leave_out(patch)
        return simulate(seed, change=schedule, ends_at_a_breach=not kept).breaches


def told(rule: str, seeds: int) -> int:
    """The exit code of a hunt that tries so many seeds; prints what it found."""
    first = FIRST_SEEDS.get(rule, 1)
    found = hunt(rule, range(first, first + seeds))
    if found is None:
        print(f"{rule}: {seeds} seeds notice nothing")
        return 0
    seed, breach = found
    print(f"{rule}: seed {seed} notices: {breach}")
    with_the_rule = live(rule, seed, kept=True)
    if with_the_rule:
        print(f"{rule}: seed {seed} notices also with the rule kept: {with_the_rule[0]}")
        return 2
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rule", choices=sorted(RULES))
    parser.add_argument("--seeds", type=int, default=40)
    given = parser.parse_args()
    return told(given.rule, given.seeds)


if __name__ == "__main__":
    sys.exit(main())
