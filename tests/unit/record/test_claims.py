"""Claims: grant, repeat, release and void, and what they outlive."""

from immutables import Map
from msgspec.structs import replace

from raftnode.record.commands import (
    AddDatabaseNode,
    AddNode,
    Checkpoint,
    ClaimTask,
    ConfirmDeletion,
    CreateDatabase,
    Decide,
    DeleteDatabase,
    DeleteTask,
    NewTopology,
    ProgressMade,
    PromoteDatabaseNode,
    PutTask,
    ReleaseTask,
    RemoveNode,
    SetDatabaseState,
    SetDraining,
    SetTaskPin,
    SetTaskState,
    VoidClaim,
)
from raftnode.record.model import GENERATION_STRIDE, RUNS_KEPT_MAX, Cause, EndedRun, FailedDocument, Progress, claim_key
from raftnode.record.ownership import UPDATE_KIND, mentor_of
from raftnode.record.progress import DOCUMENT_ID_LENGTH_MAX, ERROR_LENGTH_MAX, FAILURE_LENGTH_MAX, FAILURES_SHOWN_MAX
from tests.unit.record.build import KIND, RecordCluster, node

KEY = claim_key("Northwind", KIND, "t")


def two() -> RecordCluster:
    """A task `t` that belongs to A, and a second node B."""
    cluster = RecordCluster("A", "B")
    cluster.create("A", "B")
    cluster.task("t", mentor="A")
    return cluster


def move(cluster: RecordCluster, tag: str) -> None:
    cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now("t").id, mentor=tag))


def decide(cluster: RecordCluster, epoch: int, *, key: str = KEY, term: int | None = None) -> Decide:
    return Decide(
        term=cluster.term if term is None else term,
        iteration=1,
        at="2026-01-01T00:00:00Z",
        at_ms=1,
        voids=(VoidClaim(key=key, epoch=epoch, reason="silent"),),
    )


def test_a_grant_gives_the_log_index_as_epoch() -> None:
    cluster = two()
    epoch = cluster.do(cluster.claim("A", "t"))
    assert epoch == cluster.record.index
    assert cluster.claimed("t").state == "Held"


def test_the_generation_stands_above_the_log_index() -> None:
    cluster = two()
    cluster.record = replace(cluster.record, generation=3)
    assert cluster.do(cluster.claim("A", "t")) == 3 * GENERATION_STRIDE + cluster.record.index


def test_a_repeat_gets_the_same_epoch() -> None:
    cluster = two()
    epoch = cluster.do(cluster.claim("A", "t"))
    before = cluster.claimed("t")
    assert cluster.do(cluster.claim("A", "t")) == epoch
    assert cluster.claimed("t") == before


def test_a_new_session_of_the_same_process_gets_a_new_epoch_at_once() -> None:
    cluster = two()
    first = cluster.do(cluster.claim("A", "t", session=1))
    second = cluster.do(cluster.claim("A", "t", session=2))
    assert first < second
    assert "has ended" in cluster.refused(cluster.claim("A", "t", session=1))


def test_a_later_start_of_the_node_waits_until_the_claim_of_the_former_one_is_void() -> None:
    """Which may live: nothing proves that the directory was not copied."""
    cluster = two()
    first = cluster.do(cluster.claim("A", "t"))
    assert cluster.announce("A", boot=2, nonce=8).error is None
    assert "Start 1 of node 'A' still holds" in cluster.refused(cluster.claim("A", "t", boot=2, nonce=8))
    cluster.do(decide(cluster, first))
    assert cluster.do(cluster.claim("A", "t", boot=2, nonce=8)) > first
    assert cluster.claimed("t").nonce == 8


