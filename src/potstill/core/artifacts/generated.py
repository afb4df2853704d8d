"""What the generate stage leaves: summary.json."""

from __future__ import annotations

from typing import ClassVar, Literal

from potstill.core.artifacts.base import Artifact, Part

__all__ = ["Generated", "SplitCounts", "TeacherIdentity"]


class TeacherIdentity(Part):
    """What identifies the teacher."""

    kind: Literal["local", "api"]
    model: str
    revision: str | None = None
    weights_sha256: str | None = None
    template_sha256: str | None = None
    tokenizer_sha256: str | None = None
    endpoint: str | None = None


class SplitCounts(Part):
    """Counts of one split."""

    prompts: int
    kept: int
    rejected: dict[str, int]
    completion_tokens: int


class Generated(Artifact):
    """The teacher's identity, and counts by split."""

    FILE: ClassVar[str] = "summary.json"

    teacher: TeacherIdentity
    splits: dict[str, SplitCounts]
