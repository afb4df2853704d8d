"""Keys that sign packages: Ed25519, as PEM files with the key's id and last day written above the PEM block.

OpenSSL and other programs skip the text above the block (RFC 7468, section 2), so they can read the files as well.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.core.errors import UsageError
from potstill.core.files import read_text, write_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["PUBLIC", "PublicKey", "SigningKey", "key_id", "new_key", "read_public_key", "read_signing_key", "today"]

PUBLIC = ".pub"
"""Suffix of the public key's file, after the name of the private key's."""

_EXPIRES = re.compile(r"^Expires: (\S+)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class PublicKey:
    """A key that verifies signatures, and the last day (in UTC) on which it is valid."""

    key: Ed25519PublicKey
    expires: datetime.date

    @property
    def id(self) -> str:
        """See `key_id`."""
        return key_id(self.key)


@dataclass(frozen=True)
class SigningKey:
    """A private key, and the last day (in UTC) on which it is valid."""

    key: Ed25519PrivateKey
    expires: datetime.date

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self.key.public_key(), self.expires)


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 (hex) of a public key's SubjectPublicKeyInfo in DER."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def today() -> datetime.date:
    """The current day in UTC."""
    return datetime.datetime.now(datetime.UTC).date()


def new_key(path: Path, expires: datetime.date) -> PublicKey:
    """Write a new private key to `path`, which only its owner can read, and the public key to `path` with `.pub`.

    Raises:
        UsageError: one of the files exists.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    public_path = Path(f"{path}{PUBLIC}")
    for taken in (path, public_path):
        if taken.exists():
            raise UsageError(f"{taken}: this exists, and may hold a key that is still needed. Choose another name.")
    private = Ed25519PrivateKey.generate()
    public = PublicKey(private.public_key(), expires)
    lines = f"Key id: {public.id}\nExpires: {expires.isoformat()}\n\n"
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", encoding="ascii") as file:
        file.write(lines + pem)
    pem = public.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    write_text(public_path, lines + pem)
    return public


def read_signing_key(path: Path) -> SigningKey:
    """A private key from its file.

    Raises:
        UsageError: the file is not an Ed25519 key without a passphrase, or does not say when the key expires.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = read_text(path, error=UsageError)
    try:
        key = load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(
            f"{path}: not a private Ed25519 key in PEM without a passphrase. Make one: potstill sign --new-key FILE"
        )
    return SigningKey(key, _expires(path, text))


def read_public_key(path: Path) -> PublicKey:
    """A public key from its file.

    Raises:
        UsageError: the file is not a public Ed25519 key, or does not say when the key expires.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    text = read_text(path, error=UsageError)
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path}: not a public Ed25519 key in PEM. Give the {PUBLIC} file of the key that signed.")
    return PublicKey(key, _expires(path, text))


def _expires(path: Path, text: str) -> datetime.date:
    found = _EXPIRES.findall(text.partition("-----BEGIN")[0])
    try:
        (day,) = found
        return datetime.date.fromisoformat(day)
    except ValueError:
        raise UsageError(
            f"{path}: the file must say when the key expires, in one line above the PEM block: Expires: 2027-12-31"
        ) from None
