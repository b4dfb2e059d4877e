"""The JavaScript sandbox, with the real engine."""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from raftnode.scripting import javascript
from raftnode.scripting.javascript import Program, SandboxFailed, Script, ScriptEnded, ScriptError, ScriptLimits, check
from raftnode.scripting.sandbox import Sandbox, ScriptWorkers
from raftnode.scripting.worker import ENGINES_MAX

LIMITS = ScriptLimits(time_ms_max=1_000, memory_bytes_max=48 << 20, result_bytes_max=1 << 20)


def program(text: str, name: str = "test") -> Program:
    return Program(Script(name, text), blame=name)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    engines = ScriptWorkers(LIMITS, 1)
    yield Sandbox(engines)
    await engines.close()


def process_of(sandbox: Sandbox) -> asyncio.subprocess.Process:
    (worker,) = sandbox._engines.workers
    assert worker.process is not None
    return worker.process


async def run(sandbox: Sandbox, text: str, argument: Any = None) -> Any:
    return json.loads(await sandbox.call(program(text), json.dumps(argument).encode()))


async def test_a_whole_batch_goes_in_and_comes_out_of_one_call(sandbox: Sandbox) -> None:
    assert await run(sandbox, "items => items.map(i => ({twice: i.n * 2}))", [{"n": 1}, {"n": 21}]) == [
        {"twice": 2},
        {"twice": 42},
    ]


async def test_a_result_of_nothing_is_null_and_text_survives_in_any_script(sandbox: Sandbox) -> None:
    assert await run(sandbox, "x => undefined") is None
    assert await run(sandbox, "x => x", "Ærø 東京 🚢\u2028") == "Ærø 東京 🚢\u2028"


async def test_a_compiled_program_is_reused_between_calls(sandbox: Sandbox) -> None:
    counter = Program(Script("state", "let calls = 0;"), Script("count", "x => ++calls"), blame="count")
    assert [await sandbox.call(counter, b"0") for _ in range(3)] == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    "name",
    [
        *("ArrayBuffer", "SharedArrayBuffer", "DataView", "Atomics", "WebAssembly", "Uint8Array", "Float64Array"),
        *("BigInt64Array", "Float16Array", "setTimeout", "clearTimeout", "setInterval", "require", "fetch"),
        *("__timer_manager", "WeakRef"),
    ],
)
async def test_buffers_wasm_and_timers_do_not_exist(sandbox: Sandbox, name: str) -> None:
    assert await run(sandbox, f"x => typeof {name}") == "undefined"


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "(0, eval)('1')",
        "Function('return 1')()",
        "(function(){}).constructor('return 1')()",
        "(() => 1).constructor('return 1')()",
        "(async function(){}).constructor('return 1')()",
        "(function*(){}).constructor('return 1')()",
        "(async function*(){}).constructor('return 1')()",
        "Reflect.construct(Function, ['return 1'])()",
        "Object.getPrototypeOf(async () => 1).constructor('return 1')()",
    ],
)
async def test_no_code_is_made_from_strings(sandbox: Sandbox, code: str) -> None:
    with pytest.raises(ScriptError, match="Code generation from strings disallowed"):
        await run(sandbox, f"x => {code}")


async def test_no_object_of_the_language_leads_to_a_buffer(sandbox: Sandbox) -> None:
    walk = """x => {
      const seen = new Set(), found = [], todo = [globalThis, async () => 1, function* () {}, /x/g, [].values()];
      while (todo.length) {
        const o = todo.pop();
        if (o === null || (typeof o !== 'object' && typeof o !== 'function') || seen.has(o)) continue;
        seen.add(o);
        const tag = typeof o === 'function' ? o.name : '';
        if (/Array$|Buffer|DataView|Atomics|WebAssembly|Timeout/.test(tag) && !/^(Array|isArray|toArray)$/.test(tag))
          found.push(tag);
        todo.push(Object.getPrototypeOf(o));
        for (const key of Reflect.ownKeys(o)) {
          const d = Object.getOwnPropertyDescriptor(o, key);
          todo.push(d.value, d.get, d.set);
        }
      }
      return {found, many: seen.size > 500};
    }"""
    assert await run(sandbox, walk) == {"found": [], "many": True}


