"""The base of the replicated record's values."""

import msgspec


class RecordValue(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=False):
    """Base of everything in the record."""