def test_only_the_process_that_has_announced_itself_may_claim() -> None:
    cluster = two()
    for boot, nonce in ((1, 8), (2, 7), (2, 8), (0, 7)):
        assert "has announced itself" in cluster.refused(cluster.claim("A", "t", boot=boot, nonce=nonce))
    epoch = cluster.do(cluster.claim("A", "t"))
    assert cluster.announce("A", boot=2, nonce=8).error is None
    assert "has announced itself" in cluster.refused(cluster.claim("A", "t", session=2)), "the former one is past"
    cluster.do(ReleaseTask(key=KEY, epoch=epoch))
    assert cluster.claimed("t").state == "Released", "but it may still say that its body has ended"


def test_commands_of_schema_version_1_apply_as_they_did() -> None:
    """They name no nonce. A node that has applied them before and one that reads them in its journal must agree."""
    cluster = RecordCluster(node("A", nonce=0), node("B", nonce=0))
    cluster.create("A", "B")
    cluster.task("t", mentor="A")
    first = cluster.do(cluster.claim("A", "t", nonce=0))
    assert cluster.announce("A", boot=2, nonce=0).error is None
    second = cluster.do(cluster.claim("A", "t", boot=2, nonce=0))
    assert second > first
    assert cluster.announce("A", boot=3, nonce=9).error is None
    assert "Start 2 of node 'A' still holds" in cluster.refused(cluster.claim("A", "t", boot=3, nonce=9))
    assert "has announced itself" in cluster.refused(cluster.claim("A", "t", boot=2, nonce=0, session=9))
    cluster.do(decide(cluster, second))
    assert cluster.do(cluster.claim("A", "t", boot=3, nonce=9)) > second


def test_a_claim_remembers_the_runs_before_it_and_how_each_ended() -> None:
    cluster = two()
    first = cluster.do(cluster.claim("A", "t"))
    second = cluster.do(cluster.claim("A", "t", session=2))
    cluster.do(ReleaseTask(key=KEY, epoch=second, reason="this node drains"))
    move(cluster, "B")
    third = cluster.do(cluster.claim("B", "t"))
    cluster.do(decide(cluster, third))
    move(cluster, "A")
    cluster.do(cluster.claim("A", "t", session=3))
    assert cluster.claimed("t").runs == (
        EndedRun(epoch=first, tag="A", state="ClaimedAgain", reason="its session had ended"),
        EndedRun(epoch=second, tag="A", state="Released", reason="this node drains"),
        EndedRun(epoch=third, tag="B", state="Void", reason="silent"),
    )


def test_only_the_last_runs_are_remembered() -> None:
    cluster = two()
    epochs = [cluster.do(cluster.claim("A", "t", session=session)) for session in range(RUNS_KEPT_MAX + 3)]
    assert [run.epoch for run in cluster.claimed("t").runs] == epochs[2:-1]


def test_a_claim_remembers_what_put_the_task_there() -> None:
    cluster = RecordCluster("A", "B")
    cluster.create("A", "B")
    made = cluster.task("t").placement_index
    first = cluster.placed("t").node or ""
    other = "B" if first == "A" else "A"
    cluster.do(cluster.claim(first, "t"))
    assert cluster.claimed("t").cause == Cause(index=made, what="Task")

    cluster.do(SetDraining(tag=first, draining=True))
    drained = cluster.record.index
    cluster.do(ReleaseTask(key=KEY, epoch=cluster.claimed("t").epoch))
    cluster.do(cluster.claim(other, "t"))
    assert cluster.claimed("t").cause == Cause(index=drained, what="Node", tag=first)

    cluster.do(SetDraining(tag=first, draining=False))
    group = replace(cluster.database().topology, members=(first,), rehabs=(other,))
    new = NewTopology(database="Northwind", etag=cluster.database().etag, topology=group)
    cluster.do(Decide(term=cluster.term, iteration=1, at="now", at_ms=1, topologies=(new,)))
    demoted = cluster.record.index
    cluster.do(ReleaseTask(key=KEY, epoch=cluster.claimed("t").epoch))
    cluster.do(cluster.claim(first, "t", session=2))
    assert cluster.claimed("t").cause == Cause(index=demoted, what="Group")


