"""Hunts, as many at once as there are cores, each in a process forked from this one, which has loaded everything.

  python -m tests.simulation.hunts SEEDS MODULE:RULE ...

Prints a line of JSON for each that has ended: the rule, the hunt's exit code, what it printed.
"""

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import signal
import sys

Hunt = tuple[str, str, int]
"""The hunter's module, the rule, and how many seeds it tries."""


def hunted(given: Hunt) -> tuple[str, int, str]:
    """The rule, the exit code of its hunt, and what that printed."""
    module, rule, seeds = given
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = importlib.import_module(module).told(rule, seeds)
    return rule, code, printed.getvalue()


def main() -> None:
    seeds, *named = sys.argv[1:]
    hunts: list[Hunt] = []
    for name in named:
        module, _, rule = name.partition(":")
        importlib.import_module(module)
        hunts.append((module, rule, int(seeds)))
    # Whoever ends this process ends the hunts, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    ended = (signal.signal, (signal.SIGTERM, signal.SIG_DFL))
    with multiprocessing.get_context("fork").Pool(os.cpu_count(), *ended, maxtasksperchild=1) as pool:
        for found in pool.imap_unordered(hunted, hunts):
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
