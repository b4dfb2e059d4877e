"""What if: what would move, what would wait, and what cannot be supposed."""

from typing import Any

import msgspec
import pytest
from immutables import Map
from msgspec.structs import replace

from observer.rules.decide import after_loss
from raftnode.record.commands import (
    AddDatabaseNode,
    DeleteDatabase,
    ReleaseTask,
    SetDatabaseState,
    SetDraining,
    SetNodeFlags,
    SetNodeKind,
    SetNodeTraits,
    SetTaskPin,
    SuspendObserver,
)
from raftnode.record.commands.base import CommandRefused
from raftnode.record.encoding import enc_hook
from raftnode.record.grace import GRACE_SETTING
from raftnode.record.model import CommandError, KindTraits, Topology
from raftnode.record.ownership import UPDATE_KIND
from raftnode.record.whatif import Forecast, NewNode, Scenario, what_if
from tests.unit.record.build import KIND, RecordCluster

NAMES = tuple(f"t{i}" for i in range(30))


def three() -> RecordCluster:
    """Thirty tasks on A, B and C; D is in the cluster and not in the group."""
    cluster = RecordCluster("A", "B", "C", "D", "E")
    cluster.create("A", "B", "C")
    for name in NAMES:
        cluster.task(name)
    return cluster


def suppose(cluster: RecordCluster, *databases: str, **fields: Any) -> Forecast:
    before = cluster.record
    forecast = what_if(before, Scenario(**fields), databases or None, after_loss=after_loss, cluster_grace_min=30)
    assert cluster.record is before
    return forecast


def on(cluster: RecordCluster, tag: str) -> set[str]:
    return {name for name in NAMES if cluster.placed(name).node == tag}


def moves(forecast: Forecast) -> dict[str, tuple[str | None, str | None]]:
    return {fate.task_name: (fate.source, fate.target) for fate in forecast.moves}


def reasons(forecast: Forecast) -> dict[str, str]:
    return {fate.task_name: fate.reason or "" for fate in forecast.waits}


def test_nothing_supposed_moves_nothing() -> None:
    assert suppose(three()) == Forecast(tasks=30, moves=(), waits=())


def test_a_suspended_observer_moves_no_node_to_rehab_so_the_tasks_of_a_lost_one_wait() -> None:
    cluster = three()
    cluster.do(SuspendObserver(suspended=True))
    forecast = suppose(cluster, lost=("B",))
    assert forecast.moves == ()
    why = "the observer is suspended and moves no node to Rehab, and B would be lost"
    assert reasons(forecast) == dict.fromkeys(on(cluster, "B"), why)


def test_beside_a_lost_node_the_observer_moves_one_that_is_short_of_a_resource_too() -> None:
    cluster = three()
    cluster.do(SetNodeFlags(tag="C", flags=("HighDirtyMemory",)))
    assert suppose(cluster, drained=("D",)).moves == (), "nothing is lost: the forecast speaks of nothing else"
    forecast = suppose(cluster, lost=("B",))
    assert set(moves(forecast)) == on(cluster, "B") | on(cluster, "C")
    assert {target for _, target in moves(forecast).values()} == {"A"}


def test_the_tasks_of_a_lost_node_move_and_no_others() -> None:
    cluster = three()
    forecast = suppose(cluster, lost=("B",))
    assert set(moves(forecast)) == on(cluster, "B") != set()
    assert {source for source, _ in moves(forecast).values()} == {"B"}
    assert {target for _, target in moves(forecast).values()} <= {"A", "C"}
    assert {fate.rule for fate in forecast.moves} == {"Hash"}
    assert forecast.waits == ()


def test_a_fate_in_json_names_where_from_and_where_to() -> None:
    cluster = three()
    fate = msgspec.to_builtins(suppose(cluster, lost=("B",)).moves[0], enc_hook=enc_hook)
    assert (fate["From"], fate["Database"], fate["TaskType"], fate["Rule"]) == ("B", "Northwind", KIND, "Hash")
    assert set(fate) == {"Database", "TaskId", "TaskName", "TaskType", "From", "To", "Rule", "Reason"}


def test_a_pinned_task_waits_for_its_lost_node() -> None:
    cluster = three()
    cluster.task("pinned", mentor="B", pinned=True)
    assert reasons(suppose(cluster, lost=("B",))) == {"pinned": "it is pinned, and B would be lost"}


def test_a_mentored_task_moves_from_its_lost_mentor() -> None:
    cluster = three()
    cluster.task("mentored", mentor="B")
    assert moves(suppose(cluster, lost=("B",)))["mentored"][0] == "B"


def test_a_sticky_task_waits_for_its_last_holder_within_its_grace() -> None:
    cluster = three()
    cluster.task("backup", traits=KindTraits(sticky=True, grace_min=30))
    holder = cluster.placed("backup").node or ""
    epoch = cluster.do(cluster.claim(holder, "backup"))
    cluster.do(ReleaseTask(key="northwind/SqlEtl/backup", epoch=epoch))
    why = f"it stays with its last holder for 30 min, and {holder} would be lost"
    assert reasons(suppose(cluster, lost=(holder,))) == {"backup": why}


