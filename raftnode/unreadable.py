"""What msgspec raises for bytes it cannot read: a malformed message, text that is no UTF-8, nesting beyond all measure.

Its documentation names only the first. Whoever decodes bytes of another machine catches all of them.
"""

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
