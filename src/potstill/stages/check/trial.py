"""Tries the student in llama.cpp before the training, so that export finds no new faults after it.

A small random model with the student's config, tokenizer and chat template is exported, quantized, loaded and asked for
the prompts of rows. What llama.cpp does with text does not depend on the weights.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from potstill.components.models.recipe_models import Model
from potstill.core.artifacts.check import Trial
from potstill.core.errors import RecipeError, StepError
from potstill.core.recipe import Recipe
from potstill.core.records import Row

__all__ = ["missing_package", "telling_rows", "try_student"]

_PACKAGES = ("gguf", "httpx", "safetensors", "xllamacpp")
_MOST_ROWS = 200
_CONTEXT = 256  # nothing longer is computed


def missing_package() -> str | None:
    """A package that the trial needs and that is not installed, as in the base install."""
    return next((name for name in _PACKAGES if find_spec(name) is None), None)


def try_student(recipe: Recipe, student: Model, rows: Iterable[Row]) -> Trial:
    """Export a small model like the student, and compare llama.cpp's prompts and tokens with training's.

    Raises:
        RecipeError: llama.cpp would not read rows as they are trained on; the message names the recipe's key.
    """
    from potstill.components.conversion.convert import convert_checkpoint
    from potstill.components.conversion.file_template import adds_bos, file_template, spoken_tokens
    from potstill.components.conversion.rules import require_quantization
    from potstill.components.conversion.trial import write_trial_checkpoint
    from potstill.components.parity.prompts import compare_template
    from potstill.components.parity.text import compare_stops, compare_tokens
    from potstill.components.runtimes.gguf import GGUFServer

    chat, quantization, chosen = student.chat, recipe.export.quantization, telling_rows(rows)
    key = "student.model" if recipe.student.model else "student.init"
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, file = Path(folder), Path(folder) / f"{recipe.name}-{quantization}.gguf"
        try:
            require_quantization(student.config, quantization)
            write_trial_checkpoint(student.config, student.folder, checkpoint)
            convert_checkpoint(
                checkpoint,
                file,
                quantization=quantization,
                metadata={"general.name": recipe.name},
                chat_template=file_template(chat),
                adds_bos=adds_bos(chat, chosen),
                spoken=spoken_tokens(chat, chosen),
            )
            with GGUFServer(file, context=_CONTEXT) as server:
                compare_tokens(server, chat, chosen)
                compare_stops(server, chat)
                key = "chat.template"
                compare_template(server, chat, chosen)
        except StepError as error:
            raise RecipeError(
                f"{key}: a small random model with the student's tokenizer and chat template was exported and tried in "
                f"llama.cpp, where the student would not work as it is trained. {error}"
            ) from None
    return Trial(rows=len(chosen))


def telling_rows(rows: Iterable[Row], most: int = _MOST_ROWS) -> list[Row]:
    """Rows that have something that no row before has: tools, an order of turns, or a character. At most `most`."""
    seen: set[object] = set()
    by_identity: dict[int, str] = {}
    chosen: list[Row] = []
    for row in rows:
        if id(row.tools) not in by_identity:
            by_identity[id(row.tools)] = json.dumps(row.tools)
        turns = (*row.messages, row.completion) if row.completion else row.messages
        shape = tuple((m.role, bool(m.content), len(m.tool_calls)) for m in turns)
        marks: set[object] = {("tools", by_identity[id(row.tools)]), ("turns", shape)}
        for message in turns:
            marks |= set(message.content or "")
        if not marks <= seen:
            seen |= marks
            chosen.append(row)
            if len(chosen) == most:
                break
    return chosen
