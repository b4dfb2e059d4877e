"""What errors of MariaDB and MySQL mean, by their numbers."""

from typing import Literal

_ROW = {
    1048, 1062, 1118, 1263, 1264, 1265, 1292, 1364, 1365, 1366, 1367, 1406, 1411, 1416, 1441, 1451, 1452, 1525, 1557,
    1586, 1644, 1690, 1761, 1762, 3140, 3141, 3156, 3157, 3819, 3903, 4025,
}  # fmt: skip
"""A null, a value that is there already, out of range or too long, a foreign key, a check, a trigger's own signal."""
_SERVER = {
    1040, 1043, 1044, 1045, 1049, 1053, 1079, 1080, 1129, 1130, 1152, 1156, 1157, 1158, 1159, 1160, 1161, 1184, 1203,
    1226, 1227, 1251, 1275, 1290, 1317, 1524, 1698, 1792, 1836, 1862, 1927, 2026, 3032, 3118, 3159, 4031, 4151,
}  # fmt: skip
"""The connection, the login, a limit on connections, an operator, a server that only reads."""
_TARGET = {
    1005, 1016, 1020, 1021, 1023, 1026, 1028, 1030, 1037, 1038, 1041, 1099, 1100, 1114, 1180, 1181, 1194, 1195, 1205,
    1206, 1207, 1213, 1305, 1412, 1613, 1614, 1637, 1665, 1689, 1785, 1969, 3024, 3058, 3101, 3572,
}  # fmt: skip
"""Locks, deadlocks (which end the whole transaction, and with it its savepoints: 1305), time that is up, a disk."""
_FULL = {1040, 1203, 1226}
LOCKED = 1205
"""The server gave up waiting for a lock."""
NO_SAVEPOINT = 1305
"""The transaction has ended before this side has ended it."""


def code(error: BaseException) -> int | None:
    """The server's or the driver's number of an error; None for that of another database."""
    origin = getattr(error, "orig", None)
    if origin is None or not type(origin).__module__.startswith("pymysql."):
        return None
    return origin.args[0] if origin.args and isinstance(origin.args[0], int) else 0


def blame(number: int) -> Literal["target", "row", "either"]:
    """See `connections.blame`. What is not known may be the statement's fault or its values'."""
    if number in _ROW:
        return "row"
    return "target" if is_of_server(number) or number in _TARGET else "either"


def is_of_server(number: int) -> bool:
    """See `connections.is_of_server`."""
    return number == 0 or 2000 <= number < 3000 or number in _SERVER


def is_full(number: int) -> bool:
    """Whether the server allows no connection more."""
    return number in _FULL
