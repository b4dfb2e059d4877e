"""Every event of the log is a sentence: people read the log, and the values stand in fields."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("raftnode", "observer", "tasks", "config")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
LOGS = {"log", "_log"}
THIS_NODE = "node"
"""Who writes: bound to every line by raftnode.foundation.logs. Another node that a line is about stands in tag."""
GATHERED = {("_decisions", "of")}
PASSED_ON = {
    ("observer/observer.py", "sentence.message"),
    ("raftnode/web/routes/task_definitions.py", "warning"),
    ("tasks/runtime/decision_log.py", "event"),
}
"""Events that were made elsewhere: the observer's decisions, warnings of an answer, what DecisionLog.of was given."""


def calls(text: str) -> list[ast.Call]:
    """Every call of a log in a program's text; its first argument is the event."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        of = ast.unparse(node.func.value).rpartition(".")[2]
        if (of in LOGS and node.func.attr in LEVELS) or (of, node.func.attr) in GATHERED:
            found.append(node)
    return found


def texts(event: ast.expr) -> list[str]:
    """What an event may say. A value in the midst of a sentence is "X"; none if the program does not show it."""
    if isinstance(event, ast.Constant):
        return [str(event.value)]
    if isinstance(event, ast.JoinedStr):
        return ["".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in event.values)]
    if isinstance(event, ast.IfExp):
        return texts(event.body) + texts(event.orelse)
    return []


def is_sentence(text: str) -> bool:
    """Words that begin with a capital letter, end with one full stop, and hold no `name=value`."""
    return text[:1].isupper() and text.endswith(".") and not text.endswith("..") and " " in text and "=" not in text


def test_every_event_of_the_log_is_a_sentence() -> None:
    wrong, passed_on, count = [], set(), 0
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for call in calls(path.read_text()):
                said = texts(call.args[0])
                count += len(said)
                if not said:
                    passed_on.add((name, ast.unparse(call.args[0])))
                wrong += [f"{name}:{call.lineno}: {text}" for text in said if not is_sentence(text)]
                wrong += [f"{name}:{call.lineno}: {THIS_NODE}=" for field in call.keywords if field.arg == THIS_NODE]
    assert wrong == []
    assert passed_on == PASSED_ON
    assert count > 100, "the calls are found"


def test_every_log_has_a_name_by_which_its_calls_are_found() -> None:
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text())
        made = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "get_logger"]
        named = [node for node in tree.body if isinstance(node, ast.Assign) and "get_logger" in ast.unparse(node.value)]
        assert {ast.unparse(target) for node in named for target in node.targets} <= LOGS, path
        assert len(made) == len(named), path


@pytest.mark.parametrize(
    "text", ["the node stops.", "The node stops", "The node stops..", "before=None leader=A", "Stopped.", ""]
)
def test_what_is_no_sentence(text: str) -> None:
    assert not is_sentence(text)
