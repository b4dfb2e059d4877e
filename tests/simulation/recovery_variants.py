"""Recoveries by hand with one rule left out, and the first seed whose world notices.

  python -m tests.simulation.recovery_variants RULE [--seeds 40]

Exits as `hunt` does: 1 if a seed notices, and nothing once the rule is kept; 2 if it does then as well; 0 if none does.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest

from raftnode.cluster import recovery
from raftnode.consensus.model import StateMachine
from raftnode.consensus.storage import offline
from raftnode.consensus.storage.hard_state import HardStateFiles
from raftnode.consensus.storage.journal import PREFIX
from raftnode.consensus.storage.offline import LastEntry
from raftnode.consensus.storage.snapshot import SNAPSHOT
from raftnode.record import recovery as record_recovery
from raftnode.record.model import CommandResult
from raftnode.web.routes import snapshots
from tests.simulation import worst
from tests.simulation.operators import Operators
from tests.simulation.variants import Patch, Variant
from tests.simulation.world import simulate

SECONDS = 40.0


def same_generation(patch: Patch) -> None:
    """The epochs of the new cluster are of the old one's generation."""
    patch.setattr(record_recovery, "raised", lambda generation, minutes: generation)


def same_generation_without_gap(patch: Patch) -> None:
    """Nor do the indexes jump: what only the lost nodes granted is granted again."""
    same_generation(patch)
    patch.setattr(recovery, "INDEX_GAP", 0)


def generation_that_only_counts(patch: Patch) -> None:
    """Two survivors of one cluster, recovered one after the other, get the same generation."""
    patch.setattr(record_recovery, "raised", lambda generation, minutes: generation + 1)


def repeats_run_ahead(patch: Patch) -> None:
    """A recovery that is repeated takes another generation, ahead of the clock."""
    patch.setattr(recovery.Survivor, "only_begun", False)


def committed_entries_only(patch: Patch) -> None:
    """The survivor's log counts only as far as it knows it to be committed."""
    replay = offline.replay

    def short(directory: Path, machine: StateMachine, disk: Any) -> LastEntry:
        until = HardStateFiles(disk, directory).load_commit()
        apply = machine.apply

        def known(index: int, term: int, command: bytes) -> Any:
            return apply(index, term, command) if index <= until else CommandResult(index=index)

        machine.apply = known  # type: ignore[method-assign]
        return replay(directory, machine, disk)

    patch.setattr(offline, "replay", short)


def the_shortest_log(patch: Patch) -> None:
    """Of two survivors the one with the shorter log is recovered."""
    patch.setattr(worst, "the_best", lambda survivors: min(survivors, key=lambda one: (one.last.term, one.last.index)))


def claims_stay_held(patch: Patch) -> None:
    """Claims of nodes that are gone are not void in the new beginning."""
    patch.setattr(record_recovery, "_void", lambda claim, reason: claim)


def log_removed_first(patch: Patch) -> None:
    """The old log goes before the new beginning is whole."""
    begin = offline.begin_anew

    def careless(directory: Path, peer: Any, last: LastEntry, chunks: Any, disk: Any) -> None:
        for name in disk.names(directory):
            if name.startswith((PREFIX, SNAPSHOT)):
                disk.remove(directory / name)
        begin(directory, peer, last, chunks, disk)

    patch.setattr(offline, "begin_anew", careless)


def saved_without_barrier(patch: Patch) -> None:
    """A snapshot is saved without asking whether the node knows all that was acknowledged."""

    saved = snapshots.saved
    patch.setattr(snapshots, "saved", lambda raft, replica, *, local: saved(raft, replica, local=True))


RULES: dict[str, tuple[Variant, str]] = {
    "generation": (same_generation, "restore"),
    "gap": (same_generation_without_gap, "force"),
    "minutes": (generation_that_only_counts, "reconsider"),
    "repeat": (repeats_run_ahead, "reconsider"),
    "tail": (committed_entries_only, "force"),
    "best": (the_shortest_log, "force"),
    "void": (claims_stay_held, "force"),
    "rename": (log_removed_first, "force"),
    "barrier": (saved_without_barrier, "restore"),
}
"""Each rule: what leaves it out, and the recovery in which that shows."""

FIRST_SEEDS = {"barrier": 7, "best": 8, "minutes": 3, "rename": 3, "tail": 4}
"""Where to look first, as in `hunt`."""


def live(rule: str, seed: int, *, kept: bool) -> list[str]:
    """What that world notices, with the rule left out or kept."""
    leave_out, recovery = RULES[rule]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Operators, "plain", True)
        if not kept:
            leave_out(patch)
        kind = worst.KINDS[recovery]
        return simulate(seed, seconds=SECONDS, kind=kind, ends_at_a_breach=not kept).breaches


def told(rule: str, seeds: int) -> int:
    """The exit code of a hunt that tries so many seeds; prints what it found."""
    first = FIRST_SEEDS.get(rule, 1)
    for seed in range(first, first + seeds):
        noticed = live(rule, seed, kept=False)
        if noticed:
            print(f"{rule}: seed {seed} notices: {noticed[0]}")
            return 2 if live(rule, seed, kept=True) else 1
    print(f"{rule}: {seeds} seeds notice nothing")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rule", choices=sorted(RULES))
    parser.add_argument("--seeds", type=int, default=40)
    given = parser.parse_args()
    return told(given.rule, given.seeds)


if __name__ == "__main__":
    sys.exit(main())
