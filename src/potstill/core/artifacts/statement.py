"""Statements of the in-toto attestation framework (github.com/in-toto/attestation, spec/v1/statement.md)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from potstill.core.artifacts.base import Part

__all__ = ["STATEMENT", "Annotations", "Digest", "Statement", "Subject"]

STATEMENT: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"


class Digest(Part):
    """SHA-256 (hex) of a subject."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Annotations(Part):
    """Size of a subject."""

    bytes: int


class Subject(Part):
    """A file that the statement is about, by its name in the package."""

    name: str
    digest: Digest
    annotations: Annotations


class Statement(Part):
    """What is said (`predicate`) of which files (`subject`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True)

    type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")] = STATEMENT
    subject: tuple[Subject, ...]
    predicate_type: Annotated[str, Field(alias="predicateType")]
    predicate: dict[str, Any]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        if len({subject.name for subject in self.subject}) < len(self.subject):
            raise ValueError("it names a file twice")
        return self
