"""Connections that have read and may read again. A connection costs about 100 KiB, and a node may have a thousand
databases that are seldom read: so only those used last are kept, whichever stores they belong to."""

import sqlite3
from threading import Lock


class IdleReaders:
    """At most `most` connections, each of a store (any object), the one used last at the end. For any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._kept: list[tuple[object, sqlite3.Connection]] = []

    def take(self, store: object) -> sqlite3.Connection | None:
        """A connection of that store, the one used last; None if there is none."""
        with self._lock:
            for place in reversed(range(len(self._kept))):
                if self._kept[place][0] is store:
                    return self._kept.pop(place)[1]
        return None

    def give_back(self, store: object, connection: sqlite3.Connection) -> None:
        """Keep it for the next reading; beyond the limit the one that was not used for longest is closed."""
        with self._lock:
            self._kept.append((store, connection))
            oldest = self._kept.pop(0)[1] if len(self._kept) > self._most else None
        if oldest is not None:
            oldest.close()

    def close(self, store: object) -> None:
        """Close all of that store."""
        with self._lock:
            mine = [connection for owner, connection in self._kept if owner is store]
            self._kept = [(owner, connection) for owner, connection in self._kept if owner is not store]
        for connection in mine:
            connection.close()
