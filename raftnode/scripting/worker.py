"""The process inside which user scripts run. Started by `javascript`; speaks frames on stdin and stdout.

It is a process of its own because V8 ends its whole process when a script exhausts memory, and because some of its
built-in functions (sorting a sparse array, shifting a huge integer) cannot be interrupted. Here either costs one
batch; inside the daemon it would cost every task of the node, and of the next node after the move.

A request or a reply is a header (JSON) and a payload (bytes), each with its length in front. Requests: `load` (the
scripts of a program; the value of the last one is its function) and `call` (the payload is the function's argument
as JSON, the reply's payload its result as JSON), each for the engine of an owner. Either may name owners whose engine
is not needed any more (`drop`), and a reply may say that the owner's engine is gone as it kept too much (`full`).
"""

import ctypes
import json
import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Callable, Mapping
from typing import IO, Any, Literal, NotRequired, TypedDict, cast

FRAME = struct.Struct(">II")
OFF_HEAP_BYTES = 128 << 20
"""What V8 and the interpreter may use besides the scripts' heap: code, compiler and collector."""

ENGINES_MAX = 8
"""So many owners have an engine in one process; of others it is made again when they call."""

ProgramFunction = Callable[[str], str]
"""A program's function: its argument and its result are JSON."""


class WorkerRequest(TypedDict):
    """The header of a request. `scripts`, of a program to load, are its names and texts."""

    op: Literal["load", "call"]
    program: str
    engine: int
    drop: list[int]
    scripts: NotRequired[list[list[str]]]


class WorkerReply(TypedDict, total=False):
    """The header of a reply. With an `error`, `script` and `line` say where; `full`: the owner's engine is gone."""

    error: str
    script: str
    line: int | None
    full: bool


_FORBIDDEN = """
for (const name of ["ArrayBuffer", "SharedArrayBuffer", "DataView", "Atomics", "WebAssembly", "Int8Array",
    "Uint8Array", "Uint8ClampedArray", "Int16Array", "Uint16Array", "Int32Array", "Uint32Array", "Float16Array",
    "Float32Array", "Float64Array", "BigInt64Array", "BigUint64Array", "setTimeout", "clearTimeout",
    "__timer_manager", "FinalizationRegistry", "WeakRef"]) {
  delete globalThis[name];
  if (name in globalThis) globalThis[name] = undefined;
}
"""
_INVOKE = "(({parse, stringify}) => f => argument => stringify(f(parse(argument))) ?? 'null')(JSON)"


def main() -> None:
    """Answer requests until stdin ends. `argv[1]` is the limit of the scripts' heap in bytes."""
    _die_with_parent()
    heap_bytes_max = int(sys.argv[1])
    # What a script makes of a date or a number must not depend on the node it runs on.
    os.environ |= {"TZ": "UTC", "LC_ALL": "C", "LANG": "C", "LC_MESSAGES": "C"}
    from py_mini_racer import MiniRacer, init_mini_racer

    heap = f"--max-heap-size={heap_bytes_max >> 20}"
    init_mini_racer(flags=("--single-threaded", "--disallow-code-generation-from-strings", heap))
    spare = MiniRacer()
    _check(spare, heap_bytes_max)
    write(sys.stdout.buffer, {}, b"")
    serve(OwnerEngines(MiniRacer, spare, heap_bytes_max), sys.stdin.buffer, sys.stdout.buffer)
    # The engine's own way out waits for its threads, at times for ever; everything written has been flushed.
    os._exit(0)


def _check(engine: Any, heap_bytes_max: int) -> None:
    """End here if V8 has not taken its flags: at the first one it does not know, it ignores the rest in silence."""
    limit = engine.heap_stats()["heap_size_limit"]
    if not heap_bytes_max / 2 < limit < heap_bytes_max * 2:
        sys.exit(f"V8 allows a heap of {limit} bytes instead of {heap_bytes_max}: it did not take its flags")
    if engine.eval("try { eval('true') } catch (e) { false }"):
        sys.exit("V8 makes code from strings: it did not take its flags")


