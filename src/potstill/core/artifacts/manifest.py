"""What a package says about itself: manifest.json, in the package's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from potstill.core.artifacts.base import Artifact, Part
from potstill.core.artifacts.exported import Parity
from potstill.core.artifacts.generated import SplitCounts, TeacherIdentity
from potstill.core.artifacts.metrics import ClassifierMetrics, Metrics
from potstill.core.artifacts.speed import MeasuredSpeed
from potstill.core.artifacts.verdict import Verdict
from potstill.core.hashing import fingerprint

__all__ = [
    "ClassifierManifest",
    "DataFile",
    "FileEntry",
    "FileList",
    "Manifest",
    "ManifestData",
    "ManifestStep",
    "ManifestStudent",
    "ManifestTeacher",
    "manifest_digest",
]


class FileEntry(Part):
    """SHA-256 (hex) and size of a file."""

    sha256: str
    bytes: int


class FileList(BaseModel):
    """The part of a manifest that verification needs: the package's files by name."""

    files: dict[str, FileEntry]


class DataFile(FileEntry):
    """A data file by its name; `rows` is None for a file that is not JSONL."""

    file: str
    rows: int | None


class ManifestData(Part):
    """The data files by the recipe's key, and the licence of the data."""

    files: dict[str, DataFile]
    license: str


class ManifestStep(Part):
    """How one step of the run was made."""

    fingerprint: str
    finished: str
    seconds: float
    git_commit: str | None


class ManifestTeacher(Part):
    """The teacher's name and licence, what identifies it, and the rows that it was fine-tuned on.

    identity       None for a classifier
    finetuned_on   None for a teacher that the run did not fine-tune
    """

    name: str
    license: str
    identity: TeacherIdentity | None = None
    finetuned_on: DataFile | None = None


class ManifestStudent(Part):
    """The student: where its weights started, the model that it descends from, its size and its format."""

    init: Literal["teacher_layers", "scratch", "checkpoint"]
    base_model: str
    params: int
    quantization: str


class _Manifest(Artifact):
    """What every package says about itself. No value holds a path of the machine that made the package.

    potstill        version that made the package
    files           the package's files by name, without the manifest
    recipe_sha256   SHA-256 (hex) of the recipe's values
    recipe          the recipe's values
    steps           the run's steps by stage
    versions        versions of the software that measured the model
    sha256          of all other values (see `manifest_digest`); set as the manifest is written
    """

    FILE: ClassVar[str] = "manifest.json"

    name: str
    potstill: str
    files: dict[str, FileEntry]
    verdict: Verdict
    license: str
    recipe_sha256: str
    recipe: dict[str, Any]
    teacher: ManifestTeacher
    data: ManifestData
    steps: dict[str, ManifestStep]
    versions: dict[str, str]
    sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values, with the hash of all others."""
        value = super().to_json()
        return value | {"sha256": manifest_digest(value)}


class Manifest(_Manifest):
    """Manifest of a language model's package.

    speed     speed and memory of the file on the machine that made the package
    answers   counts of the teacher's answers by split
    notes     differences between llama.cpp and the checkpoint that a user should know
    metrics   all measurements, without the texts of regressions
    """

    FORMAT: ClassVar[int] = 5

    student: ManifestStudent
    answers: dict[str, SplitCounts]
    parity: Parity
    notes: tuple[str, ...]
    speed: MeasuredSpeed
    metrics: Metrics


class ClassifierManifest(_Manifest):
    """Manifest of a classifier's package."""

    FORMAT: ClassVar[int] = 3

    task: Literal["classify"] = "classify"
    metrics: ClassifierMetrics


def manifest_digest(value: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a manifest's JSON object without its `sha256`."""
    return fingerprint({key: item for key, item in value.items() if key != "sha256"})
