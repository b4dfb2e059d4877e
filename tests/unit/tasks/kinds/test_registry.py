"""Kinds of plug-ins that fail at the door: the field and the remedy, and no defect of the node."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from raftnode.record.model import Database, Topology
from raftnode.record.ownership import task_key
from tasks.kinds import registry as kinds
from tasks.kinds.registry import ConfigurationError, TaskDefinition, known, loaded, parsed
from tests.harness import plugins

DATABASE = Database(name="Northwind", etag=1, topology=Topology(members=("A",)))


class Careless:
    """A kind that trusts its input."""

    name = "Careless"

    def parse(self, configuration: Mapping[str, Any], database: Database) -> Any:
        if configuration.get("Odd"):
            return {"Name": "x"}
        name = configuration["Name"]
        return TaskDefinition(name=name, kind="Careless", key=task_key("Careless", name), configuration=b"{}")


KIND = Careless()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(kinds.BUILT_IN, "careless", f"{__name__}:KIND")
    monkeypatch.setitem(kinds.BUILT_IN, "broken", f"{__name__}:NOT_THERE")
    kinds._entry_points.cache_clear()
    yield
    kinds._entry_points.cache_clear()


def test_a_field_that_a_plug_in_misses_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"KeyError: 'Name'\. Is that field missing"):
        parsed("Careless", {}, DATABASE)
    assert parsed("careless", {"Name": "x"}, DATABASE).name == "x"
    assert loaded("Careless") is not None


def test_a_plug_in_that_gives_no_definition_is_named() -> None:
    with pytest.raises(ConfigurationError, match="returned dict, not a"):
        parsed("Careless", {"Odd": True}, DATABASE)


def test_a_plug_in_that_cannot_be_imported_is_named_with_why() -> None:
    assert known("Broken")
    with pytest.raises(ConfigurationError, match="cannot be loaded on this node: AttributeError"):
        parsed("Broken", {}, DATABASE)
    assert loaded("Broken") is None


@pytest.mark.parametrize("name", ["update", "UPDATE", "sql_etl", "SqlEtl"])
def test_a_plug_in_takes_the_place_of_no_kind_of_ours_and_the_log_says_so(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = type(kinds.load(name))
    plugins.install(tmp_path, Path(__file__), name)
    monkeypatch.syspath_prepend(str(tmp_path))
    kinds._entry_points.cache_clear()
    with capture_logs() as lines:
        assert type(kinds.load(name)) is ours
    [line] = [line for line in lines if line["log_level"] == "warning"]
    assert line["event"] == "A task kind is not used, as another one has its name. Rename its entry point."
    assert (line["kind"], line["ignored"]) == (name, "test_registry:KIND")