def test_a_node_that_claims_its_task_again_is_there_for_the_reason_of_the_first_time() -> None:
    cluster = two()
    cluster.do(cluster.claim("A", "t"))
    cause = cluster.claimed("t").cause
    cluster.do(SetDraining(tag="B", draining=True))
    cluster.do(AddDatabaseNode(name="Northwind", tag=cluster_node(cluster, "C")))
    cluster.do(cluster.claim("A", "t", session=2))
    assert cluster.claimed("t").cause == cause


def test_a_claim_of_an_earlier_version_has_no_cause_and_the_next_one_has() -> None:
    cluster = two()
    cluster.do(cluster.claim("A", "t"))
    old = replace(cluster.claimed("t"), cause=None)
    cluster.record = cluster.record.with_claim(KEY, old)
    cluster.do(cluster.claim("A", "t", session=2))
    assert cluster.claimed("t").cause == Cause(index=cluster.task_now("t").placement_index, what="Task")


def cluster_node(cluster: RecordCluster, tag: str) -> str:
    cluster.do(AddNode(node=node(tag)))
    return tag


def test_only_an_edit_that_placement_reads_counts_as_a_cause() -> None:
    cluster = two()
    before = cluster.task_now("t")
    edit = PutTask(database="Northwind", name="t", kind=KIND, key=before.key, id=before.id, mentor="A")
    cluster.do(replace(edit, configuration=b'{"x": 1}'))
    assert cluster.task_now("t").placement_index == before.placement_index
    cluster.do(replace(edit, requires=("ssd",)))
    assert cluster.task_now("t").placement_index == cluster.record.index
    assert "comma" in cluster.refused(replace(edit, requires=("a,b",)))


def test_the_claim_of_a_node_that_was_removed_rests_on_what_is_left() -> None:
    cluster = two()
    cluster.do(cluster.claim("A", "t"))
    cluster.do(ReleaseTask(key=KEY, epoch=cluster.claimed("t").epoch))
    cluster.do(RemoveNode(tag="A"))
    removed = cluster.record.index
    cluster.do(cluster.claim("B", "t"))
    assert cluster.claimed("t").cause == Cause(index=removed, what="Group")


def test_an_older_session_is_refused_also_after_release() -> None:
    cluster = two()
    epoch = cluster.do(cluster.claim("A", "t", session=2))
    assert "Session 1.1 has ended" in cluster.refused(cluster.claim("A", "t", session=1))
    cluster.do(ReleaseTask(key=KEY, epoch=epoch))
    assert "Session 1.1 has ended" in cluster.refused(cluster.claim("A", "t", session=1))


def test_a_session_whose_claim_was_released_gets_a_new_epoch() -> None:
    cluster = two()
    first = cluster.do(cluster.claim("A", "t"))
    cluster.do(ReleaseTask(key=KEY, epoch=first, reason="edited"))
    assert cluster.do(cluster.claim("A", "t")) > first


def test_only_the_responsible_node_is_granted() -> None:
    cluster = two()
    assert "'B' is not responsible for 't'; A is (Mentor)" in cluster.refused(cluster.claim("B", "t"))


def test_nobody_is_granted_while_placement_names_no_node() -> None:
    cluster = RecordCluster("A")
    cluster.create("A")
    cluster.task("t", requires=("ssd",))
    assert "no node is (NoMember)" in cluster.refused(cluster.claim("A", "t"))


def test_another_node_waits_for_release_or_void() -> None:
    cluster = two()
    epoch = cluster.do(cluster.claim("A", "t"))
    move(cluster, "B")
    assert f"'A' still holds epoch {epoch}" in cluster.refused(cluster.claim("B", "t"))
    assert cluster.do(ReleaseTask(key=KEY, epoch=epoch)) is True
    assert cluster.do(cluster.claim("B", "t")) > epoch
    move(cluster, "A")
    cluster.do(decide(cluster, cluster.claimed("t").epoch))
    assert cluster.claimed("t").state == "Void"
    assert cluster.claimed("t").reason == "silent"
    assert cluster.do(cluster.claim("A", "t")) > epoch