@pytest.mark.parametrize(
    "loop",
    ["while (true);", "/(a+)+$/.test('a'.repeat(40) + 'b');", "[1, 2, 3].concat(new Array(4294967290)).sort();"],
)
async def test_a_script_that_does_not_end_is_ended_even_inside_a_builtin(sandbox: Sandbox, loop: str) -> None:
    with pytest.raises(ScriptEnded, match="script 'test': did not end within 1000 ms"):
        await run(sandbox, f"x => {{ {loop} }}")
    assert await run(sandbox, "x => 1") == 1


@pytest.mark.parametrize(
    "greed",
    [
        "const a = []; while (true) a.push({x: [1, 2]});",
        "const a = []; while (true) a.push(new Array(1e8).fill(0));",
        "Array.from({length: 4e9});",
        "'a'.repeat(5e8).replace(/a/g, 'bb');",
        "JSON.parse('[' + '1,'.repeat(2e8) + '1]');",
        "const m = new Map(); let i = 0; while (true) m.set(i++, i);",
    ],
)
async def test_a_script_that_eats_memory_is_ended_and_the_next_call_works(sandbox: Sandbox, greed: str) -> None:
    sandbox._engines.limits = ScriptLimits(time_ms_max=20_000, memory_bytes_max=48 << 20)
    with pytest.raises(ScriptEnded, match="more than 48 MiB of memory"):
        await run(sandbox, f"x => {{ {greed} }}")
    assert await run(sandbox, "x => 1") == 1


async def test_a_script_may_make_garbage_far_beyond_the_limit(sandbox: Sandbox) -> None:
    sandbox._engines.limits = ScriptLimits(time_ms_max=20_000, memory_bytes_max=48 << 20)
    text = "x => { let n = 0; for (let i = 0; i < 3e6; i++) n += ({a: 'x' + i, b: [i]}).a.length; return n; }"
    assert await run(sandbox, text) > 0


async def test_a_result_that_is_too_large_is_refused_by_its_limit(sandbox: Sandbox) -> None:
    sandbox._engines.limits = ScriptLimits(time_ms_max=20_000, memory_bytes_max=48 << 20, result_bytes_max=1 << 20)
    assert await run(sandbox, "x => 1") == 1
    stdout = process_of(sandbox).stdout
    assert stdout is not None
    stdout._limit = 1  # type: ignore[attr-defined] # so that nobody reads the pipe to its end
    with pytest.raises(ScriptEnded, match="the limit is 1048576 bytes"):
        await run(sandbox, "x => 'y'.repeat(2e7)")
    assert await run(sandbox, "x => 1") == 1


async def test_an_error_names_the_script_the_line_and_the_message(sandbox: Sandbox) -> None:
    broken = program("x => {\n  return 1;\n  let = ;\n}", name="Orders & lines")
    with pytest.raises(ScriptError, match=r"script 'Orders & lines', line 3: SyntaxError: .*"):
        await sandbox.call(broken, b"0")
    throws = program("x => {\n  return missing.y;\n}", name="Orders & lines")
    with pytest.raises(ScriptError, match="line 2: ReferenceError: missing is not defined") as caught:
        await sandbox.call(throws, b"0")
    assert (caught.value.script, caught.value.line) == ("Orders & lines", 2)


def test_a_program_can_be_checked_without_being_run() -> None:
    check(program("x => { while (true); }"), LIMITS)
    with pytest.raises(ScriptError, match="script 'test', line 2: SyntaxError"):
        check(program("x => {\n  let 5;\n}"), LIMITS)


async def test_an_error_in_an_earlier_script_of_a_program_carries_that_script_s_name(sandbox: Sandbox) -> None:
    two = Program(Script("first", "let a =\n ;"), Script("second", "x => a"), blame="second")
    with pytest.raises(ScriptError, match="script 'first', line 2"):
        await sandbox.call(two, b"0")


