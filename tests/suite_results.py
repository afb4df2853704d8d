"""Results on a suite as `potstill evaluate` writes them, with answers that a test chooses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from potstill.core.artifacts.suite_results import (
    Conditions,
    EvaluatedModel,
    ItemResult,
    SuiteResults,
    read_results,
    write_results,
)

CONDITIONS = Conditions(
    template="t", runtime="llama.cpp", runtime_version="1", processor="cpu", quantization="Q8_0", batch_size=4,
    context=512, max_new_tokens=64, temperature=0.0, seed=0,
)  # fmt: skip
Results = tuple[SuiteResults, list[ItemResult]]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def item_results(outcomes: Mapping[str, Sequence[bool]], core: Sequence[str] = (), **more: Any) -> list[ItemResult]:
    """An item per outcome, named TAG-NUMBER and tagged with TAG."""
    return [
        ItemResult(
            item=f"{tag}-{number}",
            kind="exact",
            prompt=f"question {number} of {tag}",
            expected="right",
            text="right" if right else "wrong",
            right=right,
            error=None if right else "wrong_words",
            tags=(tag,),
            core=f"{tag}-{number}" in core,
            **more,
        )
        for tag, rights in outcomes.items()
        for number, right in enumerate(rights)
    ]


def results_of(items: Sequence[ItemResult], model: str = "student", **conditions: Any) -> Results:
    """Results with these items; `conditions` differ from the usual ones."""
    found = SuiteResults(
        suite="lights",
        suite_version=1,
        suite_sha256=sha256("suite"),
        drafts=0,
        model=EvaluatedModel(name=f"{model}.gguf", sha256=sha256(model)),
        conditions=CONDITIONS.model_copy(update=conditions),
        items=len(items),
        right=sum(item.right for item in items),
        items_sha256="",
        potstill="0",
    )
    return found, list(items)


def write(folder: Path, results: Results) -> Path:
    """Results in a folder."""
    write_results(folder, *results)
    assert read_results(folder)[1] == results[1]
    return folder


def first_wrong(n: int, wrong: int) -> list[bool]:
    """n outcomes, of which the first are wrong."""
    return [False] * wrong + [True] * (n - wrong)
