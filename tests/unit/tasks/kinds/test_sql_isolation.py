"""What is refused of a batch, against real databases: only what fails by itself once all the rest is in."""

from collections.abc import Sequence
from typing import Any

import pytest

from tasks.etl.refusals import DocumentRefusal
from tasks.kinds.registry import TaskFailed
from tasks.sinks.sql.rows import DocumentRows
from tasks.sinks.sql.sink import SqlSink
from tasks.sinks.sql.tables import SqlTable
from tasks.sinks.sql.types import NotWritable
from tests.unit.tasks.conftest import SqlTarget
from tests.unit.tasks.sinks.sql.test_sink import sink

T = SqlTable("t", "id")
PARENTS, CHILDREN = SqlTable("parents", "id"), SqlTable("children", "id")


def row(id: str, **values: Any) -> DocumentRows:
    return DocumentRows(id, ("t",), [("t", values)])


def in_table(table: str, id: str, **values: Any) -> DocumentRows:
    return DocumentRows(id, (table,), [(table, values)])


def fair(accepted: int, refusals: Sequence[DocumentRefusal], *, final: bool) -> None:
    """Every refusal is the document's own fault."""


async def write(opened: SqlSink, *documents: DocumentRows) -> list[str]:
    return [refusal.id for refusal in await opened.write(documents, lambda refused: b"{}", fair)]


async def test_a_swap_of_unique_values_goes_in_beside_a_document_that_is_refused(target: SqlTarget) -> None:
    await target.execute("CREATE TABLE t (id varchar(20), u varchar(20) UNIQUE, v int CHECK (v < 100))")
    async with sink(target, tables=(T,)) as opened:
        assert await write(opened, row("o/1", u="x", v=1), row("o/2", u="y", v=1), row("bad", u="b", v=7)) == []
        rest = [row(f"o/{n}", u=str(n), v=n) for n in range(3, 90)]
        batch = [row("o/1", u="y", v=2), *rest[:40], row("bad", u="b", v=500), *rest[40:], row("o/2", u="x", v=2)]
        assert await write(opened, *batch) == ["bad"]
    assert await target.rows("SELECT id, u FROM t WHERE id IN ('o/1', 'o/2') ORDER BY 1") == [
        ("o/1", "y"),
        ("o/2", "x"),
    ]
    assert await target.rows("SELECT count(*) FROM t") == [(90,)]
    assert await target.rows("SELECT v FROM t WHERE id = 'bad'") == [(7,)]


@pytest.mark.postgres
async def test_a_swap_of_values_that_are_checked_late_goes_in_beside_what_is_refused_late(
    postgres_target: SqlTarget,
) -> None:
    late = "DEFERRABLE INITIALLY DEFERRED"
    await postgres_target.execute(
        f"CREATE TABLE t (id text PRIMARY KEY, u text UNIQUE {late}, b text REFERENCES t {late})"
    )
    async with sink(postgres_target, tables=(T,)) as opened:
        assert await write(opened, row("o/1", u="x"), row("o/2", u="y")) == []
        batch = [
            row("o/1", u="y"),
            row("b/1", u="b", b="none"),
            row("b/2", u="y"),
            row("b/3", b="no"),
            row("o/2", u="x"),
        ]
        assert await write(opened, *batch) == ["b/1", "b/2", "b/3"]
    assert await postgres_target.rows("SELECT id, u FROM t ORDER BY 1") == [("o/1", "y"), ("o/2", "x")]


async def test_what_needs_a_value_of_a_refused_document_s_old_row_is_refused_too(target: SqlTarget) -> None:
    await target.execute("CREATE TABLE t (id varchar(20), u varchar(20) UNIQUE, v int CHECK (v < 100))")
    async with sink(target, tables=(T,)) as opened:
        assert await write(opened, row("o/1", u="x", v=1)) == []
        assert sorted(
            await write(opened, row("o/2", u="x", v=2), row("o/3", u="z", v=3), row("o/1", u="q", v=500))
        ) == [
            "o/1",
            "o/2",
        ]
    assert await target.rows("SELECT id, u FROM t ORDER BY 1") == [("o/1", "x"), ("o/3", "z")]


@pytest.mark.postgres
@pytest.mark.parametrize("late", ["", "DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"])
@pytest.mark.parametrize("parent_first", [True, False])
async def test_a_child_goes_in_with_its_parent_whatever_their_order(
    postgres_target: SqlTarget, late: str, parent_first: bool
) -> None:
    await postgres_target.execute(
        "CREATE TABLE parents (id text PRIMARY KEY, v int CHECK (v < 100))",
        f"CREATE TABLE children (id text, p text REFERENCES parents {late})",
    )
    both = [in_table("parents", "p/1", v=1), in_table("children", "c/1", p="p/1")]
    batch = both if parent_first else both[::-1]
    bad = [in_table("children", "c/2", p="p/none"), in_table("parents", "p/2", v=500)]
    async with sink(postgres_target, tables=(PARENTS, CHILDREN)) as opened:
        assert sorted(await write(opened, *batch, *bad)) == ["c/2", "p/2"]
        assert await write(opened, *batch) == []
        if late:
            assert await write(opened, in_table("parents", "p/1", v=2)) == []
            assert await write(opened, in_table("parents", "p/1", v=3), *bad) == ["c/2", "p/2"]
        gone = [DocumentRows("p/1", ("parents",)), DocumentRows("c/1", ("children",))]
        assert await write(opened, *gone) == []
    assert await postgres_target.rows("SELECT id FROM parents UNION ALL SELECT id FROM children") == []


