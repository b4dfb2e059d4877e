"""Transform scripts, run by the real engine."""

import json
import re
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from raftnode.documents.store.model import Document
from raftnode.scripting.javascript import ScriptEnded, ScriptError, ScriptLimits
from raftnode.scripting.sandbox import Sandbox, ScriptWorkers
from tasks.etl.refusals import DocumentRefusal
from tasks.etl.transform import LOADED_AT_ONCE, BatchTooLarge, Loader, Transform, TransformedDocument, targets


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    engines = ScriptWorkers(ScriptLimits(time_ms_max=1_000), 1)
    yield Sandbox(engines)
    await engines.close()


def document(id: str = "orders/1-A", **fields: Any) -> Document:
    return Document(
        id=id,
        collection="Orders",
        body=json.dumps(fields).encode(),
        etag=1,
        change_vector="A:1-xxxxxxxxxxxxxxxxxxxxxx",
        last_modified="2026-01-31T12:00:00.0000000Z",
    )


async def run(sandbox: Sandbox, script: str, *documents: Document) -> list[TransformedDocument]:
    return await Transform("My orders", script).apply(sandbox, documents or [document()])


def test_the_tables_of_a_script_are_those_of_its_load_calls() -> None:
    script = (
        "loadToOrders({}); for (;;) loadToOrderLines ({}); loadTo('dbo.x y', {}); loadTo(\"z\", 1); loadToOrders({})"
    )
    assert targets(script) == ["Orders", "OrderLines", "dbo.x y", "z"]
    assert targets("var loadToday = 1; reloadToX({})") == []


async def test_a_document_becomes_rows_of_several_tables(sandbox: Sandbox) -> None:
    script = """
      loadToOrders({Company: this.Company, Count: this.Lines.length});
      for (const line of this.Lines) loadToLines({Order: id(this), Product: line.Product});
    """
    order = document(Company="c", Lines=[{"Product": "p1"}, {"Product": "p2"}])
    assert await run(sandbox, script, order) == [
        TransformedDocument(
            rows=[
                ("Orders", {"Company": "c", "Count": 2}),
                ("Lines", {"Order": "orders/1-A", "Product": "p1"}),
                ("Lines", {"Order": "orders/1-A", "Product": "p2"}),
            ]
        )
    ]


async def test_texts_with_a_length_as_in_ravendb_are_kept_or_refused_and_never_cut(sandbox: Sandbox) -> None:
    script = "loadToT({A: varchar(this.A, 3), B: nvarchar(this.B)})"
    found = await run(
        sandbox,
        script,
        document(A="abc", B="x" * 60),
        document(A=None),
        document(A="abcd"),
        document(A=5),
    )
    assert [answer.rows for answer in found] == [
        [("T", {"A": "abc", "B": "x" * 60})],
        [("T", {"A": None, "B": None})],
        [],
        [],
    ]
    assert "varchar(..., 3) was given a text of 4 characters" in str(found[2].error)
    assert "varchar needs a text as its first argument" in str(found[3].error)
    (wrong,) = await run(sandbox, "loadToT({A: nvarchar('a', 0)})")
    assert "needs a length of 1 or more" in str(wrong.error)


async def test_metadata_is_what_the_system_knows_with_what_users_added(sandbox: Sandbox) -> None:
    script = """
      const m = getMetadata(this);
      loadToT({Id: m['@id'], C: this['@metadata']['@collection'], V: m['@change-vector'], M: m['@last-modified'],
               U: m.u});
    """
    fields: dict[str, Any] = {"@metadata": {"u": 7}}
    (loaded,) = await run(sandbox, script, document(**fields))
    assert loaded.rows[0][1] == {
        "Id": "orders/1-A",
        "C": "Orders",
        "V": "A:1-xxxxxxxxxxxxxxxxxxxxxx",
        "M": "2026-01-31T12:00:00.0000000Z",
        "U": 7,
    }


