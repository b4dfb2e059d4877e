"""What protects the blocks of a backup's file: a checksum in plain, authenticated encryption with a key.

The encryption is AES-256-GCM in the STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizár, 2015): the nonce is
the block's number and whether it is the last, so that blocks cannot be left out, repeated, put in another order or cut
off unseen. The key is the file's own, derived from the given one and a random salt (HKDF), so that no nonce is used
twice; the file's head is authenticated with each block.
"""

from typing import Protocol

import xxhash

SALT_BYTES = 32
_CHECKSUM_BYTES = 8


class BackupDamaged(Exception):
    """The file of a backup is not what was written, or the key is another. The message names what is wrong."""


class Protection(Protocol):
    """Protects blocks by number."""

    def seal(self, number: int, last: bool, data: bytes) -> bytes:
        """The block as it is written."""

    def open(self, number: int, last: bool, data: bytes) -> bytes:
        """The block as it was given. Raises BackupDamaged."""


def protection(key: bytes | None, salt: bytes, head: bytes) -> Protection:
    """Of the file with that head and salt; the key may be any 32 bytes, None for none."""
    return _Checksum() if key is None else _AesGcm(key, salt, head)


class _Checksum:
    """Damage is found; a change on purpose is not."""

    def seal(self, number: int, last: bool, data: bytes) -> bytes:
        return data + self._of(number, last, data)

    def open(self, number: int, last: bool, data: bytes) -> bytes:
        content, given = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if given != self._of(number, last, content):
            raise BackupDamaged(f"block {number} has a wrong checksum")
        return content

    def _of(self, number: int, last: bool, data: bytes) -> bytes:
        return xxhash.xxh3_64_digest(data, seed=number << 1 | last)


class _AesGcm:
    def __init__(self, key: bytes, salt: bytes, head: bytes) -> None:
        # Imported at the first use.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        derived = HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"raftnode backup file").derive(key)
        self._cipher, self._invalid, self._head = AESGCM(derived), InvalidTag, head

    def seal(self, number: int, last: bool, data: bytes) -> bytes:
        return self._cipher.encrypt(_nonce(number, last), data, self._head)

    def open(self, number: int, last: bool, data: bytes) -> bytes:
        try:
            return self._cipher.decrypt(_nonce(number, last), data, self._head)
        except self._invalid:
            problem = f"block {number} cannot be decrypted: the key is another, or the file was changed"
            raise BackupDamaged(problem) from None


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
