"""What the check stage leaves: check.json, for a language model and for a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

from potstill.core.artifacts.base import Artifact, Part
from potstill.core.files import read_json_object
from potstill.core.stats import quantile

__all__ = [
    "CheckResult", "ClassifierCheck", "DiskNeed", "Download", "FileSize", "MemoryNeed", "ModelSummary", "Quantiles",
    "ServedMemory", "ShownRow", "Trial", "read_check",
]  # fmt: skip


class Quantiles(Part):
    """Tokens per row."""

    rows: int
    min: int
    median: float
    p95: float
    max: int

    @classmethod
    def of(cls, values: Sequence[int]) -> Self:
        """Quantiles of one value per row; at least one row."""
        return cls(
            rows=len(values),
            min=min(values),
            median=round(quantile(values, 0.5), 1),
            p95=round(quantile(values, 0.95), 1),
            max=max(values),
        )


class ModelSummary(Part):
    """A model; `vocab` is the number of tokens in the tokenizer, `padded_vocab` the rows of the embedding."""

    name: str
    architecture: str
    parameters: int | None
    layers: int | None
    vocab: int
    padded_vocab: int


class FileSize(Part):
    """Predicted size of the file that ships; `limit_bytes` is target.file_mb."""

    quantization: str
    bytes: int
    weight_bytes: int
    bits_per_weight: float
    limit_bytes: int | None


class ServedMemory(Part):
    """Predicted memory of llama.cpp with the shipped file and one conversation.

    `bytes` include `kv_bytes`; `limit_bytes` is target.memory_mb.
    """

    context: int
    bytes: int
    kv_bytes: int
    limit_bytes: int | None


class DiskNeed(Part):
    """Disk that the run fills: what stays of each stage, and the most that is there at any time, in bytes."""

    stays: dict[str, int]
    needed: int


class Download(Part):
    """Weights that are still to be downloaded from the hub.

    models   names of the models
    folder   where one of them will be, in the hub's cache
    bytes    estimated size
    """

    models: tuple[str, ...]
    folder: str
    bytes: int


class MemoryNeed(Part):
    """Predicted memory of the stage that needs the most, by part, in bytes."""

    stage: str
    parts: dict[str, int]
    needed: int


class Trial(Part):
    """A trial of the student in llama.cpp with random weights: rows whose prompts and tokens are as in training."""

    rows: int


class ShownRow(Part):
    """One row as the student reads it.

    where           the file and the line
    text            the rendered row, up to the end of the answer
    learnt          start and end of the parts that are learnt, in characters of the text
    tokens          number of tokens of the text
    learnt_tokens   number of tokens that are learnt
    own_answer      false where the row has no answer, so that a word is shown as the answer
    """

    where: str
    text: str
    learnt: tuple[tuple[int, int], ...]
    tokens: int
    learnt_tokens: int
    own_answer: bool


class CheckResult(Artifact):
    """What the check of a language model's recipe found.

    rows                number of rows by split
    prompt_tokens       by split, in the teacher's tokens (the student's, where the teacher is an endpoint)
    supervised_tokens   by split, of the rows that have an answer
    shown               a row with what is learnt of it; None where it cannot be rendered
    leaked              ids of test rows whose prompts are trained on or used for validation too, which are not scored
    trial               None where llama.cpp is not installed
    """

    FILE: ClassVar[str] = "check.json"
    FORMAT: ClassVar[int] = 3

    task: Literal["language"] = "language"
    name: str
    rows: dict[str, int]
    prompt_tokens: dict[str, Quantiles]
    supervised_tokens: dict[str, Quantiles]
    shown: ShownRow | None
    leaked: tuple[str, ...]
    teacher: ModelSummary | None
    student: ModelSummary
    file: FileSize
    served_memory: ServedMemory
    disk: DiskNeed
    download: Download | None
    memory: MemoryNeed
    trial: Trial | None
    warnings: tuple[str, ...]


class ClassifierCheck(Artifact):
    """What the check of a classifier's recipe found.

    tokens    by split, before texts are cut
    leaked    test texts that are trained on or used for validation too, which are not scored
    """

    FILE: ClassVar[str] = "check.json"

    task: Literal["classify"] = "classify"
    name: str
    rows: dict[str, int]
    classes: int
    tokens: dict[str, Quantiles]
    leaked: tuple[str, ...]
    warnings: tuple[str, ...]


def read_check(folder: Path) -> CheckResult | ClassifierCheck:
    """The artifact of a check step, of either kind.

    Raises:
        StepError: it is absent, broken, or of an unknown format.
    """
    path = folder / CheckResult.FILE
    classifier = path.is_file() and read_json_object(path).get("task") == "classify"
    return ClassifierCheck.read(folder) if classifier else CheckResult.read(folder)