async def test_a_script_that_is_too_long_is_refused_before_it_runs() -> None:
    with pytest.raises(ScriptError, match="the limit is 262144 bytes"):
        program("x => '" + "y" * 300_000 + "'")


async def test_a_cancelled_call_ends_its_worker_and_the_next_call_works(sandbox: Sandbox) -> None:
    assert await run(sandbox, "x => 1") == 1
    process = process_of(sandbox)
    call = asyncio.create_task(run(sandbox, "x => { while (true); }"))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    assert await run(sandbox, "x => 2") == 2


async def test_the_loop_goes_on_while_a_script_runs(sandbox: Sandbox) -> None:
    call = asyncio.create_task(run(sandbox, "x => { let n = 0; for (let i = 0; i < 2e8; i++) n += i; return n; }"))
    turns = 0
    while not call.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
    await asyncio.gather(call, return_exceptions=True)


async def test_a_worker_that_is_killed_from_outside_is_no_fault_of_the_script(sandbox: Sandbox) -> None:
    assert await run(sandbox, "x => 1") == 1
    os.kill(process_of(sandbox).pid, signal.SIGKILL)
    with pytest.raises(SandboxFailed, match="ended from outside"):
        await run(sandbox, "x => 2")
    assert await run(sandbox, "x => 3") == 3


async def test_closing_frees_the_processes_and_a_later_call_starts_anew(sandbox: Sandbox) -> None:
    assert await run(sandbox, "x => 1") == 1
    await sandbox._engines.close()
    assert sandbox._engines.workers == []
    assert await run(sandbox, "x => 2") == 2


