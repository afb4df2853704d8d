"""The signature of a package: signature.json, in the package's folder.

It is an envelope of DSSE, version 1 (github.com/secure-systems-lab/dsse), with an in-toto statement about the manifest.
"""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar, Literal

from potstill.core.artifacts.base import Part

__all__ = ["Envelope", "EnvelopeSignature", "SignedWith"]


class EnvelopeSignature(Part):
    """One signature of the payload: id of the key, and the signature in Base64."""

    keyid: str
    sig: str


class Envelope(Part):
    """A signed statement: its type, the statement in Base64, and the signatures of both; potstill writes one."""

    FILE: ClassVar[str] = "signature.json"
    TYPE: ClassVar[str] = "application/vnd.in-toto+json"

    payloadType: str
    payload: str
    signatures: tuple[EnvelopeSignature, ...]


class SignedWith(Part):
    """Predicate of the signed statement.

    key_id    SHA-256 (hex) of the public key (DER of its SubjectPublicKeyInfo)
    expires   last day, in UTC, on which the signature is accepted
    """

    PREDICATE: ClassVar[str] = "https://github.com/potstill/potstill/signature"

    format: Literal[1] = 1
    key_id: str
    expires: date

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return self.model_dump(mode="json")
