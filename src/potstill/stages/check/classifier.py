"""What can be known of a `task: classify` recipe before it is paid for; torch is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill.components.chat.trimming import require_trimmable
from potstill.core.errors import DataError, RecipeError
from potstill.core.files import read_json_object
from potstill.core.recipe import ClassifierRecipe
from potstill.core.records import LabelledRow, read_labelled
from potstill.core.stats import quantile

__all__ = ["check_classifier_recipe", "render_classifier_check"]

_FEW = 5


def check_classifier_recipe(recipe: ClassifierRecipe, base: Path) -> dict[str, Any]:
    """Rows, classes and tokens of each split, and warnings: check.json is this.

    Args:
        recipe: the recipe.
        base: folder of `teacher.model`.

    Raises:
        RecipeError: the teacher cannot do what is asked; the message names the key.
        DataError: a row cannot be used; the message names file and line.
    """
    data = recipe.data
    paths = {"train": data.train, "validation": data.validation, "test": data.test}
    splits = {name: read_labelled(path) for name, path in paths.items() if path}
    labels = {row.label for row in splits["train"]}
    for rows in splits.values():
        _check_labels(rows, labels)
    if data.out_of_scope is not None and data.out_of_scope not in labels:
        raise RecipeError(f"data.out_of_scope: no row of {data.train} has the label {data.out_of_scope!r}.")
    if len(labels) < 2:
        raise DataError(f"{data.train}: all rows have one label, so there is nothing to tell apart.")
    _check_teacher(recipe, base, labels)
    tokens, cut = _tokens(splits, base, recipe)
    trained_on = {row.text for row in splits["train"]}
    leaked = sum(row.text in trained_on for row in splits["test"])
    warnings = [
        f"{number} rows of {name} are longer than data.context ({data.context}) and are cut."
        for name, number in cut.items()
        if number
    ]
    if leaked:
        warnings.append(f"{leaked} test rows are trained on too, word for word: their accuracy says nothing.")
    return {
        "task": recipe.task,
        "name": recipe.name,
        "rows": {name: len(rows) for name, rows in splits.items()},
        "classes": len(labels),
        "tokens": tokens,
        "leaked": leaked,
        "warnings": warnings,
    }


def _check_labels(rows: list[LabelledRow], labels: set[str]) -> None:
    for row in rows:
        if row.label not in labels:
            raise DataError(
                f"{row.where}: no row of data.train has the label {row.label!r}. Mend it, or add such rows."
            )


def _check_teacher(recipe: ClassifierRecipe, base: Path, labels: set[str]) -> None:
    config = read_json_object(base / "config.json", error=RecipeError)
    layers = config.get("num_hidden_layers", config.get("n_layers"))
    if layers is not None and recipe.student.layers > layers:
        raise RecipeError(f"student.layers: {recipe.student.layers} is more than the teacher's {layers} layers.")
    places = config.get("max_position_embeddings")
    if places is not None and recipe.data.context > places:
        raise RecipeError(f"data.context: {recipe.data.context} is more than the teacher's {places} positions.")
    classes = set(config.get("id2label", {}).values())
    if recipe.teacher.finetune is None and classes != labels:
        odd = sorted(classes ^ labels)[:_FEW]
        raise RecipeError(
            f"teacher.model: {base} has {len(classes)} classes, data.train {len(labels)}, and they are not the same "
            f"({', '.join(odd)}, ...). Train it on the rows first: set teacher.finetune."
        )


def _tokens(
    splits: dict[str, list[LabelledRow]], base: Path, recipe: ClassifierRecipe
) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """Quantiles of tokens a row by split, and rows longer than data.context."""
    from tokenizers import Tokenizer

    path = base / "tokenizer.json"
    if not path.is_file():
        raise RecipeError(f"teacher.model: {base} has no tokenizer.json. Save the model's fast tokenizer there.")
    tokenizer = Tokenizer.from_file(str(path))
    if recipe.student.vocabulary:
        require_trimmable(read_json_object(path, error=RecipeError), str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    lengths = {
        name: [len(encoding.ids) for encoding in tokenizer.encode_batch([row.text for row in rows])]
        for name, rows in splits.items()
    }
    quantiles = {
        name: {"median": quantile(n, 0.5), "p95": quantile(n, 0.95), "max": max(n)} for name, n in lengths.items()
    }
    return quantiles, {name: sum(length > recipe.data.context for length in n) for name, n in lengths.items()}


def render_classifier_check(found: dict[str, Any]) -> str:
    """check.json in words."""
    lines = [f"{found['classes']} classes"]
    for name, count in found["rows"].items():
        tokens = found["tokens"][name]
        lines.append(f"{name}: {count:,} rows of {tokens['median']:.0f} tokens (median), {tokens['max']:.0f} (longest)")
    return "\n".join([*lines, *(f"warning: {warning}" for warning in found["warnings"])])
