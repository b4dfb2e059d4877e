"""Code that can be read: a function fits a screen, and a class has its name for itself."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("raftnode", "observer", "tasks", "config")
LINES_MAX = 50


def definitions() -> list[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every class and function of the product, with the file in which it stands."""
    return [
        (path.relative_to(ROOT).as_posix(), node)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_a_function_fits_a_screen() -> None:
    long = [
        f"{file}:{node.lineno} {node.name} has {lines} lines"
        for file, node in definitions()
        if not isinstance(node, ast.ClassDef) and (lines := (node.end_lineno or 0) - node.lineno + 1) > LINES_MAX
    ]
    assert long == []


def test_no_two_classes_have_one_name() -> None:
    names = Counter(node.name for _, node in definitions() if isinstance(node, ast.ClassDef))
    assert {name: count for name, count in names.items() if count > 1} == {}
