"""A finished step's own records: step.json says how it was made, DONE what it left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import model_validator

from potstill.core.artifacts.base import Artifact
from potstill.core.hashing import hash_listing

__all__ = ["DoneRecord", "StepRecord"]


class StepRecord(Artifact):
    """How a step was made.

    fingerprint   SHA-256 (hex) of stage, stage_version and inputs
    inputs        the stage's inputs; files by the SHA-256 of their content
    reads         directory of each step that it read, by stage
    seconds       wall-clock time of the call that finished it
    """

    FILE: ClassVar[str] = "step.json"

    stage: str
    stage_version: int
    fingerprint: str
    inputs: Any
    reads: dict[str, str]
    versions: dict[str, str]
    git_commit: str | None
    argv: list[str]
    host: dict[str, str | int | None]
    finished: str
    seconds: float


class DoneRecord(Artifact):
    """What a step left: the SHA-256 (hex) of every file, by its path relative to the step's directory.

    sha256   of the fingerprint and the listing, so that a listing from which a file was removed is not valid
    """

    FILE: ClassVar[str] = "DONE"
    FORMAT: ClassVar[int] = 2

    fingerprint: str
    files: dict[str, str]
    sha256: str

    @classmethod
    def of(cls, fingerprint: str, files: dict[str, str]) -> Self:
        """The record of a step with this fingerprint and these files."""
        return cls(fingerprint=fingerprint, files=files, sha256=_digest(fingerprint, files))

    @model_validator(mode="after")
    def _check_digest(self) -> Self:
        if self.sha256 != _digest(self.fingerprint, self.files):
            raise ValueError("its list of files has changed")
        return self


def _digest(fingerprint: str, files: Mapping[str, str]) -> str:
    return hash_listing({**files, DoneRecord.FILE: fingerprint})
