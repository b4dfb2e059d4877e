"""The command behind `scripts/mutate`, which says what it is for."""

import argparse
import os
import sys
import time
from collections import Counter
from random import Random

from tests.mutation.mutants import Mutant, mutants
from tests.mutation.runner import MutantVerdict, Subject, preload, run
from tests.mutation.targets import ROOT, equivalents, subjects

KILLED_PERCENT_MIN = 97.0
SAMPLE = 600


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutate", epilog="scripts/mutate itself has examples.")
    parser.add_argument("paths", nargs="*", help="modules or directories (default: all that have tests)")
    parser.add_argument("--all", action="store_true", help="every change")
    parser.add_argument(
        "--sample", type=int, metavar="N", help=f"how many (default: {SAMPLE}, or all if paths are given)"
    )
    parser.add_argument("--seed", type=int, default=0, help="which are in the sample (default: 0)")
    parser.add_argument("--match", default="", metavar="TEXT", help="only those with that in their name")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time (default: all cores)")
    given = parser.parse_args()
    os.chdir(ROOT)
    preload()
    try:
        whole = given.all or given.paths or given.match
        some = chosen(given.paths, given.match, given.sample or (None if whole else SAMPLE), given.seed)
        if given.match:
            for _, mutant in some:
                print(f"{mutant.line}: {mutant.change}")
        return report(tried(some, given.jobs))
    except ValueError as error:
        print(f"mutate: {error}", file=sys.stderr)
        return 2


def chosen(paths: list[str], text: str, number: int | None, seed: int) -> list[tuple[Subject, Mutant]]:
    found = [
        (subject, mutant)
        for subject in subjects(paths)
        for mutant in mutants(subject.file.read_text(encoding="utf-8"))
        if text in mutant.change
    ]
    if number is None or number >= len(found):
        return found
    return [found[index] for index in sorted(Random(seed).sample(range(len(found)), number))]


def tried(some: list[tuple[Subject, Mutant]], jobs: int) -> list[MutantVerdict]:
    found = []
    began = time.monotonic()
    for verdict in run(some, jobs):
        found.append(verdict)
        print(f"\r{len(found)} of {len(some)} in {time.monotonic() - began:.0f} s", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def report(found: list[MutantVerdict]) -> int:
    """Prints what survived, and the counts by file; the exit code."""
    same = equivalents()
    counted, killed, left_out, wrong = Counter[str](), Counter[str](), Counter[str](), 0
    for verdict in sorted(found, key=lambda one: (one.subject.file, one.mutant.line)):
        file, change = str(verdict.subject.file.relative_to(ROOT)), verdict.mutant.change
        if change in same.get(file, {}):
            left_out[file] += 1
            if verdict.killed:
                wrong += 1
                print(f"{file}:{verdict.mutant.line}: listed as equivalent, but killed: {change}")
            continue
        counted[file] += 1
        killed[file] += verdict.killed
        if not verdict.killed:
            print(f"{file}:{verdict.mutant.line}: {change}")
    for file in sorted(counted | left_out):
        print(f"{killed[file]:5} of {counted[file]:5} killed, {left_out[file]:3} equivalent  {file}")
    percent = 100 * killed.total() / (counted.total() or 1)
    print(f"{killed.total()} of {counted.total()} killed, {percent:.1f} %; {left_out.total()} equivalent")
    return 0 if percent >= KILLED_PERCENT_MIN and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
