"""Names compare without case, by one rule."""

import re
from pathlib import Path

import pytest

from raftnode.foundation.names import fold

ROOT = Path(__file__).parents[3]
HOLD_NAMES = ("raftnode/record", "raftnode/documents", "observer", "tasks/kinds", "tasks/etl")
"""Packages in which whatever is written in lower case is a name."""


@pytest.mark.parametrize(
    ("one", "other"), [("Northwind", "NORTHWIND"), ("Ämter", "äMTER"), ("orders/1-A", "Orders/1-a")]
)
def test_names_that_differ_in_case_alone_are_the_same(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"), [("Straße", "STRASSE"), ("Orders", "Orders "), ("é", "e\N{COMBINING ACUTE ACCENT}")]
)
def test_names_that_differ_otherwise_are_not(one: str, other: str) -> None:
    assert fold(one) != fold(other)


def test_folding_again_changes_nothing() -> None:
    assert all(fold(fold(chr(code))) == fold(chr(code)) for code in range(0x110000))


def test_the_rule_stands_in_one_place() -> None:
    files = [file for package in HOLD_NAMES for file in (ROOT / package).rglob("*.py")]
    assert len(files) > 40
    assert [str(file) for file in files if re.search(r"\.(lower|casefold)\(", file.read_text())] == []