async def test_a_process_that_no_task_uses_is_ended(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raftnode.scripting.sandbox.IDLE_S", 0.01)
    assert await run(sandbox, "x => 1") == 1
    process = process_of(sandbox)
    await process.wait()
    assert await run(sandbox, "x => 2") == 2


async def test_nothing_that_a_script_leaves_behind_reaches_another_task_in_the_same_process() -> None:
    engines = ScriptWorkers(LIMITS, 1)
    one, other = Sandbox(engines), Sandbox(engines)
    leave = "(globalThis.left = 1, Array.prototype.map = () => 'bent', Object.prototype.toJSON = () => 7, x => 1)"
    await run(one, leave)
    process = process_of(one)
    assert await run(other, "x => [typeof left, [1].map(n => n + 1), {}]") == ["undefined", [2], {}]
    assert await run(one, "x => typeof left") == "number"
    await one.close()
    assert await run(one, "x => typeof left") == "undefined"
    assert process_of(other) is process
    await engines.close()


async def test_tasks_share_no_more_processes_than_allowed_and_take_turns() -> None:
    engines = ScriptWorkers(LIMITS, 2)
    ended: list[int] = []

    async def task(number: int, script: str) -> None:
        sandbox = Sandbox(engines)
        for _ in range(3):
            with contextlib.suppress(ScriptEnded):
                await run(sandbox, script)
            ended.append(number)
            assert len(engines.workers) <= 2

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(task(number, "x => { while (true); }" if number == 0 else "x => 1"))
    # One process is busy with the script that does not end; of the others each had a turn before any had another.
    assert {number for number in ended[:13] if number} == set(range(1, 12))
    await engines.close()


async def test_a_process_that_has_to_be_ended_costs_the_other_tasks_nothing() -> None:
    engines = ScriptWorkers(ScriptLimits(time_ms_max=20_000, memory_bytes_max=48 << 20), 1)
    greedy, good = Sandbox(engines), Sandbox(engines)
    assert await run(good, "x => 1") == 1
    with pytest.raises(ScriptEnded, match="memory"):
        await run(greedy, "x => { const all = []; while (true) all.push(new Array(1e5).fill({})); }")
    assert await run(good, "x => 1") == 1
    assert await run(greedy, "x => 2") == 2
    await engines.close()


async def test_more_tasks_than_a_process_has_engines_for_are_served_all_the_same() -> None:
    engines = ScriptWorkers(LIMITS, 1)
    sandboxes = [Sandbox(engines) for _ in range(ENGINES_MAX + 5)]
    for _ in range(2):
        assert [await run(s, f"x => {n}") for n, s in enumerate(sandboxes)] == list(range(len(sandboxes)))
    process = process_of(sandboxes[0])
    assert len(engines.workers[0].engines) == ENGINES_MAX
    for sandbox in sandboxes:
        await sandbox.close()
    assert await run(sandboxes[0], "x => 1") == 1
    assert process_of(sandboxes[0]) is process
    await engines.close()


async def test_what_scripts_keep_between_calls_is_bounded(sandbox: Sandbox) -> None:
    keep = "x => { globalThis.kept ??= []; kept.push(new Array(1e6).fill(1.5)); return kept.length; }"
    lengths = [await run(sandbox, keep) for _ in range(20)]
    assert lengths[0] == 1
    assert max(lengths) < 20


def test_compile_checks_share_a_process_for_a_while_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    check(program("(globalThis.left = 1, x => 1)"), LIMITS)
    process = javascript._checker._process
    assert process is not None
    with pytest.raises(ScriptError, match="left"):
        check(program("left"), LIMITS)
    with pytest.raises(ScriptError):
        check(program("x =>"), LIMITS)
    assert javascript._checker._process is process
    process.kill()
    process.wait()
    monkeypatch.setattr(javascript, "CHECKER_IDLE_S", 0.01)
    check(program("x => 1"), LIMITS)
    second = javascript._checker._process
    if second is not None:
        second.wait()


def test_a_worker_whose_v8_has_ignored_its_flags_refuses_to_serve() -> None:
    """V8 stops reading its flags at the first one it does not know and says nothing to its host."""
    code = (
        "from py_mini_racer import MiniRacer, init_mini_racer\n"
        "from raftnode.scripting.worker import _check\n"
        "init_mini_racer(flags=['--single-threaded', {flag}'--disallow-code-generation-from-strings',"
        " '--max-heap-size=64'])\n"
        "_check(MiniRacer(), 64 << 20)\n"
    )
    ignored = [sys.executable, "-c", code.format(flag="'--flag-of-the-future', ")]
    answer = subprocess.run(ignored, capture_output=True, text=True, check=False)
    assert (answer.returncode, "did not take its flags" in answer.stderr) == (1, True)
    assert subprocess.run([sys.executable, "-c", code.format(flag="")], check=False).returncode == 0


async def test_an_engine_that_does_not_start_is_no_fault_of_the_script(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(javascript, "WORKER", "/nowhere/worker.py")
    javascript._checker._end()
    with pytest.raises(SandboxFailed, match="py_mini_racer"):
        await run(sandbox, "x => 1")
    with pytest.raises(SandboxFailed, match="py_mini_racer"):
        check(program("x => 1"), LIMITS)


def test_the_worker_dies_with_its_daemon_even_in_an_endless_script() -> None:
    code = (
        "import asyncio\n"
        "from raftnode.scripting.javascript import *\n"
        "from raftnode.scripting.sandbox import *\n"
        "async def main():\n"
        "    engines = ScriptWorkers(ScriptLimits(time_ms_max=600_000))\n"
        "    sandbox = Sandbox(engines)\n"
        "    await sandbox.call(Program(Script('a', 'x => 1'), blame='a'), b'1')\n"
        "    print('pid', engines.workers[0].process.pid, flush=True)\n"
        "    await sandbox.call(Program(Script('b', 'x => { while (true); }'), blame='b'), b'1')\n"
        "asyncio.run(main())\n"
    )
    daemon = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    said = next(line for line in daemon.stdout if line.startswith("pid"))
    worker = os.pidfd_open(int(said.split()[1]))
    daemon.kill()
    daemon.wait()
    ended, _, _ = select.select([worker], [], [], 10)
    os.close(worker)
    daemon.stdout.close()
    assert ended