def test_another_node_id_under_the_same_tag_waits() -> None:
    cluster = two()
    epoch = cluster.do(cluster.claim("A", "t"))
    cluster.record = replace(cluster.record, nodes=cluster.record.nodes.set("A", node("A", node_id="fresh")))
    assert "still holds" in cluster.refused(cluster.claim("A", "t", node_id="fresh", session=7))
    assert "not known under the id id-A" in cluster.refused(cluster.claim("A", "t", session=7))
    cluster.do(decide(cluster, epoch))
    assert cluster.do(cluster.claim("A", "t", node_id="fresh")) > epoch


def test_a_node_that_came_back_under_another_tag_waits_for_the_claim_of_its_former_self() -> None:
    cluster = two()
    epoch = cluster.do(cluster.claim("A", "t"))
    cluster.do(RemoveNode(tag="A"))
    cluster.record = replace(cluster.record, nodes=Map({"B": node("B", node_id="id-A")}))
    claim = cluster.claim("B", "t", node_id="id-A", session=2)
    assert cluster.refused(claim) == f"ClaimRefusedException: Node 'A' still holds epoch {epoch}."
    cluster.do(decide(cluster, epoch))
    assert cluster.do(claim) > epoch


def test_a_disabled_task_or_database_is_granted_to_nobody() -> None:
    cluster = two()
    cluster.do(SetTaskState(database="Northwind", id=cluster.task_now("t").id, disabled=True))
    assert "disabled" in cluster.refused(cluster.claim("A", "t"))
    cluster.do(SetTaskState(database="Northwind", id=cluster.task_now("t").id, disabled=False))
    cluster.do(SetDatabaseState(name="Northwind", disabled=True))
    assert "disabled" in cluster.refused(cluster.claim("A", "t"))


def test_a_claim_of_what_does_not_exist_is_refused() -> None:
    cluster = two()
    assert "TaskDoesNotExist" in cluster.refused(cluster.claim("A", "nothing"))
    assert "TaskDoesNotExist" in cluster.refused(replace(cluster.claim("A", "t"), kind="RavenEtl"))
    assert "TaskDoesNotExist" in cluster.refused(replace(cluster.claim("A", "B"), kind=UPDATE_KIND))
    assert "DatabaseDoesNotExist" in cluster.refused(replace(cluster.claim("A", "t"), database="Nowhere"))
    assert "not known" in cluster.refused(cluster.claim("Z", "t"))


def test_release_of_another_epoch_changes_nothing() -> None:
    cluster = two()
    epoch = cluster.do(cluster.claim("A", "t"))
    assert cluster.do(ReleaseTask(key=KEY, epoch=epoch - 1)) is False
    assert cluster.do(ReleaseTask(key="northwind/SqlEtl/other", epoch=1)) is False
    assert cluster.claimed("t").state == "Held"
    assert cluster.do(ReleaseTask(key=KEY, epoch=epoch)) is True
    assert cluster.do(ReleaseTask(key=KEY, epoch=epoch)) is False, "a repeat"


def test_void_of_another_epoch_or_of_an_ended_claim_changes_nothing() -> None:
    cluster = two()
    first = cluster.do(cluster.claim("A", "t", session=1))
    second = cluster.do(cluster.claim("A", "t", session=2))
    cluster.do(decide(cluster, first))
    cluster.do(decide(cluster, second, key="northwind/SqlEtl/other"))
    assert cluster.claimed("t").state == "Held"
    cluster.do(ReleaseTask(key=KEY, epoch=second))
    cluster.do(decide(cluster, second))
    assert cluster.claimed("t").state == "Released"