def test_the_grace_is_the_kinds_own_or_the_databases_or_the_clusters_and_none_at_all_moves_it() -> None:
    cluster = RecordCluster("A", "B", "C")
    cluster.create("A", "B", "C", settings=Map({GRACE_SETTING: "7"}))
    cluster.task("own", traits=KindTraits(sticky=True, grace_min=0), mentor="B")
    cluster.task("set", traits=KindTraits(sticky=True), mentor="B")
    for name in ("own", "set"):
        cluster.do(cluster.claim("B", name))
        cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now(name).id, mentor=None))
    forecast = suppose(cluster, lost=("B",))
    assert moves(forecast)["own"][0] == "B"
    assert reasons(forecast) == {"set": "it stays with its last holder for 7 min, and B would be lost"}


def test_without_highly_available_tasks_each_stays_with_its_last_holder() -> None:
    cluster = three()
    cluster.do(cluster.claim(holder := cluster.placed("t0").node or "", "t0"))
    cluster.record = replace(cluster.record, highly_available_tasks=False)
    assert "highly available tasks are off" in reasons(suppose(cluster, lost=(holder,)))["t0"]


def test_a_drained_nodes_tasks_move_and_its_pinned_ones_stay_until_it_stops() -> None:
    cluster = three()
    cluster.task("pinned", mentor="B", pinned=True)
    forecast = suppose(cluster, drained=("B",))
    assert set(moves(forecast)) == on(cluster, "B")
    why = "it is pinned, and B would drain: it runs on there until B stops"
    assert reasons(forecast) == {"pinned": why}


def test_an_undrained_node_takes_its_tasks_back() -> None:
    cluster = three()
    home = on(cluster, "B")
    cluster.do(SetDraining(tag="B", draining=True))
    assert set(moves(suppose(cluster, undrained=("B",)))) == home


def test_a_drained_node_that_is_lost_stays_a_member_as_the_observer_leaves_it() -> None:
    cluster = three()
    cluster.task("backup", traits=KindTraits(sticky=True, grace_min=30))
    holder = cluster.placed("backup").node or ""
    cluster.do(cluster.claim(holder, "backup"))
    cluster.do(SetDraining(tag=holder, draining=True))
    assert suppose(cluster, lost=(holder,)).waits == ()


def test_an_added_node_takes_tasks_whether_the_cluster_knows_it_or_not() -> None:
    cluster = three()
    for tag in ("D", "F"):
        forecast = suppose(cluster, added=(NewNode(tag=tag),))
        assert {target for _, target in moves(forecast).values()} == {tag}
        heavy = suppose(cluster, added=(NewNode(tag=tag, weight=10),))
        assert set(moves(forecast)) < set(moves(heavy))


def test_weights_move_tasks_only_to_the_heavier_node() -> None:
    cluster = three()
    forecast = suppose(cluster, weights={"C": 20})
    assert {target for _, target in moves(forecast).values()} == {"C"}


def test_labels_decide_which_nodes_can_take_a_task() -> None:
    cluster = three()
    cluster.task("fast", requires=("ssd",))
    assert reasons(suppose(cluster)) == {
        "fast": "no node of the group may run it: A LabelsMissing, B LabelsMissing, C LabelsMissing"
    }
    forecast = suppose(cluster, labels={"C": ("ssd",)})
    assert moves(forecast) == {"fast": (None, "C")}
    cluster.do(SetNodeTraits(tag="C", labels=("ssd",)))
    lost = suppose(cluster, labels={"C": ()})
    assert set(reasons(lost)) == {"fast"}


def test_when_no_member_is_left_alive_the_tasks_wait() -> None:
    cluster = RecordCluster("A", "B", "C")
    cluster.create("A")
    cluster.task("t")
    assert reasons(suppose(cluster, lost=("A",))) == {"t": "no Member of the group would be alive: A would be lost"}


def test_without_a_majority_of_voters_everything_waits() -> None:
    cluster = three()
    forecast = suppose(cluster, lost=("A", "B", "D"))
    assert set(reasons(forecast)) == set(NAMES)
    assert "2 of 5 voters would be left" in reasons(forecast)["t0"]


def test_half_of_the_voters_are_no_majority_and_watchers_do_not_count() -> None:
    cluster = three()
    cluster.do(SetNodeKind(tag="E", kind="Watcher"))
    assert suppose(cluster, lost=("B", "E")).waits == ()
    why = "2 of 4 voters would be left, which is no majority: no node would have a lease"
    assert reasons(suppose(cluster, lost=("B", "C"))) == dict.fromkeys(NAMES, why)


