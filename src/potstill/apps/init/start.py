"""A recipe with split rows from files that somebody has, and what was guessed on the way."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from potstill.apps.init.curriculum import curriculum_values
from potstill.apps.init.gates import suggested_gates
from potstill.apps.init.guess import guess_answers
from potstill.apps.init.lengths import estimate_lengths
from potstill.apps.init.sources.found import Found, Request
from potstill.apps.init.split import Split, split_rows
from potstill.components.checkers.judge import is_judged
from potstill.components.curriculum.sampled import rows_of_tools
from potstill.components.curriculum.spec import Curriculum
from potstill.components.curriculum.steering import require_reachable
from potstill.core.errors import DataError, UsageError
from potstill.core.files import replacing, write_json, write_text
from potstill.core.format import format_count
from potstill.core.recipe import Recipe, load_recipe
from potstill.core.records import Row, write_rows
from potstill.core.tools import Tool
from potstill.core.words import printable

__all__ = ["Models", "Started", "start_recipe"]

_ROWS_PER_TOOL = 12
_OPTIONS = {"teacher.base_url": "--endpoint", "teacher.model": "--teacher", "student.model": "--student"}
_APACHE = ("Qwen/Qwen3-4B", "Qwen/Qwen3-0.6B")  # the defaults, whose licence is known


@dataclass(frozen=True)
class Models:
    """The models of the recipe: the teacher's name, its endpoint if it has one, and the student's start."""

    teacher: str = "Qwen/Qwen3-4B"
    student: str = "Qwen/Qwen3-0.6B"
    endpoint: str | None = None


@dataclass(frozen=True)
class Started:
    """What was written.

    rows       number of rows by split
    answers    number of rows by what their answer is
    guesses    what was guessed, as sentences
    left_out   the reason for each entry that could not be used
    """

    folder: Path
    files: tuple[str, ...]
    rows: Mapping[str, int]
    answers: Mapping[str, int]
    guesses: tuple[str, ...]
    left_out: tuple[str, ...]


def start_recipe(found: Found, folder: Path, models: Models, seed: int) -> Started:
    """Write a recipe and its rows into a new folder, whole or not at all.

    Raises:
        DataError: the files have no rows and no tools to make rows of, or too few.
        RecipeError: the recipe would not be valid.
    """
    guesses = list(found.guesses)
    requests = _requests(found, seed, guesses)
    own_answers = all(each.logged and each.row.completion for each in requests)
    models = _asked_models(models, requests, guesses) if own_answers else models
    answers = guess_answers([each.row for each in requests], right=not any(each.logged for each in requests))
    rows = _without_repeats(answers.rows, guesses)
    split = split_rows(rows, seed)
    shared = _shared_tools(rows)
    guesses += _said_of_split(split, len(rows))
    judged = [row for row in split.test if is_judged(row)]
    guesses.append(_said_of_answers(answers.counts, len(judged), len(split.test)))
    lengths = estimate_lengths(rows, models.student)
    name = _name(folder)
    wants_more = not own_answers and (found.task or not found.requests)
    task = found.task or "Call the tools that users ask for."
    curriculum = curriculum_values(name, task, answers, shared) if wants_more else None
    values = {
        "name": name,
        "seed": seed,
        "train": len(split.train),
        "validation": len(split.validation),
        "test": len(split.test),
        "tools": len(shared),
        "curriculum": curriculum is not None,
        "context": lengths.context,
        "counted": lengths.counted,
        "max_new_tokens": lengths.answer,
        "teacher": _as_seen_from(folder, models.teacher),
        "student": _as_seen_from(folder, models.student),
        "endpoint": models.endpoint,
        "own_answers": own_answers,
        "gates": suggested_gates(judged),
        "licences": {
            "teacher": "apache-2.0" if models.teacher in _APACHE else "unknown",
            "student": "apache-2.0" if models.student in _APACHE else "unknown",
        },
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as building:
        building.mkdir()
        if curriculum:
            write_text(building / "curriculum.yaml", _filled("curriculum.yaml.jinja", curriculum))
        try:
            _write(building, split, shared, values)
        except UsageError as error:
            raise type(error)(_said_by_option(str(error), building)) from None
        files = tuple(sorted(path.name for path in building.iterdir()))
    counts = {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)}
    return Started(folder, files, counts, dict(answers.counts), tuple(guesses), tuple(found.left_out))


def _write(folder: Path, split: Split, tools: tuple[Tool, ...], values: Mapping[str, Any]) -> None:
    for name, rows in (("train", split.train), ("validation", split.validation), ("test", split.test)):
        write_rows(folder / f"{name}.jsonl", rows, tools)
    if tools:
        write_json(folder / "tools.json", list(tools))
    write_text(folder / "recipe.yaml", _filled("recipe.yaml.jinja", values))
    recipe = load_recipe(folder / "recipe.yaml")
    if isinstance(recipe, Recipe) and recipe.data.curriculum:
        require_reachable(Curriculum.read(recipe.data.curriculum), split.train, recipe.data.curriculum)


def _said_by_option(message: str, building: Path) -> str:
    """What is wrong in a recipe that is not written then: the option in place of the key, where an option gave it."""
    for folder in (building, building.resolve()):
        message = message.replace(f"{folder}{os.sep}", "")
    for key, option in _OPTIONS.items():
        if found := re.match(rf"recipe\.yaml(:\d+)?: {re.escape(key)}: ", message):
            return f"{option}: {message[found.end() :]}"
    return f"These files would not make a valid recipe: {message}"


def _filled(template: str, values: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("potstill.apps.init", "."), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["yaml"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.get_template(template).render(values)


def _requests(found: Found, seed: int, guesses: list[str]) -> list[Request]:
    """The requests with their tools; made from the tools where there are none."""
    if found.requests:
        return [_with_tools(each, found.tools) for each in found.requests]
    if not found.tools:
        raise DataError(
            "the files have no prompts and no tools. Add a few examples of what users ask, as JSONL or CSV, or the "
            "tools that the answers call."
        )
    made = rows_of_tools(found.tools, _ROWS_PER_TOOL, seed)
    guesses.append(
        f"There are no requests, so {format_count(len(made), 'row')} were made from the tools' schemas. Their calls "
        "are right, but nobody asks like this: replace the test rows with real requests before you believe a verdict"
    )
    return [Request(row) for row in made]


def _with_tools(request: Request, tools: tuple[Tool, ...]) -> Request:
    if not tools or request.row.tools:
        return request
    return replace(request, row=request.row.model_copy(update={"tools": tools}))


def _asked_models(models: Models, requests: Sequence[Request], guesses: list[str]) -> Models:
    """The model that answered in the log as the teacher, whose answers are used as they are."""
    asked = Counter(each.model for each in requests if each.model).most_common(1)
    if not asked:
        return models
    endpoint = models.endpoint or "https://api.openai.com/v1"
    guesses.append(
        f"The answers are those of {printable(asked[0][0], 60)}, so it is the teacher, at {endpoint}; the student "
        "learns from them without asking again. Read its terms first: `potstill licences` says what it knows"
    )
    return Models(asked[0][0], models.student, endpoint)


def _without_repeats(rows: Sequence[Row], guesses: list[str]) -> list[Row]:
    """One row for each prompt: the first with an answer, or else the first."""
    first: dict[str, Row] = {}
    differing = 0
    for row in rows:
        before = first.setdefault(row.row_id, row)
        differing += None not in (before.completion, row.completion) and before.completion != row.completion
        if before.completion is None and row.completion is not None:
            first[row.row_id] = row
    if repeated := len(rows) - len(first):
        others = f", {differing:,} of them with another answer than the first" if differing else ""
        guesses.append(f"Left out as repeated prompts with the same tools: {format_count(repeated, 'row')}{others}")
    return list(first.values())


def _shared_tools(rows: Sequence[Row]) -> tuple[Tool, ...]:
    """The tools that most rows have, if they have any."""
    counted = Counter(json.dumps(row.tools) for row in rows if row.tools).most_common(1)
    return tuple(json.loads(counted[0][0])) if counted else ()


def _said_of_split(split: Split, rows: int) -> list[str]:
    said = [
        f"{format_count(split.groups, 'group')} of rows stay together in one split: rows with the same group, turns "
        f"of a conversation, and near-duplicates; the largest has {format_count(split.largest, 'row')}"
    ]
    if split.largest > rows / 2:
        said.append("Most rows are near-duplicates of each other, so there are few to judge on: add other prompts")
    return said


def _said_of_answers(counts: Counter[str], judged: int, test: int) -> str:
    kinds = ", ".join(f"{name}: {count:,}" for name, count in counts.most_common())
    return f"Answers by kind: {kinds}. A program can judge {judged} of {format_count(test, 'test row')}"


def _as_seen_from(folder: Path, model: str) -> str:
    """A model's folder as a path from the recipe; a hub id as it is."""
    if not Path(model).is_dir():
        return model
    path = os.path.relpath(Path(model).resolve(), folder.resolve())
    return path if path.startswith(".") else f"./{path}"


def _name(folder: Path) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in folder.resolve().name)
    return kept.strip("._-")[:80] or "student"
