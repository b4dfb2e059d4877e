"""The runner forks processes that load nothing of ours: so these tests start one that has not."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MODULE = """\
def last(items, limit):
    number = len(items)
    while number > limit:
        number -= 1
    return items[:number], limit < 5

SIZE = 2

class Shape:
    def area(self):
        return SIZE * SIZE

def square(number):
    return number * number

NINE = square(3)
"""
TESTS = """\
from hypothesis import given, strategies
from toy.shorten import NINE, Shape, last

def test_what_was_worked_out_as_the_module_was_imported():
    assert NINE == 9

def test_area():
    assert Shape().area() == 4

def test_short():
    assert last([1, 2], 5)[0] == [1, 2]

@given(strategies.lists(strategies.integers(), min_size=3))
def test_long(items):
    assert last(items, 2)[0] == items[:2]
"""
PROGRAM = """\
import json, sys
from pathlib import Path
from tests.mutation.mutants import mutants
from tests.mutation.runner import run
from tests.mutation.targets import Subject
file = Path("toy/shorten.py")
subject = Subject(file, "toy.shorten", ("test_toy.py",))
some = [(subject, mutant) for mutant in mutants(file.read_text()) if mutant.change in sys.argv[1:]]
print(json.dumps({v.mutant.change: v.killed for v in run(some, jobs=2)}))
"""


def run(directory: Path, tests: str, *changes: str) -> subprocess.CompletedProcess[str]:
    (directory / "toy").mkdir()
    (directory / "toy" / "__init__.py").touch()
    (directory / "toy" / "shorten.py").write_text(MODULE)
    (directory / "test_toy.py").write_text(tests)
    (directory / "pytest.ini").touch()
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *changes],
        cwd=directory,
        env={"PYTHONPATH": f"{ROOT}:{directory}", "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_what_the_tests_see_is_killed_also_by_not_ending_and_what_they_do_not_see_survives(tmp_path: Path) -> None:
    expected = {
        "last: while number > limit -> while False": True,
        "last: number -= 1 -> pass": True,
        "last: items[:number] -> items": True,
        "last: limit < 5 -> limit <= 5": False,
        "SIZE: 2 -> 3": True,
        "Shape.area: SIZE * SIZE -> SIZE // SIZE": True,
        "square: number * number -> number // number": True,
    }
    done = run(tmp_path, TESTS, *expected)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected


def test_tests_that_fail_without_a_change_are_named(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_never():\n    assert False\n", "last: 1 -> 2")
    assert "ValueError: The tests of toy.shorten fail without a change. Run: pytest test_toy.py" in done.stderr