async def test_values_are_what_json_can_say(sandbox: Sandbox) -> None:
    script = "loadToT({u: undefined, n: null, d: new Date(0), b: 12345678901234567890n, o: {a: [1]}, s: 'é'})"
    (loaded,) = await run(sandbox, script)
    assert loaded.rows[0][1] == {
        "u": None, "n": None, "d": "1970-01-01T00:00:00.000Z", "b": 12345678901234567890, "o": {"a": [1]}, "s": "é",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("loadToT({a: 1 / 0})", "T.a is Infinity, which no database can store"),
        ("loadToT({a: () => 1})", "T.a is a function"),
        ("loadToT(5)", "loadToT needs an object, as in loadToT({Name: this.Name})"),
        ("\nloadToT({a: this.x.y})", "script 'My orders', line 2: TypeError: Cannot read properties of undefined"),
        ("throw 'no'", "script 'My orders': no"),
        ("(function f() { f(); })()", "RangeError: Maximum call stack size exceeded"),
        ("const a = {}; a.a = a; loadToT({a})", "circular"),
        ("throw null", "script 'My orders': null"),
        ("throw undefined", "script 'My orders': undefined"),
        ("throw Symbol('s')", "Symbol(s)"),
        ("throw Object.create(null)", "it threw something that cannot be shown"),
        ("throw {toString() { throw 1; }}", "it threw something that cannot be shown"),
        ("throw {get stack() { throw 1; }}", "it threw something that cannot be shown"),
        ("throw '\\ud800'", "cannot be read: JSON is malformed"),
        ("loadToT({a: '\\ud800'})", "load text without halves of surrogate pairs"),
        ("loadToT({a: [{b: '\\udfff'}]})", "cannot be read"),
        ("loadToT({['\\ud800']: 1})", "cannot be read"),
        ("loadTo('\\ud800', {})", "cannot be read"),
        ("let a = {}; for (let i = 0; i < 3000; i++) a = {a}; loadToT({a})", "nested deeper than 128"),
        ("loadTo(5, {})", "loadTo needs the name of a table as its first argument"),
        ("loadTo(null, {})", "loadTo needs the name of a table"),
        ("loadTo('', {})", "loadTo needs the name of a table"),
        ("loadTo({toString() { while (true); }}, {})", "loadTo needs the name of a table"),
        ("loadToT({a: {toJSON() { throw new Error('no JSON'); }}})", "no JSON"),
        ("loadToT({get a() { throw new Error('no value'); }})", "no value"),
        ("loadToT({a: 2n ** (2n ** 40n)})", "Maximum BigInt size exceeded"),
        ("loadToT({a: 'x'.repeat(2 ** 30)})", "Invalid string length"),
        ("String = Number = null; throw 'shown'", "script 'My orders': shown"),
    ],
)
async def test_a_document_whose_script_throws_fails_alone(sandbox: Sandbox, script: str, error: str) -> None:
    good, bad = await run(
        sandbox, f"if (this.good) loadToT({{x: 1}}); else {{ {script} }}", document(good=1), document()
    )
    assert good == TransformedDocument(rows=[("T", {"x": 1})])
    assert bad.rows == []
    assert error in str(bad.error)


async def test_the_transforms_of_one_sandbox_do_not_get_in_each_others_way(sandbox: Sandbox) -> None:
    first, second = Transform("first", "loadToT({n: 1, id: id(this)})"), Transform("second", "loadToU({n: 2})")
    for _ in range(2):
        for transform, row in ((first, ("T", {"n": 1, "id": "a/1"})), (second, ("U", {"n": 2}))):
            assert await transform.apply(sandbox, [document("a/1")]) == [TransformedDocument(rows=[row])]


@pytest.mark.parametrize(
    "bend",
    [
        "JSON.stringify = () => 'x'",
        "JSON.parse = () => []",
        "Object.prototype.toJSON = () => 7",
        "delete globalThis.JSON",
    ],
)
async def test_a_script_that_bends_the_language_harms_itself_at_most(sandbox: Sandbox, bend: str) -> None:
    transform = Transform("My orders", f"{bend}; loadToT({{a: 1}})")
    for _ in range(2):
        (loaded,) = await transform.apply(sandbox, [document()])
        assert loaded.rows == [("T", {"a": 1})] or "cannot be read" in str(loaded.error)
    await sandbox.close()
    assert await run(sandbox, "loadToT({a: 1})") == [TransformedDocument(rows=[("T", {"a": 1})])]


@pytest.mark.parametrize(
    "script", ["} ; __raftnode = {program: () => () => 7}; {", "}; __raftnode = {program: () => () => 'x'}; {"]
)
async def test_a_script_that_breaks_out_of_its_function_is_told_so(sandbox: Sandbox, script: str) -> None:
    with pytest.raises(
        ScriptError, match=r"script 'My orders': gives .* leave the functions of the language as they are"
    ):
        await run(sandbox, script)


async def test_a_script_that_does_not_compile_is_the_script_s_fault(sandbox: Sandbox) -> None:
    with pytest.raises(ScriptError, match="script 'My orders', line 2: SyntaxError"):
        await run(sandbox, "loadToT({});\n let 5;")


