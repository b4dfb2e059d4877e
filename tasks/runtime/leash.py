"""The process between a node and a command that a task's body has started: when the node ends, however it ends, so does
the command with everything that it has started itself. Started by `tasks.runtime.subprocesses`; imports nothing of
ours.

Where the system allows it the command runs in a process namespace: its first process dies with this one, this one with
the node, and the kernel then ends all the others at once, whatever they have done to hide. Elsewhere this process
adopts whatever loses its parent, sees by a pipe that the node is gone, and ends all of its descendants.

No signal may end or stop this process, as it would leave its descendants behind: every one that can be caught is passed
on to the command. To kill the command the node closes the pipe.

`argv`: the node's process id, the descriptor of the pipe, the command.
"""

import ctypes
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
MS_REC_PRIVATE = 0x44000
NOT_FOUND, NOT_STARTED = 127, 126
PASSED_ON = frozenset(signal.valid_signals()) - {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ,
    signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
}  # fmt: skip
"""The signals that the command gets in this process's place: all that can be caught, but those that a process raises in
itself by a defect, those that Python ignores, and the end of a child."""

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Exits as the command has."""
    node, pipe, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    os.set_inheritable(pipe, False)
    wake, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *PASSED_ON):
        signal.signal(number, lambda *_: None)
    contained = _contained()
    if contained:
        # Last, as a change of credentials forgets it. It goes by the thread that has started this process, the node's
        # main one.
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != node:
        os._exit(NOT_STARTED)
    alive, _held = os.pipe()
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        os.close(_held)
        if contained:
            _first(command, alive)
        _die_with_leash(alive)
        _become(command)
    status = _until_over(child, pipe, wake)
    if not contained:
        _end_descendants()
    os._exit(status)


def _contained() -> bool:
    """Whether the next process that is forked is the first of a process namespace."""
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(CLONE_NEWPID | CLONE_NEWNS) == 0:
        return True
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS) != 0:
        return False
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    except OSError:
        # The namespace is there all the same; only names of users are missing in it.
        pass
    return True


def _first(command: list[str], alive: int) -> None:
    """The first process of a namespace: starts the command, passes signals on, and takes in what loses its parent.
    `alive` ends with the leash, whose process id cannot be seen from here."""
    _die_with_leash(alive)
    # So that the processes inside see themselves under /proc; without it they see those outside, and go on.
    _libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None)
    _libc.mount(b"proc", b"/proc", b"proc", 0, None)
    child = os.fork()
    if child == 0:
        _become(command)
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: os.kill(child, number))
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(_exit_code(status))


def _die_with_leash(alive: int) -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([alive], [], [], 0)[0]:
        os._exit(NOT_STARTED)


def _become(command: list[str]) -> None:
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, *PASSED_ON):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]} cannot be started: {error.strerror}\n".encode())
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_STARTED)


def _until_over(child: int, pipe: int, wake: int) -> int:
    """Waits until the child has ended or the node wants it to, and passes signals on; the exit code."""
    while True:
        readable, _, _ = select.select([pipe, wake], [], [])
        if wake in readable:
            for number in os.read(wake, 512):
                if number in PASSED_ON:
                    os.kill(child, number)
            pid, status = _reaped(child)
            if pid == child:
                return _exit_code(status)
        if pipe in readable:
            os.kill(child, signal.SIGKILL)
            # The first process of a namespace counts as ended when all others in it have.
            return _exit_code(os.waitpid(child, 0)[1])


def _reaped(child: int) -> tuple[int, int]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 0, 0
        if pid in (0, child):
            return pid, status


def _end_descendants() -> None:
    """Until none is left: one that is started meanwhile is found the next time."""
    while True:
        for pid in _descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # one that has become another user's is waited for
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _descendants() -> Iterator[int]:
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text(encoding="ascii", errors="replace")
            except OSError:
                continue
            parents[int(entry)] = int(stat.rsplit(")", 1)[1].split()[1])
    for pid in parents:
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        if above == os.getpid() and pid != above:
            yield pid


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        os._exit(NOT_STARTED)


if __name__ == "__main__":
    main()
