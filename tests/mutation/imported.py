"""Mutants that Python finds in the module's place when it is imported: whatever they change, at the price of importing
the module, and collecting its tests, for each."""

import ast
import importlib.machinery
import importlib.util
import math
import os
import resource
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from types import CodeType, ModuleType

import pytest

from tests.mutation.child import OPTIONS, SLOWER_MAX, SPARE_S, Repeatable, fork
from tests.mutation.mutants import Mutant
from tests.mutation.targets import Subject


def run(some: Iterable[tuple[int, Subject, Mutant]], jobs: int) -> Iterator[tuple[int, bool]]:
    """The number of each, and whether it is killed, in the order in which they end; all have the same tests."""
    limit_s = None
    waiting = iter(some)
    running: dict[int, int] = {}
    while True:
        while len(running) < jobs and (one := next(waiting, None)):
            number, subject, mutant = one
            if limit_s is None:
                limit_s = _limit_s(subject)
            running[fork(partial(_test, subject, mutant.tree, limit_s))] = number
        if not running:
            return
        child, status = os.wait()
        yield running.pop(child), status != 0


def _limit_s(subject: Subject) -> int:
    """How much of the processor's time each mutant may use, in whole seconds."""
    _, status, used = os.wait4(fork(partial(_test, subject, None, None)), 0)
    if status != 0:
        raise ValueError(subject.failing)
    return math.ceil(SLOWER_MAX * (used.ru_utime + used.ru_stime) + SPARE_S)


def _test(subject: Subject, tree: ast.Module | None, limit_s: int | None) -> int:
    """Pytest's exit code for the module's tests with that tree in its place."""
    if limit_s is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
    if tree is not None:
        sys.meta_path.insert(0, _MutantFinder(subject, tree))
    return int(pytest.main([*OPTIONS, *subject.tests], plugins=[Repeatable()]))


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
