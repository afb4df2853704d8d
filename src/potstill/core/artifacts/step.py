"""A finished step's own records: step.json says how it was made, DONE what it left."""

from __future__ import annotations

from typing import Any, ClassVar

from potstill.core.artifacts.base import Artifact

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
    """What a step left: the SHA-256 (hex) of every file, by its path relative to the step's directory."""

    FILE: ClassVar[str] = "DONE"

    fingerprint: str
    files: dict[str, str]
