"""The demo's target: two tables in SQLite or PostgreSQL, and the figures they must end with."""

import uuid
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from sqlalchemy import URL, Column, Float, Integer, MetaData, Numeric, String, Table, func, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateSchema, DropSchema

from raftnode.foundation.masking import in_text
from raftnode.web.views.base import Json

ORDERS = 830
LINES = 2155
NET_SALES = Decimal("1265793.04")

SCRIPT = """\
loadToOrders({Company: this.Company, OrderedAt: this.OrderedAt, LineCount: this.Lines.length});
for (const line of this.Lines) {
    loadToOrderLines({Product: line.Product, Quantity: line.Quantity,
                      PricePerUnit: line.PricePerUnit, Discount: line.Discount});
}
"""

_metadata = MetaData()
_orders = Table(
    "Orders",
    _metadata,
    Column("Id", String(64), primary_key=True),
    Column("Company", String(64)),
    Column("OrderedAt", String(40)),
    Column("LineCount", Integer),
)
_lines = Table(
    "OrderLines",
    _metadata,
    Column("LineNumber", Integer, primary_key=True, autoincrement=True),
    Column("OrderId", String(64), index=True),
    Column("Product", String(64)),
    Column("Quantity", Integer),
    Column("PricePerUnit", Numeric(12, 4)),
    Column("Discount", Float),
)


@dataclass(frozen=True)
class Figures:
    """What the target holds."""

    orders: int
    distinct_orders: int
    lines: int
    net_sales: Decimal

    @property
    def right(self) -> bool:
        """Whether they are Northwind's, and no order is there twice."""
        return (self.orders, self.distinct_orders, self.lines, self.net_sales) == (ORDERS, ORDERS, LINES, NET_SALES)


class TargetFailed(Exception):
    """The target cannot be used; the message says why."""


class DemoTarget:
    """The target database. `url` is a PostgreSQL URL, or None for a SQLite file in the directory.

    In PostgreSQL the tables stand in a schema of their own, which nobody else has and which goes with `close`: the
    database may be one with tables of these names.
    """

    def __init__(self, directory: Path, url: str | None) -> None:
        self._file = directory / "target.sqlite"
        self._url = url
        self.schema = f"raftnode_demo_{uuid.uuid4().hex[:12]}" if url else None
        self._created = False
        driver = _address(url).set(drivername="postgresql+asyncpg") if url else f"sqlite+aiosqlite:///{self._file}"
        self._engine: AsyncEngine = create_async_engine(
            driver, execution_options={"schema_translate_map": {None: self.schema}}
        )

    @property
    def where(self) -> str:
        """The target as a person would name it."""
        return f"{_address(self._url).render_as_string()}, schema {self.schema}" if self._url else str(self._file)

    def connection_string(self, name: str) -> Json:
        """The connection string in RavenDB's shape."""
        factory = "Npgsql" if self._url else "System.Data.SQLite"
        string = f"Data Source={self._file}"
        if self._url:
            # The fence's table stands in the schema as well, and goes with it.
            url = _address(self._url).update_query_dict({"search_path": str(self.schema)})
            string = url.render_as_string(hide_password=False)
        return {"Name": name, "Type": "Sql", "FactoryName": factory, "ConnectionString": string}

    async def create(self) -> None:
        """Makes the two tables. Raises TargetFailed."""
        try:
            async with self._engine.begin() as connection:
                if self.schema:
                    await connection.execute(CreateSchema(self.schema))
                await connection.run_sync(_metadata.create_all)
        except (SQLAlchemyError, OSError) as error:
            reason = in_text(str(getattr(error, "orig", None) or error))
            raise TargetFailed(f"the target {self.where} cannot be used: {reason}") from None
        self._created = True

    async def figures(self) -> Figures:
        """Reads the figures."""
        net = _lines.c.Quantity * _lines.c.PricePerUnit * (1 - _lines.c.Discount)
        async with self._engine.connect() as connection:
            orders = (await connection.execute(select(func.count()).select_from(_orders))).scalar_one()
            distinct = (await connection.execute(select(func.count(func.distinct(_orders.c.Id))))).scalar_one()
            lines = (await connection.execute(select(func.count()).select_from(_lines))).scalar_one()
            sales = (await connection.execute(select(func.sum(net)))).scalar_one()
        rounded = Decimal(str(sales or 0)).quantize(Decimal("0.01"))
        return Figures(orders=orders, distinct_orders=distinct, lines=lines, net_sales=rounded)

    async def close(self) -> None:
        """Takes what `create` made away, and closes the connections."""
        try:
            if self._created and self.schema:
                async with self._engine.begin() as connection:
                    await connection.execute(DropSchema(self.schema, cascade=True))
        finally:
            await self._engine.dispose()


def _address(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError:
        raise TargetFailed("--postgres is not an address like postgresql://user:password@host:5432/database") from None


def etl(name: str, connection_string: str) -> Json:
    """The demo's task in RavenDB's shape."""
    return {
        "EtlType": "Sql",
        "Name": name,
        "ConnectionStringName": connection_string,
        "SqlTables": [
            {"TableName": "Orders", "DocumentIdColumn": "Id", "InsertOnlyMode": False},
            {"TableName": "OrderLines", "DocumentIdColumn": "OrderId", "InsertOnlyMode": False},
        ],
        "Transforms": [{"Name": "orders", "Collections": ["Orders"], "Script": SCRIPT}],
    }
