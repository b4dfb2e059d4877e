"""Connection strings to databases of other clusters: what is refused at the door."""

from typing import Any

import pytest

from tasks.kinds.connection_types import URLS_MAX, parse_raven
from tasks.kinds.registry import ConfigurationError

GOOD = {
    "Name": "x",
    "Type": "Raven",
    "Database": "Shop",
    "TopologyDiscoveryUrls": ["http://a:8080", "https://[::1]:1/"],
}


def test_a_good_one_passes() -> None:
    assert parse_raven(GOOD).topology_discovery_urls == GOOD["TopologyDiscoveryUrls"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"Database": " "}, "Database: is empty"),
        ({"TopologyDiscoveryUrls": []}, "TopologyDiscoveryUrls: has 0 entries"),
        ({"TopologyDiscoveryUrls": ["http://a"] * (URLS_MAX + 1)}, "name 1 to 100 nodes"),
        ({"TopologyDiscoveryUrls": ["a:8080"]}, "'a:8080' is no address of a node"),
        ({"TopologyDiscoveryUrls": ["http://a:99999"]}, "is no address of a node"),
        ({"TopologyDiscoveryUrls": ["http://a/databases/Shop"]}, "is no address of a node"),
        ({"TopologyDiscoveryUrls": ["http://u:hush@a"]}, "'http://u:********@a' is no address"),
        ({"TopologyDiscoveryUrls": ["http://a b:8080"]}, "'http://a b:8080' is no address of a node"),
        ({"TopologyDiscoveryUrls": [1]}, "TopologyDiscoveryUrls[0]: is a whole number; give text"),
        ({"TopologyDiscoveryUrls": None}, "TopologyDiscoveryUrls: is missing; add it"),
        ({"Database": "a b"}, "Database: Database name 'a b' may hold only letters, digits"),
    ],
)
def test_a_bad_one_is_refused_by_field(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_raven(GOOD | given)
    assert says in str(refused.value)