def test_the_tasks_of_a_database_without_nodes_wait() -> None:
    cluster = three()
    emptied = replace(cluster.database(), topology=Topology())
    cluster.record = replace(cluster.record, databases=cluster.record.databases.set("northwind", emptied))
    why = "no node of the group may run it: it is empty"
    assert reasons(suppose(cluster)) == dict.fromkeys(NAMES, why)


def test_disabled_tasks_and_databases_are_left_out() -> None:
    cluster = three()
    cluster.task("off", disabled=True)
    assert suppose(cluster).tasks == 30
    cluster.do(SetDatabaseState(name="Northwind", disabled=True))
    assert suppose(cluster).tasks == 0
    cluster.create("A", "B", name="Zoo")
    cluster.task("t", database="Zoo")
    assert suppose(cluster).tasks == 1, "those after it are not"


def test_moves_are_listed_by_database_whatever_was_asked_first() -> None:
    cluster = RecordCluster("A", "B", "C")
    names = list("QWERTZUIOP")
    for name in names:
        cluster.create("A", "B", "C", name=name)
        cluster.task("t", database=name)
    for asked in ([], names):
        forecast = suppose(cluster, *asked, drained=("A", "B"))
        listed = [move.database for move in forecast.moves]
        assert len(listed) > 3
        assert listed == sorted(listed)


@pytest.mark.parametrize("tag", ["D", "F"])
def test_a_node_that_is_added_has_its_labels_whether_it_was_in_the_cluster_or_not(tag: str) -> None:
    cluster = three()
    cluster.task("picky", requires=("ssd",))
    forecast = suppose(cluster, added=(NewNode(tag=tag, labels=("ssd",)),))
    assert moves(forecast)["picky"] == (None, tag)


def test_a_new_node_has_the_weight_of_one_unless_it_is_given() -> None:
    cluster = three()
    by_weight = {w: suppose(cluster, added=(NewNode(tag="F", weight=w),)) for w in (None, 1, 2)}
    assert by_weight[None] == by_weight[1] != by_weight[2]


def test_the_update_of_a_promotable_is_a_task_too() -> None:
    cluster = three()
    cluster.do(AddDatabaseNode(name="Northwind", tag="D", mentor="B"))
    forecast = suppose(cluster, lost=("B",))
    assert "D" in {fate.task_name for fate in forecast.moves if fate.task_type == UPDATE_KIND}


def test_only_the_databases_that_are_asked_about_are_looked_at() -> None:
    cluster = three()
    cluster.create("A", "B", name="Other")
    cluster.task("u", database="Other")
    assert suppose(cluster, "other").tasks == 1
    assert suppose(cluster, "Other", "northwind", "OTHER").tasks == suppose(cluster).tasks == 31


def test_a_node_is_added_only_where_it_is_not_yet() -> None:
    cluster = three()
    cluster.create("D", name="Other")
    cluster.create("B", "D", name="Leaving")
    cluster.do(DeleteDatabase(name="Leaving", from_nodes=("D",)))
    assert suppose(cluster, added=(NewNode(tag="D"),)).moves
    with pytest.raises(CommandRefused, match="'Added': Node 'D' holds database 'other' already"):
        suppose(cluster, "Other", added=(NewNode(tag="D"),))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"lost": ("Z",)}, "'Lost': Node 'Z' is not in the cluster. Known nodes: A, B, C, D, E"),
        ({"drained": ("Z",)}, "'Drained': Node 'Z'"),
        ({"undrained": ("Z",)}, "'Undrained': Node 'Z'"),
        ({"weights": {"Z": 2}}, "'Weights': Node 'Z'"),
        ({"weights": {"A": 0}}, "'Weights': Weight 0 is out of range"),
        ({"labels": {"Z": ()}}, "'Labels': Node 'Z'"),
        ({"weights": {"Z": 2, "Y": 2}}, "'Weights': Node 'Y'"),
        ({"labels": {"Z": (), "Y": ()}}, "'Labels': Node 'Y'"),
        ({"labels": {"A": ("",)}}, "'Labels': A label must not be empty"),
        ({"added": (NewNode(tag="lower"),)}, "'Added': Node tag 'lower' must be one to four capital letters"),
        ({"added": (NewNode(tag="F", weight=0),)}, "'Added': Weight 0"),
        ({"added": (NewNode(tag="A", weight=101),)}, "'Added': Weight 101"),
    ],
)
def test_what_cannot_be_supposed_is_refused_by_field(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(CommandRefused) as refused:
        suppose(three(), **fields)
    assert says in refused.value.error.message


def test_an_unknown_database_is_refused() -> None:
    with pytest.raises(CommandRefused) as refused:
        suppose(three(), "Nope")
    error = CommandError(
        type="DatabaseDoesNotExistException", message="Database 'Nope' does not exist. Create it first."
    )
    assert (refused.value.error, str(refused.value)) == (error, error.message)
