"""Test rows whose prompts are trained on or used for validation too: a few are left out of every score, and many are
an error. Repeated test rows, and validation rows that are trained on."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.components.sizing.workload import Splits
from potstill.core.errors import DataError
from potstill.core.leakage import leaked_rows, unrepeated_rows
from potstill.core.records import Row

__all__ = ["Leakage", "find_leakage", "validation_warning"]

_MAX_SHARE = 0.01  # of prompts that are trained on word for word: the files were mixed up
_MAX_SIMILAR = 0.05  # of prompts that are trained on with other case, spaces or punctuation: people ask alike


@dataclass(frozen=True)
class Leakage:
    """Ids of the leaked test rows, each once, and a sentence about them and repeats; None where there are none."""

    row_ids: tuple[str, ...] = ()
    sentence: str | None = None


def find_leakage(splits: Splits) -> Leakage:
    """The test rows whose prompts are trained on or used for validation too, and those that repeat each other.

    The best weights are chosen on the validation rows, so a score on these would be too good.

    Raises:
        DataError: more than 1 % of the test prompts are such rows word for word, or more than 5 % in any form.
    """
    test, trained_on = splits["test"], _trained_on(splits)
    found = leaked_rows(test, [*trained_on, *splits.get("validation", ())])
    repeated = len(test) - len(unrepeated_rows(test))
    again = (
        f"{repeated} of {len(test)} test prompts repeat earlier ones. Each prompt is scored once." if repeated else ""
    )
    if not found:
        return Leakage(sentence=again or None)
    first, other = found[0]
    trained = {row.where for row in trained_on}
    used = "trained on" if all(row.where in trained for _, row in found) else "trained on or used for validation"
    sentence = f"{len(found)} of {len(test)} test prompts are {used} too, the first at {first.where} and {other.where}"
    exact = sum(row.messages == other.messages for row, other in found)
    if exact > _MAX_SHARE * len(test) or len(found) > _MAX_SIMILAR * len(test):
        raise DataError(
            f"{sentence}. Scores on these prompts would not show what the student can do on others; take them out of "
            "one of the files. Prompts that differ in case, spaces or punctuation alone count as the same."
        )
    row_ids = dict.fromkeys(row.row_id for row, _ in found)
    return Leakage(tuple(row_ids), f"{sentence}. They are left out of every score. {again}".strip())


def validation_warning(splits: Splits) -> str | None:
    """A sentence about validation rows whose prompts are trained on too; None where there are none."""
    validation = splits.get("validation", ())
    found = leaked_rows(validation, _trained_on(splits))
    if not found:
        return None
    first, other = found[0]
    return (
        f"data.validation: {len(found)} of {len(validation)} prompts are trained on too, the first at {first.where} "
        f"and {other.where}. The best weights are chosen on these rows, so use rows that no model is trained on."
    )


def _trained_on(splits: Splits) -> list[Row]:
    return [*splits["prompts"], *splits.get("finetune", ()), *splits.get("labelled", ()), *splits.get("unanswered", ())]
