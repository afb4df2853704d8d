"""Check of a classifier's recipe (`task: classify`): rows, classes, teacher and tokens; torch is not needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.components.chat.tokenizer_files import MOST_TOKENIZER_BYTES, encoding_errors, load_tokenizer
from potstill.components.chat.trimming import require_trimmable
from potstill.components.models.folder import resolve_model
from potstill.components.models.handover import optional_file
from potstill.core.artifacts.check import ClassifierCheck, Quantiles
from potstill.core.errors import DataError, RecipeError
from potstill.core.files import read_json_object
from potstill.core.hashing import HashedPath
from potstill.core.leakage import leaked_texts, unrepeated_texts
from potstill.core.recipe import ClassifierGates, ClassifierRecipe
from potstill.core.records import LabelledRow, read_labelled
from potstill.core.steps import Done, Stage
from potstill.core.words import printable
from potstill.stages.check.gates import unreachable_classifier_gates

__all__ = ["STAGE", "ClassifierCheckInputs", "check_classifier"]

_FEW = 5
_SAVE_AGAIN = "Save or copy the model again."
Splits = Mapping[str, Sequence[LabelledRow]]


@dataclass(frozen=True)
class ClassifierCheckInputs:
    """What the check of a classifier's recipe reads.

    base        the teacher's folder, before any fine-tuning
    finetuned   whether the teacher is fine-tuned on the rows first
    layers      student.layers
    trimmed     whether the student's vocabulary is trimmed
    """

    name: str
    train: HashedPath
    validation: HashedPath | None
    test: HashedPath
    out_of_scope: str | None
    context: int
    base: HashedPath
    finetuned: bool
    layers: int
    trimmed: bool
    gates: ClassifierGates


def inputs(recipe: ClassifierRecipe, done: Done) -> ClassifierCheckInputs:
    """The inputs of the check."""
    data, teacher = recipe.data, recipe.teacher
    return ClassifierCheckInputs(
        name=recipe.name,
        train=HashedPath.of_file(data.train),
        validation=optional_file(data.validation),
        test=HashedPath.of_file(data.test),
        out_of_scope=data.out_of_scope,
        context=data.context,
        base=HashedPath.of_model(resolve_model(teacher.model)),
        finetuned=teacher.finetune is not None,
        layers=recipe.student.layers,
        trimmed=recipe.student.vocabulary is not None,
        gates=recipe.gates,
    )


def run(inputs: ClassifierCheckInputs, out: Path) -> None:
    """Write check.json; nothing is written where the check fails."""
    check_classifier(inputs).write(out)


def check_classifier(inputs: ClassifierCheckInputs) -> ClassifierCheck:
    """Rows, classes and tokens of each split, and warnings.

    Raises:
        RecipeError: the teacher cannot do what is asked; the message names the key.
        DataError: a row cannot be used; the message names file and line.
    """
    paths = {"train": inputs.train, "validation": inputs.validation, "test": inputs.test}
    splits = {name: read_labelled(file.path) for name, file in paths.items() if file}
    labels = {row.label for row in splits["train"]}
    _check_labels(inputs, splits, labels)
    _check_teacher(inputs, labels)
    lengths = _token_lengths(inputs, splits)
    leaked = [row.text for row in leaked_texts(splits["test"], [*splits["train"], *splits.get("validation", ())])]
    repeated = _repeated(splits["test"])
    warnings = _warnings(inputs, lengths, len(leaked), repeated)
    scored = max(0, len(splits["test"]) - len(leaked) - repeated)
    if again := len(leaked_texts(splits.get("validation", ()), splits["train"])):
        warnings.append(f"data.validation: {again} texts are trained on too. Use rows that no model is trained on.")
    warnings += unreachable_classifier_gates(inputs.gates, scored)
    return ClassifierCheck(
        name=inputs.name,
        rows={name: len(rows) for name, rows in splits.items()},
        classes=len(labels),
        tokens={name: Quantiles.of(found) for name, found in lengths.items()},
        leaked=tuple(dict.fromkeys(leaked)),
        warnings=tuple(warnings),
    )


def _warnings(
    inputs: ClassifierCheckInputs, lengths: Mapping[str, Sequence[int]], leaked: int, repeated: int
) -> list[str]:
    out = []
    for name, found in lengths.items():
        if cut := sum(length > inputs.context for length in found):
            out.append(f"{cut} rows of {name} are longer than data.context ({inputs.context}) and are cut.")
    if leaked:
        out.append(
            f"data.test: {leaked} texts are trained on or used for validation too, case, spaces and punctuation "
            "ignored. They are left out of every score."
        )
    if repeated:
        out.append(f"data.test: {repeated} texts repeat earlier ones. Each text is scored once.")
    return out


def _repeated(rows: Sequence[LabelledRow]) -> int:
    return len(rows) - len(unrepeated_texts(rows))


def _check_labels(inputs: ClassifierCheckInputs, splits: Splits, labels: set[str]) -> None:
    for rows in splits.values():
        for row in rows:
            if row.label not in labels:
                raise DataError(
                    f"{row.where}: no row of data.train has the label {row.label!r}. Fix it, or add such rows."
                )
    if inputs.out_of_scope is not None and inputs.out_of_scope not in labels:
        raise RecipeError(f"data.out_of_scope: no row of {inputs.train.path} has the label {inputs.out_of_scope!r}.")
    if len(labels) < 2:
        raise DataError(f"{inputs.train.path}: all rows have one label, so there is nothing to tell apart.")


def _check_teacher(inputs: ClassifierCheckInputs, labels: set[str]) -> None:
    path = inputs.base.path / "config.json"
    config: dict[str, Any] = read_json_object(path, error=RecipeError)
    layers = _number(path, config, "num_hidden_layers", _number(path, config, "n_layers", None))
    if layers is not None and inputs.layers > layers:
        raise RecipeError(f"student.layers: {inputs.layers} is more than the teacher's {layers} layers.")
    positions = _number(path, config, "max_position_embeddings", None)
    if positions is not None and inputs.context > positions:
        raise RecipeError(f"data.context: {inputs.context} is more than the teacher's {positions} positions.")
    named = config.get("id2label") or {}
    if not isinstance(named, dict) or not all(isinstance(label, str) for label in named.values()):
        raise RecipeError(f"{path}: id2label must be an object of class names by their numbers. {_SAVE_AGAIN}")
    classes = set(named.values())
    if not inputs.finetuned and classes != labels:
        odd = sorted(classes ^ labels)[:_FEW]
        raise RecipeError(
            f"teacher.model: {inputs.base.path} has {len(classes)} classes, data.train {len(labels)}, and they are not "
            f"the same ({printable(', '.join(odd))}, ...). Train it on the rows first: set teacher.finetune."
        )


def _number(path: Path, config: Mapping[str, Any], key: str, default: int | None) -> int | None:
    value = config.get(key)
    if value is not None and type(value) is not int:
        raise RecipeError(f"{path}: {key} must be a whole number, found {printable(repr(value), 100)}. {_SAVE_AGAIN}")
    return default if value is None else value


def _token_lengths(inputs: ClassifierCheckInputs, splits: Splits) -> dict[str, list[int]]:
    """Tokens of each text, before it is cut, by split."""
    path = inputs.base.path / "tokenizer.json"
    tokenizer = load_tokenizer(inputs.base.path)
    if inputs.trimmed:
        require_trimmable(read_json_object(path, error=RecipeError, most_bytes=MOST_TOKENIZER_BYTES), str(path))
    try:
        with encoding_errors():
            return {
                name: [len(encoding.ids) for encoding in tokenizer.encode_batch([row.text for row in rows])]
                for name, rows in splits.items()
            }
    except ValueError as error:
        raise RecipeError(f"{path}: {error}. Use the tokenizer.json of the original model.") from None


STAGE = Stage("check", (), inputs, run, version=6)