def test_void_counts_only_in_an_entry_of_its_term() -> None:
    cluster = two()
    epoch = cluster.do(cluster.claim("A", "t"))
    assert "never outlives its term" in cluster.refused(decide(cluster, epoch, term=1), term=2)
    assert cluster.claimed("t").state == "Held"


def test_release_carries_the_last_progress_of_its_own_epoch_only() -> None:
    cluster = two()
    task = cluster.task_now("t")
    epoch = cluster.do(cluster.claim("A", "t"))
    far = Progress(generation=task.id, processed=7)
    made = ProgressMade(database="Northwind", id=task.id, epoch=epoch, progress=far)
    cluster.do(ReleaseTask(key=KEY, epoch=epoch, progress=replace(made, epoch=epoch - 1)))
    assert cluster.database().progress[task.id].processed == 0
    epoch = cluster.do(cluster.claim("A", "t"))
    cluster.do(ReleaseTask(key=KEY, epoch=epoch, progress=replace(made, epoch=epoch)))
    assert cluster.database().progress[task.id] == replace(far, epoch=epoch)


def test_a_release_carries_no_progress_of_another_run() -> None:
    """Not even of one that could write it by itself."""
    cluster = two()
    epoch = cluster.do(cluster.claim("A", "t"))
    other = cluster.task("other", mentor="A")
    running = cluster.do(cluster.claim("A", "other"))
    made = ProgressMade(
        database="Northwind", id=other.id, epoch=running, progress=Progress(generation=other.id, processed=7)
    )
    before = cluster.record.databases
    assert cluster.do(ReleaseTask(key=KEY, epoch=epoch, progress=made)) is True
    assert cluster.record.databases is before
    assert cluster.do(Checkpoint(made=(made,))) == [other.id]


def test_release_is_granted_even_if_its_progress_does_not_hold_any_more() -> None:
    cluster = two()
    epoch = cluster.do(cluster.claim("A", "t"))
    made = ProgressMade(database="Northwind", id=1, epoch=epoch, progress=Progress(generation=1))
    assert cluster.do(ReleaseTask(key=KEY, epoch=epoch, progress=made)) is True


def test_a_held_claim_outlives_deletion_and_creation_of_its_task() -> None:
    cluster = two()
    epoch = cluster.do(cluster.claim("A", "t"))
    cluster.do(DeleteTask(database="Northwind", id=cluster.task_now("t").id))
    cluster.task("t", mentor="B")
    assert "still holds" in cluster.refused(cluster.claim("B", "t"))
    cluster.do(ReleaseTask(key=KEY, epoch=epoch))
    assert cluster.do(cluster.claim("B", "t")) > epoch


def test_a_held_claim_outlives_deletion_and_creation_of_its_database() -> None:
    cluster = two()
    epoch = cluster.do(cluster.claim("A", "t"))
    cluster.do(DeleteDatabase(name="Northwind"))
    for tag in "AB":
        cluster.do(ConfirmDeletion(name="Northwind", tag=tag))
    assert cluster.record.database("Northwind") is None
    cluster.do(CreateDatabase(name="northwind", nodes=("A", "B")))
    cluster.task("T", mentor="B")
    assert "still holds" in cluster.refused(cluster.claim("B", "t"))
    cluster.do(decide(cluster, epoch))
    assert cluster.do(cluster.claim("B", "t")) > epoch


def test_an_ended_claim_goes_with_its_task_so_that_claims_stay_bounded() -> None:
    cluster = two()
    cluster.do(ReleaseTask(key=KEY, epoch=cluster.do(cluster.claim("A", "t"))))
    cluster.do(DeleteTask(database="Northwind", id=cluster.task_now("t").id))
    assert KEY not in cluster.record.claims
    cluster.task("t", mentor="A")
    epoch = cluster.do(cluster.claim("A", "t"))
    cluster.do(DeleteTask(database="Northwind", id=cluster.task_now("t").id))
    assert cluster.do(ReleaseTask(key=KEY, epoch=epoch)) is True
    assert KEY not in cluster.record.claims


