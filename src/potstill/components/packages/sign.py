"""Sign a package's manifest, and check the signature.

The signed payload is an in-toto statement about manifest.json, and manifest.json holds the SHA-256 of every file. A
signature names its key and the key's last day, both signed. Nothing in it depends on when or where it was made.
"""

from __future__ import annotations

import base64
import datetime
import json
from dataclasses import dataclass
from pathlib import Path

from potstill.components.packages.keys import PublicKey, SigningKey
from potstill.core.artifacts.manifest import Manifest
from potstill.core.artifacts.signature import Envelope, EnvelopeSignature, SignedWith
from potstill.core.artifacts.statement import Annotations, Digest, Statement, Subject
from potstill.core.errors import DataError, UsageError
from potstill.core.files import read_json_object, write_json
from potstill.core.hashing import hash_file
from potstill.core.json_values import read_foreign

__all__ = ["Signature", "SignatureProblem", "check_signature", "read_signature", "sign_manifest"]


class SignatureProblem(Exception):
    """What is wrong with a signature, as a sentence."""


@dataclass(frozen=True)
class Signature:
    """A signature as it is in the package, not yet checked with a key; `payload` is what was signed."""

    payload: bytes
    signature: bytes
    signed_with: SignedWith


def sign_manifest(folder: Path, key: SigningKey, day: datetime.date) -> SignedWith:
    """Write signature.json for the manifest of a package; an older signature is replaced.

    Args:
        folder: the package, which should have been verified.
        key: the key to sign with.
        day: the current day, in UTC.

    Raises:
        UsageError: the key has expired.
    """
    public = key.public
    if day > key.expires:
        raise UsageError(f"The key {public.id} expired on {key.expires}. Make a new one: potstill sign --new-key FILE")
    signed_with = SignedWith(key_id=public.id, expires=key.expires)
    manifest = folder / Manifest.FILE
    subject = Subject(
        name=Manifest.FILE,
        digest=Digest(sha256=hash_file(manifest)),
        annotations=Annotations(bytes=manifest.stat().st_size),
    )
    statement = Statement(
        subject=(subject,), predicate_type=SignedWith.PREDICATE, predicate=signed_with.to_json()
    ).to_json()
    payload = json.dumps(statement, ensure_ascii=False).encode()
    sig = key.key.sign(_authenticated(Envelope.TYPE, payload))
    envelope = Envelope(
        payloadType=Envelope.TYPE,
        payload=base64.b64encode(payload).decode(),
        signatures=(EnvelopeSignature(keyid=public.id, sig=base64.b64encode(sig).decode()),),
    )
    write_json(folder / Envelope.FILE, envelope.to_json())
    return signed_with


def read_signature(folder: Path) -> Signature | None:
    """The signature of a package, which must be of its manifest; None for a package that is not signed.

    Raises:
        SignatureProblem: signature.json cannot be read, or is not of this manifest.
    """
    path = folder / Envelope.FILE
    if not path.exists() and not path.is_symlink():
        return None
    try:
        if path.is_symlink():
            raise ValueError
        envelope = Envelope.model_validate(read_json_object(path))
        payload = base64.b64decode(envelope.payload, validate=True)
        statement = Statement.model_validate(read_foreign(payload.decode()))
        signed_with = SignedWith.model_validate(statement.predicate)
        (sig,) = envelope.signatures
        (subject,) = statement.subject
        known = envelope.payloadType == Envelope.TYPE and statement.predicate_type == SignedWith.PREDICATE
        if not known or subject.name != Manifest.FILE or sig.keyid != signed_with.key_id:
            raise ValueError
        signature = base64.b64decode(sig.sig, validate=True)
    except (DataError, ValueError):  # among them those of pydantic, base64 and json
        raise SignatureProblem(f"{Envelope.FILE} is not a signature of potstill.") from None
    if subject.digest.sha256 != hash_file(folder / Manifest.FILE):
        raise SignatureProblem(f"{Manifest.FILE} is not the one that was signed: it has changed since.")
    return Signature(payload, signature, signed_with)


def check_signature(signature: Signature, key: PublicKey, day: datetime.date) -> None:
    """Check a signature with a public key on a day (in UTC).

    Raises:
        SignatureProblem: it was made with another key, it is not valid, or the key has expired.
    """
    from cryptography.exceptions import InvalidSignature

    found = signature.signed_with
    if found.key_id != key.id:
        raise SignatureProblem(f"The package was signed with the key {found.key_id}, not with {key.id}.")
    try:
        key.key.verify(signature.signature, _authenticated(Envelope.TYPE, signature.payload))
    except InvalidSignature:
        raise SignatureProblem(
            f"{Envelope.FILE} has changed, or was forged: it is not valid for the key {key.id}."
        ) from None
    expires = min(found.expires, key.expires)
    if day > expires:
        raise SignatureProblem(f"The key {key.id} expired on {expires}: ask for a package with a newer signature.")


def _authenticated(kind: str, payload: bytes) -> bytes:
    """The bytes that are signed: DSSE's pre-authentication encoding of a payload and its type."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