async def test_a_script_that_does_not_end_on_a_document_is_ended(sandbox: Sandbox) -> None:
    with pytest.raises(ScriptEnded, match="did not end within 1000 ms"):
        await run(sandbox, "while (this.bad); loadToT({})", document(), document(bad=True))


async def test_a_comment_at_the_end_of_a_script_does_no_harm(sandbox: Sandbox) -> None:
    assert (await run(sandbox, "loadToT({a: 1}) // done"))[0].rows == [("T", {"a": 1})]


async def test_the_same_document_gives_the_same_rows_whatever_came_before(sandbox: Sandbox) -> None:
    script = "loadToT({Id: id(this), other: id({'@metadata': {'@id': 'x/1'}}), none: id({})})"
    first, second = await run(sandbox, script, document("a/1"), document("a/2"))
    assert [loaded.rows[0][1] for loaded in (first, second)] == [
        {"Id": "a/1", "other": "x/1", "none": None},
        {"Id": "a/2", "other": "x/1", "none": None},
    ]


@pytest.mark.parametrize(
    ("number", "script", "loaded"),
    [
        ("9007199254740993", "loadToT({v: this.v})", 9007199254740993),
        ("-1161888007138312193", "loadToT({v: this.v})", -1161888007138312193),
        ("9007199254740993", "loadToT({v: `no. ${this.v}`})", "no. 9007199254740993"),
        ("9007199254740993", "loadToT({v: this.v + 1n})", 9007199254740994),
        ("9007199254740993", "loadToT({v: Number(this.v)})", 9007199254740992),
        ("9007199254740993", "loadToT({v: {deep: [this.v]}})", {"deep": [9007199254740993]}),
        ("9007199254740992", "loadToT({v: this.v + 0})", 9007199254740992),
        ("1152921504606846976", "loadToT({v: typeof this.v})", "bigint"),
        ("0.1234567890123456789", "loadToT({v: this.v})", Decimal("0.1234567890123456789")),
        ("0.1234567890123456789", "loadToT({v: {deep: [this.v]}})", {"deep": [Decimal("0.1234567890123456789")]}),
        ("0.1234567890123456789", "loadToT({v: String(this.v)})", "0.1234567890123456789"),
        ("0.1234567890123456789", "loadToT({v: Number(this.v)})", Decimal("0.12345678901234568")),
        ("0.1234567890123456789", "loadToT({v: this.v * 2 < 1})", True),
        ("0.1234567890123456789", "loadToT({v: this.v.toFixed(2)})", "0.12"),
        ("9007199254740993.0", "loadToT({v: this.v})", Decimal("9007199254740993.0")),
        ("1e400", "loadToT({v: this.v})", Decimal("1E+400")),
        ("1e-400", "loadToT({v: this.v})", Decimal("1E-400")),
        ("0.1", "loadToT({v: this.v + 0.2})", Decimal("0.30000000000000004")),
        ("1e22", "loadToT({v: typeof this.v})", "number"),
        ("0.30000000000000004", "loadToT({v: typeof this.v})", "number"),
        ("1234567890.1234560", "loadToT({v: typeof this.v})", "number"),
        ("0e999", "loadToT({v: typeof this.v})", "number"),
    ],
)
async def test_a_number_keeps_its_digits(sandbox: Sandbox, number: str, script: str, loaded: Any) -> None:
    (result,) = await run(sandbox, script, replace(document(), body=b'{"v": %s, "t": "\\"1e400"}' % number.encode()))
    assert result == TransformedDocument(rows=[("T", {"v": loaded})])
    assert type(result.rows[0][1]["v"]) is type(loaded)


@pytest.mark.parametrize(
    ("number", "script", "error"),
    [
        ("9007199254740993", "loadToT({v: this.v + 1})", "Cannot mix BigInt.*'v' is 9007199254740993"),
        ("9007199254740993", "loadToT({v: JSON.stringify(this)})", "serialize a BigInt.*'v' is 9007199254740993"),
        (
            "0.1234567890123456789",
            "loadToT({v: this.v + 1})",
            r"line 1: .*'v' is 0.12345678.*, .*write Number",
        ),
        ("0.1234567890123456789", "loadToT({v: 'x' + this.v})", "'v' is 0.1234567890123456789"),
        ("1e400", "loadToT({v: Number(this.v)})", "v is Infinity, which no database can store"),
        ("1e1000000", "loadToT({v: this.v})", "'v' is 1e1000000, which no database can store"),
        ("1", "loadToT({v: {deep: [0 / 0]}})", "'0' is NaN, which no database can store"),
    ],
)
async def test_a_number_that_would_lose_digits_is_refused_by_name(
    sandbox: Sandbox, number: str, script: str, error: str
) -> None:
    (result,) = await run(sandbox, script, replace(document(), body=b'{"v": %s}' % number.encode()))
    assert re.search(error, str(result.error))
    assert result.rows == []


