"""The command behind `scripts/mutate`, which says what it is for."""

import argparse
import os
import sys
import time
from collections import Counter
from random import Random

from tests.mutation.mutants import Mutant, mutants
from tests.mutation.runner import MutantVerdict, preload, run
from tests.mutation.targets import ROOT, TESTS, Subject, equivalents, package_of, subjects

KILLED_PERCENT_MIN = 97.0
SAMPLE = 600
PROGRESS = 100
"""After how many mutants each the progress is printed, where it does not stay on one line."""
TOTAL = "all"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutate", epilog="scripts/mutate itself has examples.")
    parser.add_argument("paths", nargs="*", help="modules or directories (default: all that have tests)")
    parser.add_argument("--all", action="store_true", help="every change")
    parser.add_argument(
        "--sample", type=int, metavar="N", help=f"how many (default: {SAMPLE}, or all if paths are given)"
    )
    parser.add_argument("--seed", type=int, default=0, help="which are in the sample (default: 0)")
    parser.add_argument("--match", default="", metavar="TEXT", help="only those with that in their name")
    parser.add_argument("--share", type=share, default=(1, 1), metavar="K/N", help="the Kth of N equal parts of these")
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
        part, parts = given.share
        return report(tried(some[part - 1 :: parts], given.jobs))
    except ValueError as error:
        print(f"mutate: {error}", file=sys.stderr)
        return 2


def share(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is no share. Give the part and their number, like 1/4 to 4/4.")
    return int(part), int(parts)


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
    """The verdicts. Prints what they find as they come, so that a run that is cut off has said it."""
    found: list[MutantVerdict] = []
    same = equivalents()
    began = time.monotonic()
    for verdict in run(some, jobs):
        found.append(verdict)
        equivalent = listed(verdict, same)
        if verdict.killed == equivalent:
            words = "listed as equivalent, but killed: " if equivalent else ""
            print(f"{path(verdict)}:{verdict.mutant.line}: {words}{verdict.mutant.change}", flush=True)
        if sys.stderr.isatty() or len(found) % PROGRESS == 0 or len(found) == len(some):
            alive = sum(not each.killed for each in found)
            counts = f"{len(found)} of {len(some)} tried, {alive} not killed, {time.monotonic() - began:.0f} s"
            print(counts, end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
    return found


def report(found: list[MutantVerdict]) -> int:
    """Prints the counts by file and by package; the exit code."""
    same = equivalents()
    counted, killed, left_out = Counter[str](), Counter[str](), Counter[str]()
    for verdict in found:
        for name in (path(verdict), package_of(path(verdict)), TOTAL):
            left_out[name] += listed(verdict, same)
            counted[name] += not listed(verdict, same)
            killed[name] += verdict.killed and not listed(verdict, same)
    for name in sorted(counted, key=lambda name: (name == TOTAL, name in TESTS, name)):
        percent = 100 * killed[name] / (counted[name] or 1)
        print(f"{killed[name]:5} of {counted[name]:5} killed, {percent:5.1f} %; {left_out[name]:3} equivalent  {name}")
    wrong = any(verdict.killed and listed(verdict, same) for verdict in found)
    return 0 if 100 * killed[TOTAL] >= KILLED_PERCENT_MIN * counted[TOTAL] and not wrong else 1


def path(verdict: MutantVerdict) -> str:
    return str(verdict.subject.file.relative_to(ROOT))


def listed(verdict: MutantVerdict, same: dict[str, dict[str, str]]) -> bool:
    return verdict.mutant.change in same.get(path(verdict), {})


if __name__ == "__main__":
    sys.exit(main())