class OwnerEngines:
    """An engine, and the programs it has loaded, for each owner; nothing of one reaches another."""

    def __init__(self, make: Any, spare: Any, heap_bytes_max: int) -> None:
        self._make, self._spare, self._heap_bytes_max = make, spare, heap_bytes_max
        self._engines: dict[int, tuple[Any, dict[str, ProgramFunction]]] = {}

    def of(self, owner: int) -> tuple[Any, dict[str, ProgramFunction]]:
        """The owner's engine and its programs; a new one at first."""
        if owner not in self._engines:
            engine, self._spare = self._spare or self._make(), None
            engine.eval(_FORBIDDEN)
            self._engines[owner] = engine, {}
        limit_memory(self._heap_bytes_max)
        return self._engines[owner]

    def drop(self, owner: int) -> None:
        """End the owner's engine, if it has one."""
        if (found := self._engines.pop(owner, None)) is not None:
            found[1].clear()
            found[0].close()

    def full(self, owner: int) -> bool:
        """Drops the owner's engine if its heap exceeds its share of the memory. Returns whether it did."""
        found = self._engines.get(owner)
        if found is None or found[0].heap_stats()["used_heap_size"] * ENGINES_MAX <= 2 * self._heap_bytes_max:
            return False
        self.drop(owner)
        return True


def serve(engines: OwnerEngines, requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer each request in turn."""
    while (frame := read(requests)) is not None:
        request, payload = cast(WorkerRequest, frame[0]), frame[1]
        for gone in request["drop"]:
            engines.drop(gone)
        owner = request["engine"]
        reply: WorkerReply = {}
        result = b""
        try:
            engine, programs = engines.of(owner)
            if request["op"] == "load":
                programs[request["program"]] = load(engine, request["scripts"])
            else:
                result = programs[request["program"]](payload.decode()).encode("utf-8", "surrogatepass")
        except Exception as error:
            reply = describe(error, request.get("scripts") or [["", ""]])
        if request["op"] == "call" and engines.full(owner):
            reply["full"] = True
        write(replies, reply, result)


def load(engine: Any, scripts: list[list[str]]) -> ProgramFunction:
    """The function of a program. A script's name stands in stack traces in its URL-safe form."""
    for name, text in scripts[:-1]:
        try:
            engine.eval(f"{text}\n//# sourceURL={name}")
        except Exception as error:
            error.script = name  # type: ignore[attr-defined]
            raise
    name, text = scripts[-1]
    function: ProgramFunction = engine.eval(f"{_INVOKE}({text}\n)\n//# sourceURL={name}")
    return function


def describe(error: Exception, scripts: list[list[str]]) -> WorkerReply:
    """An error as a header: what happened, in which script, at which line (from 1)."""
    first = str(error).strip().split("\n", 1)[0]
    place = re.match(r"(?P<script>.*?):(?P<line>\d+): (?P<message>.*)", first)
    script = getattr(error, "script", scripts[-1][0])
    if place is None:
        return {"error": first or type(error).__name__, "script": script, "line": None}
    known = place["script"] if not place["script"].startswith("<") else script
    return {"error": place["message"], "script": known, "line": int(place["line"])}


def read(stream: IO[bytes]) -> tuple[Mapping[str, object], bytes] | None:
    """The next frame, None at the end of the stream. Its header is a WorkerRequest or a WorkerReply."""
    sizes = stream.read(FRAME.size)
    if len(sizes) < FRAME.size:
        return None
    header_bytes, payload_bytes = FRAME.unpack(sizes)
    # What the daemon sends is flat, and this process starts faster without the daemon's decoders.
    return json.loads(stream.read(header_bytes)), stream.read(payload_bytes)  # noqa: TID251


def write(stream: IO[bytes], header: WorkerRequest | WorkerReply, payload: bytes) -> None:
    """Send one frame."""
    text = json.dumps(header).encode()
    stream.write(FRAME.pack(len(text), len(payload)) + text + payload)
    stream.flush()


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def limit_memory(heap_bytes_max: int) -> None:
    """Bound the data segment, for what V8 keeps outside its heap during one call; and leave no core file behind."""
    with open("/proc/self/status", encoding="ascii") as status:
        used_kib = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
    limit = used_kib * 1024 + heap_bytes_max + OFF_HEAP_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
