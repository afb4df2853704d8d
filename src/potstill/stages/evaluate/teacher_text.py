"""The teacher's own answers as text to compare distributions on, and the teacher's distributions over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from potstill.core.artifacts.answers import JudgedAnswer
from potstill.core.artifacts.metrics import Fidelity
from potstill.core.progress import progress_bar
from potstill.core.records import Message, Row
from potstill.stages.evaluate.fidelity import Array, fidelity

if TYPE_CHECKING:
    from potstill.components.runtimes.hf import HFRuntime

__all__ = ["TeacherText", "TeacherTexts", "teacher_texts"]

LogProbs = Callable[[Sequence[int], int], Any]


@dataclass(frozen=True)
class TeacherText:
    """Token ids of a prompt and the teacher's answer; `first` is the position of the answer's first token."""

    ids: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class TeacherTexts:
    """Texts, and the teacher's log-probabilities (S, V) of the answer's tokens in each."""

    texts: Sequence[TeacherText] = ()
    log_probs: Sequence[Array] = ()

    def in_vocabulary(self, kept: Sequence[int]) -> TeacherTexts:
        """The texts in the ids of a student whose vocabulary was trimmed; `kept` holds the old id of each new one.

        The teacher's distributions are restricted to the kept tokens and renormalised, as in training. A text with a
        token that is not kept is left out: the student's tokenizer splits it differently, so positions do not match.
        """
        new = {old: number for number, old in enumerate(kept)}
        pairs = [
            (replace(text, ids=tuple(new[i] for i in text.ids)), _renormalised(teacher_SV[:, kept]))
            for text, teacher_SV in zip(self.texts, self.log_probs, strict=True)
            if new.keys() >= set(text.ids)
        ]
        return TeacherTexts([text for text, _ in pairs], [teacher_SK for _, teacher_SK in pairs])

    def compare(self, log_probs: LogProbs, label: str) -> Fidelity | None:
        """Fidelity of a model that gives log-probabilities as `HFRuntime.log_probs` does; None without texts."""
        if not self.texts:
            return None
        pairs = []
        with progress_bar(label, len(self.texts)) as ticker:
            for text, teacher_SV in zip(self.texts, self.log_probs, strict=True):
                pairs.append((teacher_SV, log_probs(text.ids, text.first)))
                ticker.advance()
        return fidelity(pairs)


def teacher_texts(
    rows: Sequence[Row], answers: Sequence[JudgedAnswer], teacher: HFRuntime, count: int, context: int
) -> TeacherTexts:
    """Up to `count` of the teacher's answers to the first test rows, with its distributions over them."""
    texts: list[TeacherText] = []
    for row, answer in zip(rows, answers, strict=True):
        if len(texts) == count:
            break
        if not answer.text.strip():
            continue
        answered = row.model_copy(update={"completion": Message(role="assistant", content=answer.text)})
        try:
            example = teacher.chat.example(answered)
        except ValueError:  # the teacher's own template cannot render this answer
            continue
        texts.append(TeacherText(example.ids[:context], example.n_prompt))
    return TeacherTexts(texts, [teacher.log_probs(text.ids, text.first).numpy() for text in texts])


def _renormalised(log_probs_SK: Array) -> Array:
    import numpy as np

    highest_S1 = log_probs_SK.max(axis=-1, keepdims=True)
    total_S1 = np.log(np.exp(log_probs_SK - highest_S1).sum(axis=-1, keepdims=True)) + highest_S1
    return np.asarray(log_probs_SK - total_S1)
