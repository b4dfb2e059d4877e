"""Names of tables as configurations write them."""

import pytest

from tasks.sinks.sql.names import split


@pytest.mark.parametrize(
    ("text", "lower", "parts"),
    [
        ("Orders", True, ("", "orders")),
        ("Orders", False, ("", "Orders")),
        ("Shop.Orders", True, ("shop", "orders")),
        ('"Orders"', True, ("", "Orders")),
        ('shop."Order.Lines"', True, ("shop", "Order.Lines")),
        (' shop . "a ""b""" ', False, ("shop", 'a "b"')),
        ("`shop`.`a``b`", False, ("shop", "a`b")),
        ("[shop].[Order Lines]", False, ("shop", "Order Lines")),
    ],
)
def test_a_name_as_it_stands_in_sql(text: str, lower: bool, parts: tuple[str, str]) -> None:
    assert split(text.strip(), quoted=False, lower=lower) == parts


@pytest.mark.parametrize("text", ["", "a b", "a.", ".a", "a.b.c", '"a', 'a"b', "a;DROP TABLE b", 'a".b', "[a"])
def test_what_is_no_name_in_sql_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a table's name in SQL"):
        split(text, quoted=False)


def test_a_quoted_name_is_taken_as_it_is() -> None:
    assert split('shop.Order "Lines"') == ("shop", 'Order "Lines"')
    assert split("Orders").folded == ("", "orders")