def test_the_claim_of_a_task_that_is_gone_goes_when_it_is_void() -> None:
    cluster = two()
    epoch = cluster.do(cluster.claim("A", "t"))
    cluster.do(DeleteTask(database="Northwind", id=cluster.task_now("t").id))
    cluster.do(decide(cluster, epoch, key="northwind/SqlEtl/other"))
    cluster.do(decide(cluster, epoch - 1))
    assert cluster.claimed("t").state == "Held"
    cluster.do(decide(cluster, epoch))
    assert not cluster.record.claims


def test_ended_claims_go_with_their_database_and_held_ones_stay() -> None:
    cluster = two()
    cluster.task("kept", mentor="A")
    cluster.do(ReleaseTask(key=KEY, epoch=cluster.do(cluster.claim("A", "t"))))
    held = cluster.do(cluster.claim("A", "kept"))
    cluster.do(DeleteDatabase(name="Northwind", from_nodes=("A",)))
    cluster.do(ConfirmDeletion(name="Northwind", tag="A"))
    assert KEY in cluster.record.claims, "the database still exists on B"
    cluster.do(RemoveNode(tag="B"))
    kept = claim_key("Northwind", KIND, "kept")
    assert set(cluster.record.claims) == {kept}
    assert cluster.do(ReleaseTask(key=kept, epoch=held)) is True
    assert not cluster.record.claims


def test_a_renamed_task_takes_its_claim_along_and_the_old_body_releases_it() -> None:
    cluster = two()
    task = cluster.task_now("t")
    epoch = cluster.do(cluster.claim("A", "t"))
    cluster.do(PutTask(database="Northwind", id=task.id, name="New", kind=KIND, key=task.key, mentor="B"))
    assert cluster.claimed("new").epoch == epoch
    assert KEY not in cluster.record.claims
    assert "still holds" in cluster.refused(cluster.claim("B", "New"))
    cluster.task("t", mentor="B")
    other = cluster.do(cluster.claim("B", "t"))
    assert cluster.do(ReleaseTask(key=KEY, epoch=epoch)) is True, "the body was started under the old name"
    assert (cluster.claimed("New").state, cluster.claimed("t").epoch) == ("Released", other)


def test_a_rename_onto_a_name_whose_run_has_not_ended_is_refused() -> None:
    cluster = two()
    epoch = cluster.do(cluster.claim("A", "t"))
    cluster.do(DeleteTask(database="Northwind", id=cluster.task_now("t").id))
    task = cluster.task("other", mentor="A")
    cluster.do(cluster.claim("A", "other"))
    rename = PutTask(database="Northwind", id=task.id, name="t", kind=KIND, key=task.key)
    assert "has not ended yet" in cluster.refused(rename)
    cluster.do(ReleaseTask(key=KEY, epoch=epoch))
    cluster.do(rename)
    assert cluster.claimed("t").state == "Held"


def test_a_task_without_a_claim_cannot_be_renamed_onto_a_running_name_either() -> None:
    cluster = two()
    cluster.do(cluster.claim("A", "t"))
    cluster.do(DeleteTask(database="Northwind", id=cluster.task_now("t").id))
    task = cluster.task("other", mentor="B")
    cluster.do(PutTask(database="Northwind", id=task.id, name="t", kind=KIND, key=task.key, mentor="B"))
    assert "still holds" in cluster.refused(cluster.claim("B", "t"))