@pytest.mark.postgres
@pytest.mark.parametrize("backwards", [False, True])
async def test_rows_that_refer_to_others_of_their_table_go_in_in_any_order(
    postgres_target: SqlTarget, backwards: bool
) -> None:
    await postgres_target.execute("CREATE TABLE t (id text PRIMARY KEY, boss text REFERENCES t)")
    chain = [row(f"o/{n}", boss=f"o/{n - 1}" if n else None) for n in range(150)]
    orphan = row("orphan", boss="o/none")
    async with sink(postgres_target, tables=(T,)) as opened:
        assert await write(opened, orphan, *(chain[::-1] if backwards else chain)) == ["orphan"]
    assert await postgres_target.rows("SELECT count(*) FROM t") == [(150,)]


async def test_a_column_that_is_added_while_the_sink_is_open_is_written(target: SqlTarget) -> None:
    await target.execute("CREATE TABLE t (id varchar(20), a int)")
    async with sink(target, tables=(T,)) as opened:
        assert await write(opened, row("o/1", a=1)) == []
        await target.execute("ALTER TABLE t ADD COLUMN b int")
        assert await write(opened, row("o/2", a=2, b=2), row("o/3", a="x", b=3)) == ["o/3"]
    assert await target.rows("SELECT id, a, b FROM t ORDER BY 1") == [("o/1", 1, None), ("o/2", 2, 2)]


async def test_a_missing_column_passes_over_no_document(target: SqlTarget) -> None:
    await target.execute("CREATE TABLE t (id varchar(20), a int)")
    async with sink(target, tables=(T,)) as opened:
        with pytest.raises(NotWritable, match="table 't' has no column 'b'; add it, or load to one of: id, a"):
            await write(opened, row("o/1", a=1), row("o/2", a=2, b=2))
        assert await target.rows("SELECT id FROM t") == []
        await target.execute("ALTER TABLE t ADD COLUMN b int")
        assert await write(opened, row("o/1", a=1), row("o/2", a=2, b=2)) == []


async def test_a_column_that_goes_while_the_sink_is_open_is_a_fault_of_the_target(target: SqlTarget) -> None:
    await target.execute("CREATE TABLE t (id varchar(20), a int, b int)")
    async with sink(target, tables=(T,)) as opened:
        assert await write(opened, row("o/1", a=1, b=1)) == []
        await target.execute("ALTER TABLE t DROP COLUMN b")
        with pytest.raises(TaskFailed, match="has no column 'b'"):
            await write(opened, row("o/2", a=2, b=2))
        assert await write(opened, row("o/2", a=2)) == []


@pytest.mark.postgres
async def test_a_type_that_is_changed_while_the_sink_is_open_is_read_again(postgres_target: SqlTarget) -> None:
    await postgres_target.execute("CREATE TABLE t (id text, a int)")
    async with sink(postgres_target, tables=(T,)) as opened:
        assert await write(opened, row("o/1", a=1)) == []
        await postgres_target.execute("ALTER TABLE t ALTER COLUMN a TYPE text")
        assert await write(opened, row("o/2", a="two")) == []
        await postgres_target.execute("ALTER TABLE t ALTER COLUMN a TYPE date USING NULL")
        assert await write(opened, row("o/3", a="2024-01-31"), row("o/4", a="two")) == ["o/4"]


@pytest.mark.postgres
async def test_a_row_that_a_policy_refuses_is_refused_alone_and_a_missing_grant_is_not(
    postgres_target: SqlTarget,
) -> None:
    await postgres_target.execute(
        "CREATE TABLE t (id text, v int)",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON t USING (true) WITH CHECK (v < 100)",
        "DROP ROLE IF EXISTS raftnode_least",
        "CREATE ROLE raftnode_least LOGIN",
        "GRANT CREATE ON SCHEMA public TO raftnode_least",
        "GRANT SELECT, INSERT, DELETE ON t TO raftnode_least",
    )
    url = postgres_target.connection.url.set(username="raftnode_least").render_as_string()
    text = url.replace("postgresql+asyncpg", "postgresql")
    least = SqlTarget("least", postgres_target.configuration | {"ConnectionString": text})
    try:
        async with sink(least, tables=(T,)) as opened:
            batch = [row("o/1", v=1), row("o/2", v=500), row("o/3", v=3)]
            assert await write(opened, *batch) == ["o/2"]
            await postgres_target.execute("REVOKE INSERT ON t FROM raftnode_least")
            with pytest.raises(TaskFailed, match="permission denied"):
                await write(opened, *batch)
    finally:
        await postgres_target.execute("DROP OWNED BY raftnode_least", "DROP ROLE raftnode_least")
    assert await postgres_target.rows("SELECT id FROM t ORDER BY 1") == [("o/1",), ("o/3",)]


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("type", "bad"),
    [
        ("tsquery", "two words"),  # a syntax error, as those of statements are
        ("regclass", "nowhere"),  # an undefined table, as one of a statement is
        ("jsonpath", "$$$"),
        ("text UNIQUE", "".join(chr(0x4E00 + n * 7 % 20000) for n in range(9000))),  # beyond a limit of the server
        ("xml", "<a>"),
    ],
)
async def test_an_error_that_sounds_like_the_statement_s_is_a_document_s_when_its_value_makes_it(
    postgres_target: SqlTarget, type: str, bad: str
) -> None:
    await postgres_target.execute(f"CREATE TABLE t (id text, v {type})")
    async with sink(postgres_target, tables=(T,)) as opened:
        assert await write(opened, row("o/1"), row("o/2", v=bad), row("o/3")) == ["o/2"]
    assert await postgres_target.rows("SELECT id FROM t ORDER BY 1") == [("o/1",), ("o/3",)]


