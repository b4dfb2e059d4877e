"""Mutants of functions: the modules are imported and their tests collected once. Then, in a forked process for each
mutant, the function gets the changed code, and those tests run that called it before the change."""

import ast
import gc
import json
import math
import os
import resource
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import CO_OPTIMIZED
from types import CodeType, FrameType, FunctionType
from typing import Any, TextIO

import pytest

from tests.mutation.child import OPTIONS, SLOWER_MAX, SPARE_S, Repeatable, fork
from tests.mutation.mutants import Mutant
from tests.mutation.targets import Subject

Numbered = tuple[int, Subject, Mutant]
Name = tuple[str, int, str]
"""Of a function: its file, first line and qualified name."""


@dataclass(frozen=True)
class _Test:
    """What a test does without any change."""

    item: pytest.Item
    used_s: float
    """Of the processor's time, while its calls are noted."""
    calls: frozenset[Name]


def run(some: Sequence[Numbered], jobs: int) -> Iterator[tuple[int, bool | None]]:
    """The number of each, and whether it is killed, in the order in which they end; None if it has to be imported. All
    have the same tests. ValueError if these fail without any change."""
    read, write = os.pipe()
    server = fork(partial(_serve, some, jobs, write))
    os.close(write)
    with os.fdopen(read) as answers:
        for line in answers:
            number, killed = json.loads(line)
            yield number, killed
    if os.waitpid(server, 0)[1] != 0:
        raise ValueError(some[0][1].failing)


def _serve(some: Sequence[Numbered], jobs: int, write: int) -> int:
    importing = _Calls(some)
    importing.begin()
    with os.fdopen(write, "w", buffering=1) as answers:
        loop = _Loop(some, jobs, answers, importing)
        return int(pytest.main([*OPTIONS, *some[0][1].tests], plugins=[Repeatable(), loop]))


class _Calls:
    """Which functions of the modules are called, in all threads."""

    def __init__(self, some: Sequence[Numbered]) -> None:
        self.names = set[Name]()
        self._files = frozenset(str(subject.file.absolute()) for _, subject, _ in some)

    def begin(self) -> None:
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def end(self) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename in self._files:
            self.names.add(_name(frame.f_code))


class _Loop:
    """Takes the place of pytest's loop over the tests."""

    def __init__(self, some: Sequence[Numbered], jobs: int, answers: TextIO, importing: _Calls) -> None:
        self._some, self._jobs, self._answers, self._importing = some, jobs, answers, importing

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        self._importing.end()
        if session.testsfailed:
            return None  # pytest's own loop says what it cannot import
        functions = _functions()
        gc.freeze()  # What is shared by all of them need not be looked through by each.
        tests = [self._observed(session, item) for item in session.items]
        if None in tests:
            session.testsfailed = 1
            return True
        by_name = defaultdict[Name, list[_Test]](list)
        for test in sorted(filter(None, tests), key=lambda test: test.used_s):
            for name in test.calls:
                by_name[name].append(test)
        self._try_all(session, functions, by_name)
        return True

    def _observed(self, session: pytest.Session, item: pytest.Item) -> _Test | None:
        """In a process of its own, so that nothing is kept from the test before. None if it fails."""
        read, write = os.pipe()
        child = fork(partial(self._observe, session, item, write))
        os.close(write)
        with os.fdopen(read) as answer:
            text = answer.read()
        if os.waitpid(child, 0)[1] != 0:
            return None
        used_s, names = json.loads(text)
        return _Test(item, used_s, frozenset((file, line, name) for file, line, name in names))

    def _observe(self, session: pytest.Session, item: pytest.Item, write: int) -> int:
        calls = _Calls(self._some)
        calls.begin()
        failed = _fails(session, item)
        calls.end()
        with os.fdopen(write, "w") as answer:
            json.dump((time.process_time(), sorted(calls.names)), answer)
        return int(failed)

    def _try_all(
        self, session: pytest.Session, functions: dict[Name, list[FunctionType]], tests: dict[Name, list[_Test]]
    ) -> None:
        originals = {subject.file: _compiled(subject, None) for _, subject, _ in self._some}
        running: dict[int, tuple[int, bool]] = {}
        for number, subject, mutant in self._some:
            changed = _changed(originals[subject.file], _compiled(subject, mutant.tree))
            name = _name(changed[0]) if changed else None
            if not changed or not name or not _fits(changed, functions.get(name, [])):
                self._answer(number, None)
                continue
            if len(running) == self._jobs:
                self._await_one(running)
            child = fork(partial(_try, session, functions[name], changed[1], tests.get(name, [])))
            running[child] = number, name in self._importing.names
        while running:
            self._await_one(running)

    def _await_one(self, running: dict[int, tuple[int, bool]]) -> None:
        child, status = os.wait()
        number, imported = running.pop(child)
        # What was called as the tests were imported had the code from before the change: they may notice it there.
        self._answer(number, True if status != 0 else None if imported else False)

    def _answer(self, number: int, killed: bool | None) -> None:
        print(json.dumps((number, killed)), file=self._answers)


def _functions() -> dict[Name, list[FunctionType]]:
    """All that there are."""
    found = defaultdict[Name, list[FunctionType]](list)
    for each in gc.get_objects():
        if isinstance(each, FunctionType):
            found[_name(each.__code__)].append(each)
    return found


def _name(code: CodeType) -> Name:
    return code.co_filename, code.co_firstlineno, code.co_qualname


def _compiled(subject: Subject, tree: ast.Module | None) -> CodeType:
    return compile(tree or subject.file.read_text(encoding="utf-8"), str(subject.file.absolute()), "exec")


def _changed(before: CodeType, after: CodeType) -> tuple[CodeType, CodeType] | None:
    """The outermost function that has changed, before and after; None if anything outside of it has."""
    pairs = [
        (one, other)
        for one, other in zip(before.co_consts, after.co_consts, strict=False)
        if isinstance(one, CodeType) and isinstance(other, CodeType) and one != other
    ]
    if len(pairs) != 1 or _without_functions(before) != _without_functions(after):
        return None
    return pairs[0] if pairs[0][0].co_flags & CO_OPTIMIZED else _changed(*pairs[0])


def _without_functions(code: CodeType) -> CodeType:
    return code.replace(co_consts=tuple(None if isinstance(one, CodeType) else one for one in code.co_consts))


def _fits(changed: tuple[CodeType, CodeType], functions: list[FunctionType]) -> bool:
    before, after = changed
    return bool(functions) and before.co_freevars == after.co_freevars and all(f.__code__ == before for f in functions)


def _try(session: pytest.Session, functions: list[FunctionType], code: CodeType, tests: list[_Test]) -> int:
    """0 if all pass with that code."""
    for function in functions:
        function.__code__ = code
    for test in tests:
        limit_s = math.ceil(time.process_time() + SLOWER_MAX * test.used_s + SPARE_S)
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, resource.RLIM_INFINITY))
        if _fails(session, test.item):
            return 1
    return 0


def _fails(session: pytest.Session, item: pytest.Item) -> bool:
    session.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    return session.testsfailed > 0
