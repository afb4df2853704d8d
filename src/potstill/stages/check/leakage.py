"""Test rows whose prompts are trained on too: a few are left out of every score, many are refused."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.components.sizing.workload import Splits
from potstill.core.errors import DataError
from potstill.core.leakage import leaked_rows

__all__ = ["Leakage", "find_leakage"]

_MAX_SHARE = 0.01


@dataclass(frozen=True)
class Leakage:
    """Ids of the leaked test rows, each once, and a sentence about them; None where there are none."""

    row_ids: tuple[str, ...] = ()
    sentence: str | None = None


def find_leakage(splits: Splits) -> Leakage:
    """The test rows whose prompts are trained on too.

    Raises:
        DataError: they are more than 1 % of the test rows.
    """
    test = splits["test"]
    found = leaked_rows(test, [*splits["prompts"], *splits.get("finetune", ())])
    if not found:
        return Leakage()
    first, trained = found[0]
    sentence = (
        f"{len(found)} of {len(test)} test prompts are trained on too, the first at {first.where} and {trained.where}"
    )
    if len(found) > _MAX_SHARE * len(test):
        raise DataError(
            f"{sentence}. Scores on these prompts would not show what the student can do on others; take them out of "
            "one of the files."
        )
    row_ids = dict.fromkeys(row.row_id for row, _ in found)
    return Leakage(tuple(row_ids), f"{sentence}. They are left out of every score.")
