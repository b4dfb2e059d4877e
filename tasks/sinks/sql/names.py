"""Names of tables as configurations write them: quoted by whoever executes them, or as they stand in SQL."""

import re

from raftnode.foundation.names import fold

_PART = re.compile(
    r"""\s*(?: "(?P<double>(?:[^"]|"")+)" | `(?P<back>(?:[^`]|``)+)` | \[(?P<bracket>[^\]]+)\]
    | (?P<plain>[^\s."`\[\]]+) )\s*(?P<more>\.?)""",
    re.VERBOSE,
)


class TableName(tuple[str, str]):
    """(schema, name); an empty schema for the target's own."""

    __slots__ = ()

    @property
    def folded(self) -> tuple[str, str]:
        """The same for all spellings."""
        return fold(self[0]), fold(self[1])


def split(text: str, *, quoted: bool = True, lower: bool = False) -> TableName:
    """The parts of a table's name. If not `quoted`, each part may have quotes of its own, within which it may contain
    dots; those without are in lower case if the target (`lower`) reads them so. Raises ValueError."""
    if quoted:
        schema, _, name = text.rpartition(".")
        return TableName((schema, name))
    parts, place, more = list[str](), 0, True
    while more:
        found = _PART.match(text, place)
        if found is None:
            raise ValueError(f"'{text}' is not a table's name in SQL")
        plain = found["plain"]
        own = (found["double"] or "").replace('""', '"') or (found["back"] or "").replace("``", "`") or found["bracket"]
        parts.append((plain.lower() if lower else plain) if plain else own)
        place, more = found.end(), bool(found["more"])
    if place != len(text) or len(parts) > 2:
        raise ValueError(f"'{text}' is not a table's name in SQL")
    return TableName((parts[0] if len(parts) == 2 else "", parts[-1]))
