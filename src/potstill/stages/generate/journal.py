"""Answers are written to disk as they arrive, so that a killed run pays for no answer twice."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from potstill.components.runtimes import Answer, Sampling
from potstill.core.records import Row
from potstill.stages.generate.teachers import LoadedTeacher

__all__ = ["Journal", "answer_all"]


class Journal:
    """An append-only JSONL file of answers by row id. A last line that a kill cut off is ignored.

    The last bits of an answer may depend on which rows were in its batch. So only whole batches count as answered: the
    remaining prompts then fall into the same batches as in a run that was never killed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, batch_size: int) -> dict[str, Answer]:
        """The answers of whole batches, by row id. The file is cut back to them."""
        if not self.path.exists():
            return {}
        whole = [line for line in self.path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        whole = whole[: len(whole) // batch_size * batch_size]
        with self.path.open("r+b") as file:
            file.truncate(sum(map(len, whole)))
        entries = [json.loads(line) for line in whole]
        return {e["row_id"]: Answer(**e["answer"]) for e in entries}

    def append(self, answers: Sequence[tuple[str, Answer]]) -> None:
        """Write the answers of a batch to the disk."""
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"row_id": i, "answer": _entry(a)}) + "\n" for i, a in answers)
            file.flush()
            os.fsync(file.fileno())


def _entry(answer: Answer) -> dict[str, Any]:
    """The values of an answer, without those that are None."""
    return {key: value for key, value in asdict(answer).items() if value is not None}


def answer_all(
    teacher: LoadedTeacher, rows: Sequence[Row], sampling: Sampling, journal: Journal, label: str
) -> dict[str, Answer]:
    """The teacher's answer to every distinct prompt, by row id. Prompts that the journal has are not asked again."""
    distinct = list({row.row_id: row for row in rows}.values())
    known = journal.read(teacher.batch_size)
    unanswered = [row for row in distinct if row.row_id not in known]
    if repeated := len(rows) - len(distinct):
        label += f" ({repeated:,} repeated)"

    def write(batch: list[tuple[int, Answer]]) -> None:
        journal.append([(unanswered[i].row_id, answer) for i, answer in batch])

    answers = teacher.runtime.answer(unanswered, sampling, label, write) if unanswered else []
    return known | {row.row_id: answer for row, answer in zip(unanswered, answers, strict=True)}
