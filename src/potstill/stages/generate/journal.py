"""Answers are written down as they come, so that a killed run asks no question twice."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from potstill.components.runtimes import Answer, Sampling
from potstill.core.recipe import Generate
from potstill.core.records import Row
from potstill.stages.generate.teachers import LoadedTeacher

__all__ = ["Journal", "answer_all"]


class Journal:
    """Append-only JSONL of answers by row id; a last line cut off by a kill is ignored.

    A batch's answers may depend, in the last bits, on what was batched together. So only whole batches count as
    answered: the rest of the prompts then falls into the same batches as in a run that was never killed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, batch_size: int) -> dict[str, Answer]:
        """Answers of whole batches, by row id; the file is cut back to them."""
        if not self.path.exists():
            return {}
        whole = [line for line in self.path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        whole = whole[: len(whole) // batch_size * batch_size]
        with self.path.open("r+b") as file:
            file.truncate(sum(map(len, whole)))
        entries = [json.loads(line) for line in whole]
        return {e["row_id"]: Answer(**e["answer"]) for e in entries}

    def append(self, answers: Sequence[tuple[str, Answer]]) -> None:
        """Write a batch down and make sure that it is on the disk."""
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"row_id": i, "answer": _entry(a)}) + "\n" for i, a in answers)
            file.flush()
            os.fsync(file.fileno())


def _entry(answer: Answer) -> dict[str, Any]:
    """An answer's values, without what most runtimes have none of."""
    return {key: value for key, value in asdict(answer).items() if value is not None}


def answer_all(
    teacher: LoadedTeacher, rows: Sequence[Row], settings: Generate, seed: int, journal: Journal, label: str
) -> dict[str, Answer]:
    """The teacher's answer to every distinct prompt, by row id; those in the journal are not asked again."""
    distinct = list({row.row_id: row for row in rows}.values())
    known = journal.read(teacher.batch_size)
    open_rows = [row for row in distinct if row.row_id not in known]
    sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, seed)

    def write_down(batch: list[tuple[int, Answer]]) -> None:
        journal.append([(open_rows[i].row_id, answer) for i, answer in batch])

    answers = teacher.runtime.answer(open_rows, sampling, label, write_down) if open_rows else []
    return known | {row.row_id: answer for row, answer in zip(open_rows, answers, strict=True)}
