"""A node's side: until when it may run tasks, and in which session.

The lease is the node's own newest stamp that the leader of its current term echoed, plus L. It rests on
"the leader heard me", so a loss in either direction ends it, and only the node's own clock counts.
"""

import msgspec
from msgspec.structs import replace

from raftnode.lease.messages import FOREVER_NS, NS_PER_MS, Beat, Incarnation, Now, RaftView, Stamp, lease_ns
from raftnode.record.model import Timings


class LeaseHolder(msgspec.Struct, frozen=True, kw_only=True):
    """A node's lease. `session` counts the unbroken leases of this process, from 1; it only grows.

    `stamps_from_ns`: older stamps of its own do not count. `wall_offset_ns`: wall minus elapsed time when
    the two were last found in step. `complaint`: why the last beat granted nothing although it could have,
    or empty.
    """

    boot: int
    nonce: int
    held: bool = False
    until_ns: int = 0
    session: int = 0
    stamps_from_ns: int = 0
    wall_offset_ns: int | None = None
    complaint: str = ""


def stamp(holder: LeaseHolder, now: Now) -> Stamp:
    """This node's stamp of this moment."""
    return Stamp(holder.boot, holder.nonce, now.elapsed_upper_ns)


def lapsed(holder: LeaseHolder, now: Now, timings: Timings | None) -> LeaseHolder:
    """The holder after a look at the clocks: whatever wakes a node comes through here first.

    A wall clock ahead of the elapsed time by more than L/4 means that the machine stood still without the
    clocks noticing: the lease ends, and stamps taken before that moment never count again.
    """
    if now.elapsed_upper_ns >= holder.until_ns:
        holder = replace(holder, held=False)
    offset_ns = now.wall_ms * NS_PER_MS - now.elapsed_upper_ns
    if timings and _wall_ran_ahead(holder, offset_ns, timings):
        return replace(holder, held=False, until_ns=0, stamps_from_ns=now.elapsed_upper_ns, wall_offset_ns=offset_ns)
    return replace(holder, wall_offset_ns=offset_ns)


def _wall_ran_ahead(holder: LeaseHolder, offset_ns: int, timings: Timings) -> bool:
    known_ns = holder.wall_offset_ns
    return known_ns is not None and holder.until_ns != FOREVER_NS and offset_ns - known_ns > lease_ns(timings) // 4


def renewed(holder: LeaseHolder, until_ns: int, now: Now) -> LeaseHolder:
    """The holder with a lease to `until_ns` at least; `lapsed` has been asked. A lease never gets shorter,
    but for one that had no end."""
    longest = until_ns if holder.until_ns == FOREVER_NS else max(holder.until_ns, until_ns)
    if longest <= now.elapsed_upper_ns:
        return holder
    session = holder.session if holder.held else holder.session + 1
    return replace(holder, held=True, until_ns=longest, session=session)


def granted(holder: LeaseHolder, beat: Beat, view: RaftView, now: Now) -> LeaseHolder:
    """The holder after a beat of the leader of its current term."""
    if beat.timings is None or view.timings is None:
        return replace(holder, complaint="")
    if beat.timings != view.timings:
        complaint = f"the leader's timings {beat.timings} differ from this node's {view.timings}"
        return replace(holder, complaint=complaint)
    holder = replace(holder, complaint="")
    echo = beat.echo
    if echo is None or echo.incarnation != Incarnation(holder.boot, holder.nonce):
        return holder
    if not holder.stamps_from_ns <= echo.clock_ns <= now.elapsed_upper_ns:
        return holder
    return renewed(holder, echo.clock_ns + lease_ns(view.timings), now)
