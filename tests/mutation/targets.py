"""What `scripts/mutate` changes, and the tests that it asks: those of the module itself, quick ones first."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENTS = Path(__file__).with_name("equivalents.toml")

TESTS = {
    "raftnode/lease": ("tests/unit/lease", "tests/properties/test_lease_membership.py"),
    "raftnode/record": (
        "tests/unit/record/test_format.py",
        "tests/unit/record",
        "tests/properties/test_whatif.py",
        "tests/properties/test_recovery.py",
    ),
    "observer/rules": ("tests/unit/observer/rules",),
    "tasks/runtime/plan.py": ("tests/unit/tasks/runtime/test_plan.py", "tests/properties/test_tasks_plan.py"),
    "raftnode/consensus/engine/message_filter.py": (
        "tests/unit/consensus/engine",
        "tests/properties/test_message_filter.py",
    ),
}


@dataclass(frozen=True)
class Subject:
    """A module: its file, its name, and the files or directories of its own tests."""

    file: Path
    module: str
    tests: tuple[str, ...]

    @property
    def failing(self) -> str:
        """What to say if they fail without a change."""
        return f"The tests of {self.module} fail without a change. Run: pytest {' '.join(self.tests)}"


def subjects(paths: list[str]) -> list[Subject]:
    """The modules at and below the paths, which are relative to the project; all that have tests here if none is given.
    ValueError for a path that has none."""
    files: list[str] = []
    for path in paths or list(TESTS):
        found = [path] if path.endswith(".py") else [str(f.relative_to(ROOT)) for f in (ROOT / path).rglob("*.py")]
        if not found:
            raise ValueError(f"{path} holds no module. Give a file or a directory, relative to the project.")
        files += sorted(found)
    return [Subject(ROOT / file, module_of(file), TESTS[package_of(file)]) for file in dict.fromkeys(files)]


def module_of(file: str) -> str:
    """The name under which the file is imported."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def package_of(file: str) -> str:
    """The package or module in TESTS that the file belongs to. ValueError if there is none."""
    for path in TESTS:
        if file == path or file.startswith(f"{path}/"):
            return path
    raise ValueError(f"No tests are named for {file} in tests/mutation/targets.py. Add them there.")


def equivalents() -> dict[str, dict[str, str]]:
    """The changes that mean the same as the original, and why; by the file's path and the change."""
    return tomllib.loads(EQUIVALENTS.read_text(encoding="utf-8"))
