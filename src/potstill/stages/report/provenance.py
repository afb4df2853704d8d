"""Where the model came from: teacher, data, files and steps, each with what identifies it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from potstill.core.artifacts.exported import Parity
from potstill.core.artifacts.generated import SplitCounts
from potstill.core.artifacts.manifest import ClassifierManifest, DataFile, Manifest
from potstill.core.artifacts.step import StepRecord
from potstill.core.format import format_duration, format_size
from potstill.stages.report.facts import Facts

__all__ = ["FileRow", "ProvenanceSection", "StepRow", "provenance_of", "provenance_section", "tuned_on"]

_SHORT = 12  # characters of a commit
_STARTS = {"teacher_layers": "the teacher's own layers", "scratch": "random weights", "checkpoint": "a checkpoint"}


@dataclass(frozen=True)
class FileRow:
    """A file of the package."""

    name: str
    size: str
    sha256: str


@dataclass(frozen=True)
class StepRow:
    """A step of the run."""

    name: str
    seconds: str
    fingerprint: str
    commit: str


@dataclass(frozen=True)
class ProvenanceSection:
    """Facts by name, and tables of data files, of the package's files and of steps; the recipe as JSON."""

    facts: Sequence[tuple[str, str]]
    data: Sequence[tuple[str, DataFile]]
    files: Sequence[FileRow]
    steps: Sequence[StepRow]
    recipe: str
    recipe_sha256: str


def provenance_section(facts: Facts) -> ProvenanceSection:
    """The last section of a language model's page."""
    return provenance_of(facts.manifest, facts.steps, _facts(facts.manifest))


def provenance_of(
    manifest: Manifest | ClassifierManifest,
    steps: Mapping[str, StepRecord],
    facts: Iterable[tuple[str, str | None]],
) -> ProvenanceSection:
    """What a manifest says about a model's origin; `facts` are the lines on top, without those that are None."""
    return ProvenanceSection(
        facts=[(name, value) for name, value in facts if value],
        data=list(manifest.data.files.items()),
        files=[FileRow(name, format_size(entry.bytes), entry.sha256) for name, entry in manifest.files.items()],
        steps=[
            StepRow(
                name,
                format_duration(record.seconds, short=True),
                record.fingerprint,
                (record.git_commit or "")[:_SHORT],
            )
            for name, record in steps.items()
        ],
        recipe=json.dumps(manifest.recipe, indent=2, ensure_ascii=False),
        recipe_sha256=manifest.recipe_sha256,
    )


def _facts(manifest: Manifest) -> list[tuple[str, str | None]]:
    teacher, identity, student = manifest.teacher, manifest.teacher.identity, manifest.student
    answers = manifest.answers.get("train")
    return [
        ("Teacher", teacher.name),
        ("Revision", identity.revision if identity else None),
        ("Teacher's weights, SHA-256", identity.weights_sha256 if identity else None),
        ("Endpoint", identity.endpoint if identity else None),
        ("Teacher's licence", teacher.license),
        ("Teacher fine-tuned on", tuned_on(manifest)),
        ("Student started from", f"{_STARTS[student.init]} ({student.base_model})"),
        ("Answers trained on", _answers(answers) if answers else None),
        ("Teachers", answers.shares if answers else None),
        ("Answers verified", answers.verdicts if answers else None),
        ("Licence of the data", manifest.data.license),
        ("Licence of this model", manifest.license),
        ("Quantization", student.quantization),
        ("Parity with the checkpoint", _parity(manifest.parity)),
        ("Finished", manifest.finished.sentence if manifest.finished else None),
        ("Versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
    ]


def tuned_on(manifest: Manifest | ClassifierManifest) -> str | None:
    """The rows that the run fine-tuned the teacher on; None where it did not."""
    rows = manifest.teacher.finetuned_on
    if rows is None:
        return None
    return rows.file if rows.rows is None else f"{rows.file}, {rows.rows:,} rows"


def _answers(counts: SplitCounts) -> str:
    kept = f"{counts.kept:,} of {counts.prompts:,}"
    rejected = sum(counts.rejected.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.rejected.items())
    return f"{kept}; {rejected:,} rejected ({reasons})" if rejected else f"{kept}; none rejected"


def _parity(parity: Parity) -> str:
    found = parity.log_probs
    return (
        f"before quantization, log-probabilities of {found.tokens:,} tokens differ by at most "
        f"{found.max_difference:.2g} nats"
    )
