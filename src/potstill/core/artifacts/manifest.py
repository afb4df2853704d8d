"""What a package says about itself: manifest.json, in the package's folder.

On disk it is a statement of the in-toto attestation framework, version 1: its subjects are the package's files, and its
predicate is everything else. Programs that read attestations can thus read it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from potstill.core.artifacts.base import Artifact, Part
from potstill.core.artifacts.exported import Finished, Parity
from potstill.core.artifacts.generated import SplitCounts, TeacherIdentity
from potstill.core.artifacts.metrics import ClassifierMetrics, Metrics
from potstill.core.artifacts.speed import MeasuredSpeed
from potstill.core.artifacts.statement import Annotations, Digest, Statement, Subject
from potstill.core.artifacts.verdict import Verdict
from potstill.core.hashing import fingerprint

__all__ = [
    "ClassifierManifest",
    "DataFile",
    "FileEntry",
    "Manifest",
    "ManifestData",
    "ManifestStep",
    "ManifestStudent",
    "ManifestTeacher",
    "manifest_digest",
    "manifest_files",
]


class FileEntry(Part):
    """SHA-256 (hex) and size of a file."""

    sha256: str
    bytes: int


class DataFile(FileEntry):
    """A data file by its name; `rows` is None for a file that is not JSONL."""

    file: str
    rows: int | None


class ManifestData(Part):
    """The data files by the recipe's key, and the licence of the data."""

    files: dict[str, DataFile]
    license: str


class ManifestStep(Part):
    """How one step of the run was made: the SHA-256 (hex) of its inputs, and the commit of potstill that ran it."""

    fingerprint: str
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
    PREDICATE: ClassVar[str] = "https://github.com/potstill/potstill/package"

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
        """The statement, with the hash of all its other values in the predicate."""
        predicate = super().to_json()
        del predicate["files"]
        subjects = tuple(
            Subject(name=name, digest=Digest(sha256=entry.sha256), annotations=Annotations(bytes=entry.bytes))
            for name, entry in sorted(self.files.items())
        )
        value = Statement(subject=subjects, predicate_type=self.PREDICATE, predicate=predicate).to_json()
        predicate["sha256"] = manifest_digest(value)
        return value | {"predicate": predicate}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        """The fields of a manifest from a statement."""
        statement = Statement.model_validate(value)
        return statement.predicate | {"files": _files(statement)}


class Manifest(_Manifest):
    """Manifest of a language model's package.

    speed     speed and memory of the file on the machine that made the package
    answers   counts of the teacher's answers by split
    notes     differences between llama.cpp and the checkpoint that a user should know
    finished  how the quantized model was trained before it was written; None: it was not
    metrics   all measurements, without the texts of regressions
    """

    FORMAT: ClassVar[int] = 6

    student: ManifestStudent
    answers: dict[str, SplitCounts]
    parity: Parity
    notes: tuple[str, ...]
    finished: Finished | None
    speed: MeasuredSpeed
    metrics: Metrics


class ClassifierManifest(_Manifest):
    """Manifest of a classifier's package."""

    FORMAT: ClassVar[int] = 4

    task: Literal["classify"] = "classify"
    metrics: ClassifierMetrics


def manifest_files(value: Mapping[str, Any]) -> dict[str, FileEntry]:
    """The package's files by name, from a manifest's JSON object.

    Raises:
        pydantic.ValidationError: the object is not such a statement.
    """
    return _files(Statement.model_validate(value))


def _files(statement: Statement) -> dict[str, FileEntry]:
    return {
        subject.name: FileEntry(sha256=subject.digest.sha256, bytes=subject.annotations.bytes)
        for subject in statement.subject
    }


def manifest_digest(value: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a manifest's JSON object without the `sha256` of its predicate."""
    predicate = {key: item for key, item in value["predicate"].items() if key != "sha256"}
    return fingerprint({**value, "predicate": predicate})
