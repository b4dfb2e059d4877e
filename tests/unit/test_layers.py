"""Every module has its place in the order of the layers, which lint-imports checks."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("raftnode", "observer", "tasks", "config")


def test_each_module_belongs_to_exactly_one_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layered,) = (contract for contract in contracts if contract["type"] == "layers")
    layers = [name.strip() for row in layered["layers"] for name in row.split("|")]
    files = [file.relative_to(ROOT) for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    modules = {file.with_suffix("").as_posix().replace("/", ".") for file in files if file.name != "__init__.py"}
    places = {module: [at for at in layers if f"{module}.".startswith(f"{at}.")] for module in modules}
    assert {module: found for module, found in places.items() if len(found) != 1} == {}
