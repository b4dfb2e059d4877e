"""The file of a backup: what was written comes back, and nothing else is taken for it."""

import os
from pathlib import Path

import pytest

from tasks.kinds.backup.protection import BackupDamaged
from tasks.kinds.backup.stream import MAGIC, BackupBlock, BackupReader, BackupWriter, Head

KEY = bytes(range(32))
HEAD = Head(part="Full", database="Northwind", database_id="id", after_etag=0, last_etag=9)
BLOCKS = [
    BackupBlock(definitions=b"{}"),
    BackupBlock([("orders/1", "Orders", b'{"Company":"x"}', 1, "A:1-id", "now")]),
    BackupBlock([("orders/2", "Orders", b'{"Company":"y"}', 2, "A:2-id", "now")]),
    BackupBlock(deleted=["orders/3"]),
]
keys = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])


def written(path: Path, key: bytes | None) -> bytes:
    writer = BackupWriter(path, HEAD, key)
    for block in BLOCKS:
        writer.add(block)
    writer.finish()
    return path.read_bytes()


def read(data: bytes, key: bytes | None, piece: int = 1 << 20) -> list[BackupBlock]:
    """The blocks but the last, which is empty. Raises BackupDamaged."""
    reader = BackupReader(key)
    found = [block for start in range(0, len(data), piece) for block in reader.feed(data[start : start + piece])]
    reader.end()
    assert found[-1] == BackupBlock([], [])
    return found[:-1]


def frames(data: bytes) -> tuple[bytes, list[bytes]]:
    """The head with what stands before it, and each block with its length."""
    at = len(MAGIC) + 4 + int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4], "big")
    head, found = data[:at], []
    while at < len(data):
        end = at + 4 + (int.from_bytes(data[at : at + 4], "big") & 0x7FFFFFFF)
        found.append(data[at:end])
        at = end
    return head, found


@keys
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_what_was_written_comes_back_in_whatever_pieces(tmp_path: Path, key: bytes | None, piece: int) -> None:
    found = read(written(tmp_path / "f", key), key, piece)
    assert [(list(b.documents), list(b.deleted), b.definitions) for b in found] == [
        (list(b.documents), list(b.deleted), b.definitions) for b in BLOCKS
    ]


@keys
def test_a_byte_that_changes_in_a_block_is_seen(tmp_path: Path, key: bytes | None) -> None:
    data = written(tmp_path / "f", key)
    head, _ = frames(data)
    for place in range(len(head), len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x20
        with pytest.raises(BackupDamaged):
            read(bytes(changed), key)


def test_with_a_key_a_byte_that_changes_in_the_head_is_seen(tmp_path: Path) -> None:
    data = written(tmp_path / "f", KEY)
    for place in range(len(frames(data)[0])):
        changed = bytearray(data)
        changed[place] ^= 0x20
        with pytest.raises(BackupDamaged):
            read(bytes(changed), KEY)


@keys
def test_wherever_it_is_cut_off_is_seen(tmp_path: Path, key: bytes | None) -> None:
    data = written(tmp_path / "f", key)
    for end in range(len(data)):
        with pytest.raises(BackupDamaged):
            read(data[:end], key)
    with pytest.raises(BackupDamaged, match="something follows its end"):
        read(data + b"x", key)


@keys
def test_blocks_that_are_left_out_repeated_or_swapped_are_seen(tmp_path: Path, key: bytes | None) -> None:
    head, blocks = frames(written(tmp_path / "f", key))
    for n in range(len(blocks)):
        for wrong in (
            blocks[:n] + blocks[n + 1 :],
            [*blocks[:n], blocks[n], *blocks[n:]],
            blocks[:n] + blocks[n : n + 2][::-1] + blocks[n + 2 :],
            blocks[: n + 1] if n < len(blocks) - 1 else [blocks[-1]],
        ):
            if wrong != blocks:
                with pytest.raises(BackupDamaged):
                    read(head + b"".join(wrong), key)


def test_a_block_of_another_file_with_the_same_key_is_seen(tmp_path: Path) -> None:
    head, blocks = frames(written(tmp_path / "f", KEY))
    _, others = frames(written(tmp_path / "g", KEY))
    with pytest.raises(BackupDamaged, match="block 1 cannot be decrypted"):
        read(head + b"".join([blocks[0], others[1], *blocks[2:]]), KEY)


def test_the_last_block_cannot_be_made_of_one_before_it(tmp_path: Path) -> None:
    """Cut off behind a block that is then marked as the last."""
    head, blocks = frames(written(tmp_path / "f", KEY))
    marked = (int.from_bytes(blocks[1][:4], "big") | 1 << 31).to_bytes(4, "big") + blocks[1][4:]
    with pytest.raises(BackupDamaged, match="block 1 cannot be decrypted"):
        read(head + blocks[0] + marked, KEY)


def test_a_key_must_be_the_right_one_and_be_given_when_it_is_needed(tmp_path: Path) -> None:
    encrypted, plain = written(tmp_path / "f", KEY), written(tmp_path / "g", None)
    with pytest.raises(BackupDamaged, match="the key is another"):
        read(encrypted, os.urandom(32))
    with pytest.raises(BackupDamaged, match="give its key"):
        read(encrypted, None)
    with pytest.raises(BackupDamaged, match="not encrypted, but a key was given"):
        read(plain, KEY)


def test_nothing_of_the_content_or_the_key_stands_in_an_encrypted_file(tmp_path: Path) -> None:
    data = written(tmp_path / "f", KEY)
    assert b"orders" not in data
    assert KEY not in data


def test_other_files_are_refused() -> None:
    for data in (b"", b"{}", os.urandom(1000), MAGIC, MAGIC + b"\xff\xff\xff\xff", MAGIC + b"\0\0\0\2{}"):
        with pytest.raises(BackupDamaged):
            read(data, None)
