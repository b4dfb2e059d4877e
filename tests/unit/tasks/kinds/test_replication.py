"""External replication: what is refused at the door, what its info shows, and a run over real HTTP."""

import json
from typing import Any

import pytest
from immutables import Map

from raftnode.foundation.decoding import from_json
from raftnode.record.model import ConnectionString, Database, Task, Topology
from tasks.kinds import registry
from tasks.kinds.registry import ConfigurationError, ShowsMore
from tasks.kinds.replication.configuration import ExternalReplicationConfiguration
from tasks.kinds.replication.task import KIND

STRING: dict[str, Any] = {
    "Name": "Copy",
    "Type": "Raven",
    "Database": "Elsewhere",
    "TopologyDiscoveryUrls": ["http://c:1", "http://d:1"],
}
OTHER: dict[str, Any] = {"Name": "target", "Type": "Sql", "FactoryName": "Npgsql", "ConnectionString": "Host=x"}


def database() -> Database:
    strings = {
        string["Name"].lower(): ConnectionString(
            name=string["Name"], type=string["Type"], configuration=json.dumps(string).encode()
        )
        for string in (STRING, OTHER)
    }
    return Database(name="Shop", etag=1, topology=Topology(members=("A",)), connection_strings=Map(strings))


def parsed(**more: Any) -> ExternalReplicationConfiguration:
    definition = registry.parsed("replication", {"ConnectionStringName": "copy"} | more, database())
    return from_json(definition.configuration, ExternalReplicationConfiguration)


def test_names_are_filled_in_as_ravendb_does() -> None:
    found = parsed(Url=None, Type="External", TaskId=0, Disabled=False)
    assert (found.name, found.connection_string_name, found.database) == (
        "External Replication to Copy", "Copy", "Elsewhere",
    )  # fmt: skip
    assert parsed(Database="ELSEWHERE", Name=" x ").name == "x"


@pytest.mark.parametrize(
    ("delay", "seconds"), [(None, 0), ("00:00:00", 0), ("00:00:00.5", 0.5), ("2.03:00:00", 183_600)]
)
def test_a_delay_is_a_time_span(delay: str | None, seconds: float) -> None:
    assert parsed(DelayReplicationFor=delay).delay_s == seconds


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"ConnectionStringName": "nope"},
            "ConnectionStringName: there is no Raven connection string 'nope'; known: Copy",
        ),
        ({"ConnectionStringName": None}, "ConnectionStringName: there is no Raven connection string ''; known: Copy"),
        ({"ConnectionStringName": "target"}, "there is no Raven connection string 'target'"),
        ({"Database": "Third"}, "Database: is 'Third', but connection string 'Copy' names 'Elsewhere'"),
        ({"DelayReplicationFor": "soon"}, "DelayReplicationFor: is 'soon'; write a time span"),
        ({"DelayReplicationFor": "-00:10:00"}, "DelayReplicationFor: is '-00:10:00'"),
        ({"DelayReplicationFor": "00:99:00"}, "DelayReplicationFor: is '00:99:00'"),
        ({"DelayReplicationFor": "1001.00:00:00"}, "at most 1000 days"),
        ({"Type": "PullAsSink"}, "Type: is 'PullAsSink'; an external replication has 'External'"),
        ({"PinToMentorNode": "yes"}, "PinToMentorNode: is text; give true or false"),
        ({"Requires": [""]}, "Requires: "),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parsed(**given)
    assert says in str(refused.value)


def test_only_name_and_connection_string_decide_where_it_runs() -> None:
    def key(**more: Any) -> int:
        return registry.parsed("Replication", {"ConnectionStringName": "copy"} | more, database()).key

    assert key() == key(DelayReplicationFor="00:10:00", ConnectionStringName="COPY", MentorNode="A")
    assert key() != key(Name="other")


def test_its_info_has_ravendbs_fields_whether_it_runs_or_not() -> None:
    assert isinstance(KIND, ShowsMore)
    definition = registry.parsed("Replication", {"ConnectionStringName": "copy"}, database())
    task = Task(id=1, name=definition.name, kind="Replication", key=1, configuration=definition.configuration)
    shown = KIND.shown(task, json.dumps(STRING).encode(), {"DestinationUrl": "http://d:1", "LastSentEtag": 7})
    assert shown["TopologyDiscoveryUrls"] == STRING["TopologyDiscoveryUrls"]
    assert (shown["DestinationUrl"], shown["DestinationDatabase"], shown["LastSentEtag"]) == (
        "http://d:1",
        "Elsewhere",
        7,
    )
    gone = KIND.shown(task, None, {})
    assert gone.keys() == shown.keys()
    assert (gone["DestinationUrl"], gone["DestinationDatabase"], gone["LastSentEtag"]) == (None, "Elsewhere", 0)