async def test_a_number_beyond_all_measure_that_a_script_makes_up_is_text(sandbox: Sandbox) -> None:
    (result,) = await run(sandbox, "loadToT({v: JSON.rawJSON('1e99999999999999999999')})")
    assert result.rows == [("T", {"v": "1e99999999999999999999"})]


async def test_what_a_script_makes_of_dates_and_numbers_does_not_depend_on_the_node(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    for name in ("LANG", "LC_ALL", "LC_MESSAGES"):
        monkeypatch.setenv(name, "de_DE.UTF-8")
    script = """
      const day = new Date(2024, 0, 31);
      loadToT({day, text: String(day), zone: Intl.DateTimeFormat().resolvedOptions().timeZone,
               offset: new Date(2024, 6, 1).getTimezoneOffset(), number: (1234567.5).toLocaleString()});
    """
    (result,) = await run(sandbox, script)
    assert result.rows[0][1] == {
        "day": "2024-01-31T00:00:00.000Z",
        "text": "Wed Jan 31 2024 00:00:00 GMT+0000 (Coordinated Universal Time)",
        "zone": "UTC",
        "offset": 0,
        "number": "1,234,567.5",
    }


def loader(size_bytes: int, asked: list[int]) -> Loader:
    """Gives every document."""

    async def load(ids: Sequence[str]) -> list[Document | None]:
        asked.append(len(ids))
        return [document(id, Text="x" * size_bytes) for id in ids]

    return load


async def test_a_script_that_loads_very_many_documents_loads_them_in_turns(sandbox: Sandbox) -> None:
    asked: list[int] = []
    script = "let n = 0; for (let i = 0; i < 2500; i++) n += load('x/' + i) ? 1 : 0; loadToT({n})"
    (done,) = await Transform("My orders", script).apply(sandbox, [document()], loader(1, asked))
    assert done.rows == [("T", {"n": 2500})]
    assert max(asked) <= LOADED_AT_ONCE
    endless = Transform("My orders", "for (let i = 0; i < 1e6; i++) load('x/' + i); loadToT({})")
    (failed,) = await endless.apply(sandbox, [document()], loader(1, asked))
    assert "load fewer" in str(failed.error)


async def test_what_a_batch_loads_has_a_limit(sandbox: Sandbox) -> None:
    """Else a few large documents, each loaded by another, would fill the node's memory."""
    asked: list[int] = []
    script = Transform("My orders", "for (let i = 0; i < 500; i++) load('x/' + i); loadToT({})")
    with pytest.raises(ScriptEnded, match="loads more than 16384 documents, and of 16 MiB"):
        await script.apply(sandbox, [document()], loader(1 << 20, asked))
    assert sum(asked) <= LOADED_AT_ONCE


async def test_a_batch_that_becomes_very_many_values_is_too_large_but_a_document_is_not(sandbox: Sandbox) -> None:
    script = Transform("My orders", "for (let i = 0; i < 50000; i++) loadToT({i})")
    with pytest.raises(BatchTooLarge):
        await script.apply(sandbox, [document()] * 4)
    (done,) = await script.apply(sandbox, [document()])
    assert len(done.rows) == 50_000
    commas = Transform("My orders", "loadToT({A: ','.repeat(1e6)})")
    assert [one.error for one in await commas.apply(sandbox, [document()])] == [None]


@pytest.mark.parametrize("documents", [False, True])
async def test_every_field_of_a_document_is_loaded_whatever_its_name(sandbox: Sandbox, documents: bool) -> None:
    fields: dict[str, Any] = {"__proto__": {"x": 1}, "constructor": 2, "toJSON": 3, "": 4, "hasOwnProperty": 5}
    script = Transform("My orders", "delete this['@metadata']; loadToT(this)", documents=documents)
    (done,) = await script.apply(sandbox, [document(**fields)])
    [(_, row)] = done.rows
    loaded = json.loads(bytes(row)) if documents else row
    assert {name: loaded.get(name) for name in fields} == fields


async def test_what_a_script_throws_is_cut(sandbox: Sandbox) -> None:
    (failed,) = await run(sandbox, "throw new Error('x'.repeat(1e5)); loadToT({})")
    assert len(str(failed.error)) < 2_000
    refusal = DocumentRefusal("orders/1", "x" * 10_000)
    assert len(refusal.reason) <= 1_001
