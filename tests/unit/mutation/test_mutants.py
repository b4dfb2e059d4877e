import ast

import pytest

from tests.mutation import targets
from tests.mutation.mutants import mutants

OPERATORS = {
    "x = 1": {"x = 2", "x = 0"},
    "x = True": {"x = False"},
    "x = 'a'": {"x = 'XXa'"},
    "f(a < b)": {"f(a <= b)", "f(a >= b)", "pass"},
    "f(a <= b < c)": {"f(a < b < c)", "f(a > b < c)", "f(a <= b <= c)", "f(a <= b >= c)", "pass"},
    "f(a is None)": {"f(a is not None)", "pass"},
    "x = a in b": {"x = a not in b"},
    "x = a and b": {"x = a or b", "x = a", "x = b"},
    "x = a or b or c": {"x = a and b and c", "x = b or c", "x = a or c", "x = a or b"},
    "x = not a": {"x = a"},
    "x = a + b": {"x = a - b"},
    "x = a | b": set(),
    "f(a | b)": {"f(a & b)", "pass"},
    "x = a if b else c": {"x = a", "x = c"},
    "x = [a for a in b if a if c]": {"x = [a for a in b if c]", "x = [a for a in b if a]"},
    "x = a[:b]": {"x = a"},
    "del a[:b]": set(),
    "x = (*a, b)": {"x = (*(), b)"},
    "x = min(a, b)": {"x = a", "x = b", "x = max(a, b)"},
    "x = sorted(a, key=b)": {"x = list(a)", "x = sorted(a)"},
    "x = any(a)": {"x = all(a)"},
    "x = a.lower()": {"x = a"},
    "x = f(a, b)": {"x = f(b, a)"},
    "x = f(a, b=b, c=c)": {"x = f(a, c=c)", "x = f(a, b=b)"},
    "x += a": {"pass", "x -= a"},
    "x = f'{a} is not {b!r}'": set(),
    "if a:\n    x = y": {"if True:\n    x = y", "if False:\n    x = y"},
    "while a:\n    break": {"while False:\n    break", "while a:\n    pass"},
    "for a in b:\n    continue": {"for a in b:\n    pass", "for a in b:\n    break"},
    "def f(a: 'A'=b) -> 'B':\n    'What.'\n    return a": {"def f(a: 'A'=b) -> 'B':\n    'What.'\n    return None"},
    "def f():\n    return None": set(),
    "def f():\n    raise a": {"def f():\n    pass"},
    "class A(B, frozen=True, tag='A'):\n    'What.'": {"class A(B, frozen=True, tag='XXA'):\n    'What.'"},
    "@f(1)\nclass A:\n    x: 'int'": set(),
    "from a import b\nA = B | C\nD = Literal['e', 'f']\nE = TypeVar('E')": set(),
}


@pytest.mark.parametrize("text", OPERATORS)
def test_every_operator_changes_just_what_it_names(text: str) -> None:
    changed = [ast.unparse(mutant.tree) for mutant in mutants(text)]
    assert sorted(changed) == sorted(ast.unparse(ast.parse(text)) for text in OPERATORS[text])


TEXT = """\
LIMIT = 3

class A:
    size: int = 4

    def f(self, b):
        if b > LIMIT and b > LIMIT:
            return 1
        return self.a_name_that_is_long.and_another.and_a_third(b, key=7) + self.a_name_that_is_long.and_another(b, c)
"""


def test_a_change_has_a_name_that_stays_when_lines_move_and_none_has_that_of_another() -> None:
    names = [mutant.change for mutant in mutants(TEXT)]
    assert [mutant.change for mutant in mutants("\n\n" + TEXT)] == names
    assert len(set(names)) == len(names)
    assert {
        "LIMIT: 3 -> 4",
        "A.size: 4 -> 3",
        "A.f: if b > LIMIT and b > LIMIT -> if True",
        "A.f: b > LIMIT -> b >= LIMIT",
        "A.f: b > LIMIT -> b >= LIMIT (2)",
        "A.f: …e_that_is_long.and_another.and_a_third(b, key=7) -> …e_that_is_long.and_another.and_a_third(b)",
    } <= set(names)


def test_a_change_has_the_line_of_what_it_changes() -> None:
    assert {(mutant.line, mutant.change.partition(":")[0]) for mutant in mutants(TEXT)} == {
        (1, "LIMIT"),
        (4, "A.size"),
        (7, "A.f"),
        (8, "A.f"),
        (9, "A.f"),
    }


def test_every_equivalent_is_a_change_that_the_module_has_and_has_a_reason() -> None:
    for file, equivalents in targets.equivalents().items():
        names = {mutant.change for mutant in mutants((targets.ROOT / file).read_text(encoding="utf-8"))}
        assert sorted(set(equivalents) - names) == [], file
        assert all(equivalents.values()), file


def test_every_module_of_the_core_has_tests_to_ask() -> None:
    found = targets.subjects([])
    assert {subject.module for subject in found} >= {
        "raftnode.record.machine",
        "raftnode.record.commands",
        "raftnode.lease.authority",
        "observer.rules.demote",
        "tasks.runtime.plan",
    }
    for subject in found:
        assert subject.file.is_file()
        assert all((targets.ROOT / path).exists() for path in subject.tests)


@pytest.mark.parametrize(("path", "message"), [("raftnode/nowhere", "no module"), ("raftnode/node.py", "No tests")])
def test_a_path_without_modules_or_tests_is_refused(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        targets.subjects([path])
