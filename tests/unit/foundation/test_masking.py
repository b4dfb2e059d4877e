"""Secrets behind a mask: in what is shown, in what people read, and kept by an edit that sends the mask back."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.foundation.masking import MASK, NoStoredSecret, in_text, masked, unmasked

STRINGS = [
    'Host=h;Username=u;Password="s3cr;et";Database=d',
    "Host=h;PWD='s3cr;et' ;Database=d",
    'Password="s3cr;et"',
    'SSL Password="s3cr;et";Host=h',
    "postgresql://u:s3cr;et@h:5432/d?sslmode=require",
    "postgresql://u@h/d?password=s3cr;et&sslmode=require",
]


@pytest.mark.parametrize("string", STRINGS)
def test_a_connection_string_is_masked_and_comes_back(string: str) -> None:
    stored = {"Name": "target", "Type": "Sql", "ConnectionString": string}
    shown = masked(stored)
    assert "s3cr" not in str(shown)
    assert MASK in shown["ConnectionString"]
    assert "h" in shown["ConnectionString"] or string.startswith("Password")
    assert unmasked(shown, stored) == stored


def test_an_edit_may_change_what_stands_around_the_mask() -> None:
    stored = {"ConnectionString": "Host=old;Password=s3cret;Database=d"}
    for edited, kept in [
        (f"Database=new;Pwd={MASK};Host=new", "Database=new;Pwd=s3cret;Host=new"),
        ("Host=new;Password=other;Database=d", "Host=new;Password=other;Database=d"),
        ("Host=new;Database=d", "Host=new;Database=d"),
    ]:
        assert unmasked({"ConnectionString": edited}, stored) == {"ConnectionString": kept}


def test_a_mask_where_nothing_is_stored_is_refused() -> None:
    cases: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
        ({"ConnectionString": f"Host=h;Password={MASK}"}, None),
        ({"ConnectionString": f"Host=h;Password={MASK}"}, {"ConnectionString": "Host=h"}),
        ({"ApiKey": MASK}, {"Other": "x"}),
        ({"Settings": {"AwsSecretKey": MASK}}, {"Settings": {}}),
    ]
    for edited, stored in cases:
        with pytest.raises(NoStoredSecret, match="Give the secret itself"):
            unmasked(edited, stored)


def test_the_key_of_a_backup_is_named_as_it_is_written() -> None:
    with pytest.raises(NoStoredSecret, match=r"'BackupEncryptionSettings\.Key' holds the mask"):
        unmasked({"BackupEncryptionSettings": {"EncryptionMode": "UseProvidedKey", "Key": MASK}}, {})


def test_fields_and_addresses_of_any_depth_are_masked_and_come_back() -> None:
    stored = {
        "TopologyDiscoveryUrls": ["https://u:s3cret@a", "https://b"],
        "Nested": [{"ApiKey": "s3cret", "Password": "", "Port": 5, "Token": None}],
        "Script": "loadToUsers({Password: this.Password})",
        "Url": "http://u:s3cret@h/",
    }
    shown = masked(stored)
    assert "s3cret" not in str(shown)
    assert shown["Script"] == stored["Script"]
    assert shown["Nested"][0]["Password"] == ""
    assert shown["TopologyDiscoveryUrls"] == [f"https://u:{MASK}@a", "https://b"]
    assert unmasked(shown, stored) == stored


@given(
    password=st.text(min_size=1, max_size=20).filter(lambda text: text.strip() == text and text != MASK),
    quote=st.sampled_from("'\""),
)
def test_any_quoted_password_comes_back(password: str, quote: str) -> None:
    value = quote + password.replace(quote, quote * 2) + quote
    stored = {"ConnectionString": f"Host=h;Password={value};Database=d"}
    if "://" in value:
        return
    assert masked(stored) == {"ConnectionString": f"Host=h;Password={MASK};Database=d"}
    assert unmasked(masked(stored), stored) == stored


@pytest.mark.parametrize(
    "text",
    [
        "http://bob:s3cret@host:8080/x cannot be reached",
        "cannot connect to 'postgresql+asyncpg://u:s3cret@h/d'",
        "Host=h;Password=s3cret;Database=d is refused",
        "invalid dsn: password='s3cret' host=h",
        'given {"Password": "s3cret", "x": 1}',
        "the SSL Password=s3cret",
        "api_key=s3cret",
    ],
)
def test_texts_for_people_hold_no_secret(text: str) -> None:
    assert "s3cret" not in in_text(text)
    assert MASK in in_text(text)


def test_other_texts_stay_as_they_are() -> None:
    for text in (
        'password authentication failed for user "etl"',
        "http://host:8080/a@b cannot be reached: [Errno 111] Connect call failed ('127.0.0.1', 1)",
        "The task waits; token 17 was refused.",
    ):
        assert in_text(text) == text


def test_long_texts_take_no_long_time() -> None:
    """Each text of the log, and each error, is looked through on the event loop."""
    began_s = time.process_time()
    for text in (
        "://:" * 20_000,
        "@" + "://a:" * 20_000,
        "the quick brown fox jumps over a lazy dog " * 2000,
        "secret-" * 10_000,
        '"a b ' * 10_000,
    ):
        assert in_text(text) == text
    assert time.process_time() - began_s < 5
