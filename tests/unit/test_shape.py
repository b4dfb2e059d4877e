"""Code that can be read: a function fits a screen, and a class has its name for itself."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("raftnode", "observer", "tasks", "config")
LINES_MAX = 50
SHELL_FUNCTION = re.compile(r"(?ms)^(\w+) ?\(\) \{$.*?^\}$")

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> list[Path]:
    """Every module of the product and of its tests."""
    return [path for package in (*PACKAGES, "tests") for path in sorted((ROOT / package).rglob("*.py"))]


def scripts(interpreter: str) -> list[Path]:
    """The files below `scripts` that this interpreter runs; those without a first line that says so are bash's."""
    files = [path for path in sorted((ROOT / "scripts").rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    return [path for path in files if interpreter in (shebang(path) or "bash")]


def shebang(path: Path) -> str:
    line = path.read_text(encoding="utf-8").partition("\n")[0]
    return line if line.startswith("#!") else ""


def definitions(paths: list[Path]) -> Iterator[tuple[str, Definition]]:
    """Every class and function, with the file in which it stands."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Definition):
                yield path.relative_to(ROOT).as_posix(), node


def test_a_function_fits_a_screen() -> None:
    lengths = [
        (f"{file}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for file, node in definitions(modules() + scripts("python"))
        if not isinstance(node, ast.ClassDef)
    ]
    for path in scripts("bash"):
        found = SHELL_FUNCTION.finditer(path.read_text(encoding="utf-8"))
        lengths += [(f"{path.relative_to(ROOT)} {function[1]}", function[0].count("\n") + 1) for function in found]
    assert {"scripts/test main", "scripts/lib/postgres.sh start_postgres"} <= {name for name, _ in lengths}
    assert [f"{name} has {lines} lines" for name, lines in lengths if lines > LINES_MAX] == []


def test_no_two_classes_have_one_name() -> None:
    found = definitions(modules() + scripts("python"))
    names = Counter(node.name for _, node in found if isinstance(node, ast.ClassDef))
    assert {name: count for name, count in names.items() if count > 1} == {}
