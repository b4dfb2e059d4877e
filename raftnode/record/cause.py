"""Which log entry put a task where it is."""

from raftnode.record.model import Cause, Claim, Database, Record, Task
from raftnode.record.ownership import Rule


def cause_of(record: Record, database: Database, task: Task, rule: Rule, tag: str | None, last: Claim | None) -> Cause:
    """The newest change that the placement on `tag` by `rule` can rest on: of the task, of the group, of the node that
    held the task, of the one that gets it, or of the licence; or the end of the grace in which it waited for its last
    holder.

    A claim follows its cause at once, so at its grant nothing newer comes between them. A node that claims its own task
    again is where it is for the reason of the first time.
    """
    if last is not None and last.cause is not None and (last.tag, last.rule) == (tag, rule):
        return last.cause
    causes = [
        Cause(index=task.placement_index, what="Task"),
        Cause(index=database.topology.stamp.index, what="Group"),
    ]
    for involved in dict.fromkeys((tag, last.tag if last else None)):
        node = record.nodes.get(involved) if involved else None
        if node is not None:
            causes.append(Cause(index=node.placement_index, what="Node", tag=node.tag))
    if record.licence_index:
        causes.append(Cause(index=record.licence_index, what="Licence"))
    if last is not None and last.grace_ended and last.tag != tag:
        causes.append(Cause(index=last.grace_index, what="Grace", tag=last.tag))
    return max(causes, key=lambda cause: cause.index)