def test_the_update_of_a_promotable_is_claimed_by_its_mentor_and_ends_with_it() -> None:
    cluster = RecordCluster("A", "B", "C")
    cluster.create("A", "B")
    cluster.do(AddDatabaseNode(name="Northwind", tag="C"))
    mentor = mentor_of(cluster.record, cluster.database(), "C")
    assert mentor is not None
    other = "B" if mentor == "A" else "A"

    def claim(tag: str) -> ClaimTask:
        return replace(cluster.claim(tag, "C"), kind=UPDATE_KIND)

    assert "not responsible" in cluster.refused(claim(other))
    epoch = cluster.do(claim(mentor))
    key = claim_key("Northwind", UPDATE_KIND, "C")
    cluster.do(ReleaseTask(key=key, epoch=epoch))
    assert cluster.record.claims[key].state == "Released"
    epoch = cluster.do(claim(mentor))
    cluster.do(PromoteDatabaseNode(name="Northwind", tag="C"))
    assert cluster.record.claims[key].state == "Held"
    cluster.do(ReleaseTask(key=key, epoch=epoch))
    assert key not in cluster.record.claims


def test_scenario_30_progress_counts_only_for_the_held_epoch_and_only_grows() -> None:
    """RavenDB compares the owner by node, and not before the first batch. Here it is the epoch that counts."""
    cluster = two()
    cluster.task("never claimed")
    task, unclaimed = cluster.task_now("t"), cluster.task_now("never claimed").id
    epoch = cluster.do(cluster.claim("A", "t"))

    def made(processed: int, *, at: int = epoch, generation: int = task.id, id: int = task.id) -> ProgressMade:
        progress = Progress(generation=generation, processed=processed)
        return ProgressMade(database="northwind", id=id, epoch=at, progress=progress)

    assert cluster.do(Checkpoint(made=(made(5), made(9, id=999), made(9, id=unclaimed)))) == [task.id]
    etag = cluster.database().etag
    assert cluster.do(Checkpoint(made=(made(4),))) == []
    assert cluster.do(Checkpoint(made=(made(6, at=epoch - 1),))) == []
    assert cluster.do(Checkpoint(made=(made(6, generation=1),))) == []
    assert cluster.do(Checkpoint(made=(replace(made(6), database="Nowhere"),))) == []
    assert cluster.do(Checkpoint(made=(made(6),))) == [task.id]
    assert cluster.database().etag == etag, "progress is no edit"
    cluster.do(ReleaseTask(key=KEY, epoch=epoch))
    assert cluster.do(Checkpoint(made=(made(7),))) == []
    assert cluster.database().progress[task.id].processed == 6


def test_what_progress_tells_of_failures_is_cut_to_its_limits() -> None:
    cluster = two()
    task = cluster.task_now("t")
    epoch = cluster.do(cluster.claim("A", "t"))
    failures = tuple(FailedDocument(document_id=f"{n}" * 600, error="x" * 1_000, at="now") for n in range(10, 30))
    told = Progress(generation=task.id, failed=20, failures=failures, error="y" * 1_000)
    cluster.do(Checkpoint(made=(ProgressMade(database="Northwind", id=task.id, epoch=epoch, progress=told),)))
    kept = cluster.database().progress[task.id]
    assert (kept.failed, len(kept.failures), kept.error) == (20, FAILURES_SHOWN_MAX, "y" * ERROR_LENGTH_MAX)
    assert kept.failures[-1].document_id == ("29" * 600)[:DOCUMENT_ID_LENGTH_MAX]
    assert kept.failures[-1].error == "x" * FAILURE_LENGTH_MAX


def test_a_reset_forgets_progress_and_refuses_what_the_old_body_still_reports() -> None:
    cluster = two()
    task = cluster.task_now("t")
    epoch = cluster.do(cluster.claim("A", "t"))
    old = ProgressMade(
        database="Northwind", id=task.id, epoch=epoch, progress=Progress(generation=task.id, processed=5)
    )
    assert cluster.do(Checkpoint(made=(old,))) == [task.id]
    cluster.do(PutTask(database="Northwind", id=task.id, name="t", kind=KIND, key=task.key, reset=True))
    assert cluster.database().progress[task.id] == Progress(generation=cluster.record.index)
    assert cluster.do(Checkpoint(made=(old,))) == []
