"""Answers of an endpoint that earlier runs have paid for."""

from __future__ import annotations

from pathlib import Path

from potstill.components.runtimes import Sampling
from potstill.components.runtimes.endpoint import request_body
from potstill.components.runtimes.journal import Journal
from potstill.components.sizing.workload import Split, Splits
from potstill.core.recipe import Recipe

__all__ = ["stored_answers"]


def stored_answers(recipe: Recipe, splits: Splits, runs: Path) -> int:
    """Number of a recipe's requests that the journal in the folder of all runs answers; 0 for a local teacher."""
    teacher, settings = recipe.teacher, recipe.generate
    if teacher.kind != "api":
        return 0
    journal = Journal.for_step(runs / recipe.name / "generate", teacher, None)
    counts: dict[Split, int] = {"prompts": settings.samples, "validation": min(settings.samples, 1), "test": 1}
    keys = []
    for split, count in counts.items():
        logprobs = None if split == "test" else recipe.requested_logprobs
        for sample in range(count):  # the seed makes another sample another request
            sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, recipe.seed + sample)
            for row in splits.get(split, ()):
                keys.append(journal.key(request_body(teacher.base_url, teacher.model, row, sampling, logprobs)))
    held = journal.held(keys)
    return sum(key in held for key in keys)
