"""The teacher answers the prompts: journalled as they come, sifted with reasons, stored with where each came from."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

from potstill.core.errors import StepError
from potstill.core.files import write_json
from potstill.core.recipe import Recipe
from potstill.core.records import Row, read_rows, write_rows
from potstill.core.tools import read_tools

__all__ = ["VERSION", "run"]

VERSION = 2


def run(recipe: Recipe, teacher_folder: Path | None, base: Path | None, out: Path) -> None:
    """Answer `data.prompts` and `data.validation`; write rows kept, rows set aside, and a summary.

    Args:
        recipe: the recipe.
        teacher_folder: the teacher's weights; None for an endpoint.
        base: folder of `student.model`, when the student starts from a checkpoint.
        out: step directory.

    Raises:
        TeacherError: the teacher does not answer.
        StepError: no answer is fit to learn from, or an endpoint asked for log-probabilities has other tokens than the
            student.
    """
    from potstill.stages.generate.journal import Journal, answer_all
    from potstill.stages.generate.served import ask_first_rows, write_tokens
    from potstill.stages.generate.sift import sift
    from potstill.stages.generate.teachers import load_teacher

    tools = read_tools(recipe.data.tools) if recipe.data.tools else ()
    teacher = load_teacher(recipe, teacher_folder, base)
    counts: dict[str, dict[str, Any]] = {}
    set_aside: list[Row] = []
    for name, path, limit in (
        ("train", recipe.data.prompts, recipe.data.limit),
        ("validation", recipe.data.validation, None),
    ):
        rows = read_rows(path, tools=recipe.data.tools, limit=limit) if path else []
        journal = Journal(out / f"{name}.journal.jsonl")
        if recipe.requested_logprobs and name == "train":
            ask_first_rows(recipe, teacher, rows, journal)
        answers = answer_all(teacher, rows, recipe.generate, recipe.seed, journal, name)
        kept, aside = sift(rows, answers, teacher, recipe.generate.keep_truncated, recipe.chat.context)
        write_rows(out / f"{name}.jsonl", kept, tools)
        if recipe.requested_logprobs:
            write_tokens(out / f"{name}.tokens.jsonl", kept, answers)
        set_aside += aside
        counts[name] = {
            "prompts": len(rows),
            "kept": len(kept),
            "set_aside": dict(collections.Counter(r.provenance["set_aside"] for r in aside)),
            "completion_tokens": sum(a.completion_tokens for a in answers.values()),
        }
    write_rows(out / "set_aside.jsonl", set_aside, tools)
    # once for all rows, which would otherwise be tools for the most part
    write_json(out / "tools.json", list(tools))
    if counts["train"]["kept"] == 0:
        raise StepError(
            f"{out}: none of the teacher's {counts['train']['prompts']} answers is fit to learn from, set aside as "
            f"{counts['train']['set_aside']}; they are in set_aside.jsonl. If all are cut off, raise "
            "generate.max_new_tokens, "
            "or set generate.keep_truncated for text continuation."
        )
    write_json(out / "summary.json", {"teacher": teacher.identity, "splits": counts})
