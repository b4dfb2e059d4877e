"""The JSON of a configuration or connection string as its type, and what does not fit, by the name of its field."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from tasks.kinds.registry import ConfigurationError

Fitted = TypeVar("Fitted")

WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_PLACE = " - at `$"
_MISSING = re.compile(r"Object missing required field `(.+)`")
_ENUM = re.compile(r"Invalid enum value (.+)", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(.+)`, got `(.+)`")


def fitted(given: Mapping[str, Any], kind: type[Fitted]) -> Fitted:
    """The JSON as that type. A field that is null counts as left out: official clients send every field. Raises
    ConfigurationError."""
    try:
        return msgspec.convert(_without_nulls(given), kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(*_told(str(error))) from None


def _without_nulls(given: Any) -> Any:
    if isinstance(given, Mapping):
        return {name: _without_nulls(value) for name, value in given.items() if value is not None}
    return [_without_nulls(item) for item in given] if isinstance(given, list) else given


def _told(error: str) -> tuple[str, str]:
    """The field that msgspec's error names, and what is wrong with it."""
    # The last one: a value that is told of may look like a place, too.
    problem, at, field = error.rpartition(_PLACE)
    problem, field = (problem, field.removeprefix(".").removesuffix("`")) if at else (error, "")
    if missing := _MISSING.fullmatch(problem):
        return ".".join(filter(None, (field, missing[1]))), "is missing; add it"
    if expected := _EXPECTED.fullmatch(problem):
        wanted = " or ".join(WORDS.get(one, one) for one in expected[1].split(" | ") if one != "null")
        problem = f"is {WORDS.get(expected[2], expected[2])}; give {wanted}"
    elif value := _ENUM.fullmatch(problem):
        problem = f"{value[1][:80]} is none of the values that it takes; correct it"
    return field or "Configuration", problem
