"""Secrets are shown as a mask, wherever they are shown: in answers, errors and the log. An edit that sends the mask
back keeps the secret that is stored.

A secret is the value of a field, of a key of a connection string, or of a parameter of an address, that is named like
one; and the password in an address.
"""

import re
from collections.abc import Iterator
from typing import Any

MASK = "********"

_NAMED = (
    r"password|passphrase|passwd|secret|token|(?:api|access|account|private|encryption)[ _-]?key|credentials[ _-]?json"
    r"|encryptionsettings\.key"
)
_BELOW = {"BackupEncryptionSettings": {"Key": "BackupEncryptionSettings.Key"}}
"""Fields that are secrets where they stand, and a name that says so."""
_SECRET_NAME = re.compile(rf"(?:.*(?:{_NAMED}).*|pwd|psw|pass|credentials?)\Z", re.IGNORECASE | re.DOTALL)
_OF_ADDRESS = re.compile(r"://[^:/@]*:([^@]*)@")
_PARAMETER = re.compile(r"[?&]([^=&#]*)=([^&#]*)")
_WORD = re.compile(r"""[^\s"']+""")
_TO_PASSWORD = re.compile(r"://[^:/]*:(?!\d{1,5}/)")
# Whatever comes before a name is not looked at: it would be, from each word on, to the end of the sentence.
_IN_TEXT = re.compile(
    rf"""(?P<field>"[\w -]*(?:{_NAMED}|pwd|psw)"\s*:\s*)"(?:[^"\\\n]|\\.)*"?"""
    rf"""|(?P<name>(?:{_NAMED}|\bpwd|\bpsw)\s?=\s?)(?:"[^"\n]*"|'[^'\n]*'|[^;"'\n]+)""",
    re.IGNORECASE,
)


class NoStoredSecret(Exception):
    """A mask was sent back where no secret is stored; `field` says where."""

    def __init__(self, field: str) -> None:
        super().__init__(f"'{field}' holds the mask {MASK}, and no secret is stored for it. Give the secret itself.")
        self.field = field


def in_text(text: str) -> str:
    """A text for people, like an error, with what looks like a secret masked. Rather too much than too little."""
    if "://" in text and "@" in text:
        text = _WORD.sub(lambda found: _addresses_masked(found[0]), text)
    return _IN_TEXT.sub(lambda found: (found["field"] or found["name"]) + MASK, text)


def _addresses_masked(word: str) -> str:
    """A word with the passwords of its addresses masked. One expression for them would take time by the square of the
    word's length, and what a user sends is repeated in errors."""
    *before, rest = word.split("@")
    found = [(part, _TO_PASSWORD.search(part)) for part in before]
    return "@".join([*(part[: at.end()] + MASK if at else part for part, at in found), rest])


def masked(value: Any, name: str = "") -> Any:
    """A value of JSON, that of the field `name`, with its secrets masked."""
    if isinstance(value, dict):
        return {key: masked(item, _named(name, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item, name) for item in value]
    return _masked_text(value, name) if isinstance(value, str) else value


def unmasked(given: Any, stored: Any, name: str = "") -> Any:
    """What is given, with each mask replaced by the secret at its place in what is stored. Raises NoStoredSecret."""
    if isinstance(given, dict):
        fields = stored if isinstance(stored, dict) else {}
        return {key: unmasked(item, fields.get(key), _named(name, key)) for key, item in given.items()}
    if isinstance(given, list):
        items = stored if isinstance(stored, list) else []
        return [unmasked(item, items[place] if place < len(items) else None, name) for place, item in enumerate(given)]
    return _kept(name, given, stored) if isinstance(given, str) else given


def _named(above: str, field: str) -> str:
    return _BELOW.get(above, {}).get(field, field)


def _masked_text(value: str, name: str) -> str:
    if _SECRET_NAME.match(name):
        return MASK if value else value
    if _is_connection(name):
        for _, start, end in reversed(list(_secrets(value))):
            value = value[:start] + MASK + value[end:]
    return value


def _kept(name: str, given: str, stored: Any) -> str:
    if _SECRET_NAME.match(name) and given == MASK:
        if not isinstance(stored, str) or not stored:
            raise NoStoredSecret(name)
        return stored
    if _is_connection(name) and MASK in given:
        return _kept_in(name, given, stored if isinstance(stored, str) else "")
    return given


def _kept_in(field: str, given: str, stored: str) -> str:
    known = {name: stored[start:end] for name, start, end in _secrets(stored)}
    for name, start, end in reversed(list(_secrets(given))):
        if given[start:end] == MASK:
            if name not in known:
                raise NoStoredSecret(field)
            given = given[:start] + known[name] + given[end:]
    return given


def _is_connection(name: str) -> bool:
    return name.lower().endswith(("connectionstring", "url", "urls"))


def _secrets(text: str) -> Iterator[tuple[str, int, int]]:
    """The secrets of a connection string or an address: a name for each, and where its value begins and ends."""
    if "://" in text:
        pairs = [("password", *found.span(1)) for found in _OF_ADDRESS.finditer(text)]
        pairs += [(found[1], *found.span(2)) for found in _PARAMETER.finditer(text) if _SECRET_NAME.match(found[1])]
        found_pairs = sorted(pairs, key=lambda pair: pair[1])
    else:
        found_pairs = [pair for pair in _pairs(text) if _SECRET_NAME.match(pair[0])]
    for name, start, end in found_pairs:
        if end > start:
            yield "password" if name.lower() in ("pwd", "psw") else name.lower(), start, end


def _pairs(text: str) -> Iterator[tuple[str, int, int]]:
    """The pairs of `Key=Value;Key="a;b"`: the key, and where its value begins and ends, quotes included."""
    place = 0
    while (equals := text.find("=", place)) >= 0:
        name, start = text[place:equals].strip(), equals + 1
        while text[start : start + 1].isspace():
            start += 1
        end = _closed(text, start) if text[start : start + 1] in ("'", '"') else start
        found = text.find(";", end)
        end = len(text) if found < 0 else found
        yield name, start, end
        place = end + 1


def _closed(text: str, start: int) -> int:
    """After the quote that closes the one at `start`; the end of the text if none does."""
    quote, place = text[start], start + 1
    while (found := text.find(quote, place)) >= 0:
        if text[found + 1 : found + 2] != quote:
            return found + 1
        place = found + 2
    return len(text)
