"""Runs a module's own tests against each mutant of it, each in a process of its own.

The process that forks them has loaded pytest and other people's packages, and nothing of ours: a mutant is what Python
finds when the module is imported for the first time. It may run until it has used several times the processor's time
of an unchanged module, so the tests must not wait; or until pytest's own limit ends a test that does.
"""

import ast
import contextlib
import gc
import importlib.machinery
import importlib.util
import io
import math
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import NoReturn

import pytest
from hypothesis import Phase, settings

from tests.mutation.mutants import Mutant

PACKAGES = ("immutables", "msgpack", "msgspec", "pytest_asyncio", "pytest_timeout", "structlog", "aiohttp")
OURS = frozenset({"raftnode", "observer", "tasks", "config"})
SLOWER_MAX = 4
"""How many times the processor's time of the unchanged module a mutant may use."""
SPARE_S = 2.0
MEMORY_BYTES_MAX = 2 << 30


@dataclass(frozen=True)
class Subject:
    """A module: its file, its name, and the files or directories of its own tests."""

    file: Path
    module: str
    tests: tuple[str, ...]


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
    by_tests = {subject.tests: subject for subject, _ in mutants}
    limits = {tests: _limit_s(subject) for tests, subject in by_tests.items()}
    waiting = iter(mutants)
    running: dict[int, tuple[Subject, Mutant]] = {}
    while True:
        while len(running) < jobs and (one := next(waiting, None)):
            subject, mutant = one
            running[_start(subject, mutant.tree, limits[subject.tests])] = one
        if not running:
            return
        child, status = os.waitpid(-1, 0)
        yield MutantVerdict(*running.pop(child), killed=status != 0)


def _limit_s(subject: Subject) -> int:
    """How much of the processor's time each mutant may use, in whole seconds."""
    _, status, used = os.wait4(_start(subject, None, None), 0)
    if status != 0:
        command = " ".join(["pytest", *subject.tests])
        raise ValueError(f"The tests of {subject.module} fail without a change. Run: {command}")
    return math.ceil(SLOWER_MAX * (used.ru_utime + used.ru_stime) + SPARE_S)


def _start(subject: Subject, tree: ast.Module | None, limit_s: int | None) -> int:
    """The id of a process that ends with 0 if the tests pass with that tree in the module's place."""
    child = os.fork()
    return child or _test(subject, tree, limit_s)


def _test(subject: Subject, tree: ast.Module | None, limit_s: int | None) -> NoReturn:
    """Never returns: this process is a copy of the one that waits for it."""
    code = os.EX_SOFTWARE
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if limit_s is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
        if tree is not None:
            sys.meta_path.insert(0, _MutantFinder(subject, tree))
        options = ["-x", "-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider"]
        code = int(pytest.main([*options, *subject.tests], plugins=[_Repeatable()]))
    finally:
        os._exit(code)


class _Repeatable:
    """The same examples of every property each time, and no search for a smaller one when a mutant is killed."""

    def pytest_collection(self) -> None:
        """After conftest.py, before the tests are imported."""
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutation", settings(), derandomize=True, database=None, phases=phases)
        settings.load_profile("mutation")


class _MutantFinder:
    """Has Python find the mutant where it looks for the module."""

    def __init__(self, subject: Subject, tree: ast.Module) -> None:
        self._subject, self._loader = subject, _Loader(subject, tree)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        if fullname != self._subject.module:
            return None
        return importlib.util.spec_from_file_location(fullname, self._subject.file, loader=self._loader)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, subject: Subject, tree: ast.Module) -> None:
        super().__init__(subject.module, str(subject.file))
        self._tree = tree

    def get_code(self, fullname: str) -> CodeType:
        """The mutant's code, of which Python keeps no copy."""
        return compile(self._tree, self.path, "exec")
