"""Runs a module's own tests against each mutant of it, each in a process of its own.

The process that forks them has loaded pytest and other people's packages, and nothing of ours. A mutant of a function
is put in place when all is imported (`patched`); every other is what Python finds when the module is imported for the
first time (`imported`). It may run until it has used several times the processor's time of an unchanged module, so the
tests must not wait; or until pytest's own limit ends a test that does.
"""

import contextlib
import gc
import importlib
import io
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.mutation import imported, patched
from tests.mutation.mutants import Mutant
from tests.mutation.targets import Subject

PACKAGES = ("immutables", "msgpack", "msgspec", "pytest_asyncio", "pytest_timeout", "structlog", "aiohttp")
OURS = frozenset({"raftnode", "observer", "tasks", "config"})


@dataclass(frozen=True)
class MutantVerdict:
    """Whether the tests of the module kill the mutant: whether one fails, or does not end."""

    subject: Subject
    mutant: Mutant
    killed: bool


def preload() -> None:
    """Loads what every process would load. Once, before any of ours is loaded."""
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--version", "--noconftest"])
    for name in PACKAGES:
        importlib.import_module(name)
    loaded = sorted(name for name in sys.modules if name.partition(".")[0] in OURS)
    assert not loaded, f"loaded before any mutant: {loaded}"
    gc.freeze()  # What is shared by all of them need not be looked through by each.


def run(mutants: Sequence[tuple[Subject, Mutant]], jobs: int) -> Iterator[MutantVerdict]:
    """The verdicts, in the order in which they come; `jobs` mutants are tried at a time. ValueError if tests fail
    without any change."""
    by_tests = defaultdict[tuple[str, ...], list[patched.Numbered]](list)
    for number, (subject, mutant) in enumerate(mutants):
        by_tests[subject.tests].append((number, subject, mutant))
    for some in by_tests.values():
        rest = set[int]()
        for number, killed in patched.run(some, jobs):
            if killed is None:
                rest.add(number)
            else:
                yield MutantVerdict(*mutants[number], killed)
        for number, dead in imported.run([one for one in some if one[0] in rest], jobs):
            yield MutantVerdict(*mutants[number], dead)