@pytest.mark.parametrize("target", ["sqlite"], indirect=True)
async def test_an_expression_of_sqlite_that_fails_for_one_row_refuses_that_document(target: SqlTarget) -> None:
    await target.execute("CREATE TABLE t (id text, v text, CHECK (json_extract(v, '$.a') IS NOT 7))")
    async with sink(target, tables=(T,)) as opened:
        assert await write(opened, row("o/1", v={"a": 1}), row("o/2", v="{malformed"), row("o/3")) == ["o/2"]


@pytest.mark.postgres
async def test_an_error_that_a_trigger_makes_up_refuses_that_document(postgres_target: SqlTarget) -> None:
    await postgres_target.execute(
        "CREATE TABLE t (id text, v int)",
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.v = 7 THEN RAISE 'not seven' USING ERRCODE = 'ZZ777'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no()",
    )
    async with sink(postgres_target, tables=(T,)) as opened:
        assert await write(opened, row("o/1", v=1), row("o/2", v=7), row("o/3", v=3)) == ["o/2"]


async def test_ids_that_the_id_column_cannot_have_have_no_rows_to_delete(target: SqlTarget) -> None:
    await target.execute("CREATE TABLE t (id int, v int)")
    async with sink(target, tables=(T,)) as opened:
        assert await write(opened, row("7", v=1), row("8", v=1)) == []
        assert await write(opened, DocumentRows("orders/1", ("t",)), DocumentRows("7", ("t",)), row("o", v=1)) == ["o"]
    assert await target.rows("SELECT id FROM t") == [(8,)]


@pytest.mark.postgres
async def test_a_name_that_postgresql_has_cut_is_named_as_the_reason(postgres_target: SqlTarget) -> None:
    long = "ф" * 32
    await postgres_target.execute(f'CREATE TABLE t (id text, "{long}" text)')
    async with sink(postgres_target, tables=(T, SqlTable(long, "id"))) as opened:
        with pytest.raises(
            NotWritable, match=r"no column .ф+.; the name has 64 bytes, and PostgreSQL cuts names at 63"
        ):
            await write(opened, row("o/1", **{long: "x"}))
        with pytest.raises(NotWritable, match=r"no table .ф+.; the name has 64 bytes"):
            await opened.find([long])
        assert await write(opened, row("o/1", **{"ф" * 31: "x"})) == []


async def test_of_a_wide_table_only_some_columns_are_named(target: SqlTarget) -> None:
    columns = [f"c{n}" for n in range(1_000)]
    await target.execute(f"CREATE TABLE t (id text, {', '.join(f'{name} int' for name in columns)})")
    async with sink(target, tables=(T,)) as opened:
        assert await write(opened, row("o/1", **dict.fromkeys(columns, 1))) == []
        with pytest.raises(
            NotWritable, match=r"no column 'd'; add it, or load to one of: id, c0, .*, c18 and 981 more$"
        ):
            await write(opened, row("o/1", d=1))


async def test_a_table_that_two_names_lead_to_is_not_written(target: SqlTarget) -> None:
    """As the user's search path may have it; the rows of a document would be deleted under the other name."""
    await target.execute("CREATE TABLE t (id text, v int)")
    schemas = {"postgres": "public", "sqlite": "main", "mysql": target.connection.url.database}
    twin = f"{schemas[target.name]}.t"
    async with sink(target, tables=(T, SqlTable(twin, "id"))) as opened:
        assert await write(opened, row("o/1", v=1)) == []
        with pytest.raises(NotWritable, match=f"'{twin}' is the same table as 't'; name it once"):
            await write(opened, in_table(twin, "o/1", v=2))


async def test_a_row_with_two_values_for_a_column_is_refused(target: SqlTarget) -> None:
    """One of them would be lost in silence."""
    await target.execute("CREATE TABLE t (id text, v int)")
    async with sink(target, tables=(T,)) as opened:
        assert await write(opened, row("o/1", v=1), row("o/2", v=1, V=2), row("o/3", V=3)) == ["o/2"]
    assert await target.rows("SELECT * FROM t ORDER BY 1") == [("o/1", 1), ("o/3", 3)]
