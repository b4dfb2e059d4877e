"""How names compare.

Databases, tasks, connection strings, kinds, collections, tables and document ids are the same when only case differs.
"""


def fold(name: str) -> str:
    """The key under which a name is stored and compared; the name itself keeps the spelling that it was given.

    It stands in records, file names and document keys on disk, so it must never change. It is `lower` and not
    `casefold`: the latter would make one name of "strasse" and "straße".
    """
    return name.lower()
