"""What the earlier steps left, read once; a part that a run has none of is None or empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potstill.core.files import read_json_lines, read_json_object
from potstill.core.recipe import Recipe

__all__ = ["Facts", "read_facts"]


@dataclass(frozen=True)
class Facts:
    """Contents of the steps' files, by what they tell."""

    recipe: Recipe
    metrics: dict[str, Any]
    verdict: dict[str, Any]
    trained: dict[str, Any]
    manifest: dict[str, Any]
    parity: dict[str, Any]
    logs: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """Training log lines of "student" and "control"."""
    stamps: dict[str, dict[str, Any]] = field(default_factory=dict)
    """step.json of each step, by stage."""
    answers: list[dict[str, int]] = field(default_factory=list)
    """Tokens of each row that the teacher answered: prompt_tokens, completion_tokens."""


def _read_log(path: Path) -> list[dict[str, Any]]:
    return [line for _, line in read_json_lines(path)] if path.is_file() else []


def _read_answers(path: Path) -> list[dict[str, int]]:
    told = [line.get("provenance", {}) for line in _read_log(path)]
    counted = [{key: int(row.get(key) or 0) for key in ("prompt_tokens", "completion_tokens")} for row in told]
    return [row for row in counted if all(row.values())]


def read_facts(recipe: Recipe, steps: Mapping[str, Path]) -> Facts:
    """Read the directories of train, evaluate and gate, and of generate, export and package where they are."""
    train = steps["train"]
    package = steps["package"] / "package" / "manifest.json" if "package" in steps else Path()
    return Facts(
        recipe=recipe,
        metrics=read_json_object(steps["evaluate"] / "metrics.json"),
        verdict=read_json_object(steps["gate"] / "verdict.json"),
        trained=read_json_object(train / "summary.json", missing_ok=True),
        manifest=read_json_object(package) if package.is_file() else {},
        parity=read_json_object(steps["export"] / "parity.json", missing_ok=True) if "export" in steps else {},
        logs={name: log for name in ("student", "control") if (log := _read_log(train / f"{name}.log.jsonl"))},
        answers=_read_answers(steps["generate"] / "train.jsonl") if "generate" in steps else [],
        stamps={
            name: stamp
            for name, folder in steps.items()
            if (stamp := read_json_object(folder / "step.json", missing_ok=True))
        },
    )
