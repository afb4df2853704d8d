"""Test rows whose prompts are trained on too: a few are left out of every score, and many are an error. Repeats."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.components.sizing.workload import Splits
from potstill.core.errors import DataError
from potstill.core.leakage import leaked_rows, unrepeated_rows

__all__ = ["Leakage", "find_leakage"]

_MAX_SHARE = 0.01  # of prompts that are trained on word for word: the files were mixed up
_MAX_SIMILAR = 0.05  # of prompts that are trained on with other case, spaces or punctuation: people ask alike


@dataclass(frozen=True)
class Leakage:
    """Ids of the leaked test rows, each once, and a sentence about them and repeats; None where there are none."""

    row_ids: tuple[str, ...] = ()
    sentence: str | None = None


def find_leakage(splits: Splits) -> Leakage:
    """The test rows whose prompts are trained on too, and those that repeat each other.

    Raises:
        DataError: more than 1 % of the test prompts are trained on word for word, or more than 5 % in any form.
    """
    test = splits["test"]
    found = leaked_rows(test, [*splits["prompts"], *splits.get("finetune", ())])
    repeated = len(test) - len(unrepeated_rows(test))
    again = (
        f"{repeated} of {len(test)} test prompts repeat earlier ones. Each prompt is scored once." if repeated else ""
    )
    if not found:
        return Leakage(sentence=again or None)
    first, trained = found[0]
    sentence = (
        f"{len(found)} of {len(test)} test prompts are trained on too, the first at {first.where} and {trained.where}"
    )
    exact = sum(row.messages == other.messages for row, other in found)
    if exact > _MAX_SHARE * len(test) or len(found) > _MAX_SIMILAR * len(test):
        raise DataError(
            f"{sentence}. Scores on these prompts would not show what the student can do on others; take them out of "
            "one of the files. Prompts that differ in case, spaces or punctuation alone count as the same."
        )
    row_ids = dict.fromkeys(row.row_id for row, _ in found)
    return Leakage(tuple(row_ids), f"{sentence}. They are left out of every score. {again}".strip())
