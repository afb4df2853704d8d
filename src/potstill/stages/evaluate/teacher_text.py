"""The teacher's own answers as text to compare distributions on, and the teacher's distributions over them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from potstill.core.artifacts.answers import JudgedAnswer
from potstill.core.artifacts.metrics import Fidelity, FidelityDifference
from potstill.core.progress import progress_bar
from potstill.core.records import Message, Row
from potstill.stages.evaluate.fidelity import Array, Divergences, fidelity, fidelity_difference

if TYPE_CHECKING:
    from potstill.components.runtimes.hf import HFRuntime

__all__ = ["TeacherText", "TeacherTexts", "teacher_texts"]

LogProbs = Callable[[Sequence[int], Sequence[int]], Any]

_NUMBERS = 200_000_000  # log-probabilities of the teacher that are kept: 0.8 GB
_TOKENS_PER_ROW = 8  # compared on average, whatever the size of the vocabulary


@dataclass(frozen=True)
class TeacherText:
    """Token ids of a prompt and the teacher's answer, and the positions of the answer's tokens that are compared."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True)
class TeacherTexts:
    """Texts, and the teacher's log-probabilities (S, V) of the compared tokens in each.

    confidence   level of the intervals
    compared     divergences of each model that was compared
    """

    texts: Sequence[TeacherText] = ()
    log_probs: Sequence[Array] = ()
    confidence: float = 0.9
    compared: dict[str, Divergences] = field(default_factory=dict)

    @property
    def entropy(self) -> float | None:
        """Mean entropy of the teacher over the compared tokens, in nats; None without texts."""
        import numpy as np

        if not self.log_probs:
            return None
        with np.errstate(invalid="ignore"):  # 0 times -inf
            per_token = [-np.nansum(np.exp(log_p_SV) * log_p_SV, axis=-1) for log_p_SV in self.log_probs]
        return float(np.concatenate(per_token).mean())

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
        return TeacherTexts([text for text, _ in pairs], [teacher_SK for _, teacher_SK in pairs], self.confidence)

    def compare(self, log_probs: LogProbs, model: str) -> Fidelity | None:
        """Fidelity of a model that gives log-probabilities as `HFRuntime.log_probs_at` does; None without texts."""
        if not self.texts:
            return None
        pairs = []
        with progress_bar(f"compare distributions: {model}", len(self.texts)) as ticker:
            for text, teacher_SV in zip(self.texts, self.log_probs, strict=True):
                pairs.append((teacher_SV, log_probs(text.ids, text.positions)))
                ticker.advance()
        self.compared[model] = Divergences.of(pairs)
        return fidelity(self.compared[model], self.confidence)

    def difference(self, first: str, second: str) -> FidelityDifference | None:
        """Mean KL of the first model minus the second's; None where one was not compared, or the rows are too few."""
        if first not in self.compared or second not in self.compared:
            return None
        return fidelity_difference(self.compared[first], self.compared[second], self.confidence)


def teacher_texts(
    rows: Sequence[Row],
    answers: Sequence[JudgedAnswer],
    teacher: HFRuntime,
    *,
    count: int,
    context: int,
    seed: int,
    confidence: float,
) -> TeacherTexts:
    """The teacher's answers to up to `count` test rows, drawn at random, with its distributions over them.

    All tokens of an answer are compared unless the vocabulary is so large that their distributions would not fit into
    memory; then a random part of each answer is.
    """
    draw = random.Random(seed)
    chosen: dict[int, tuple[tuple[int, ...], int]] = {}
    for number in draw.sample(range(len(rows)), len(rows)):
        if len(chosen) == count:
            break
        example = _example(rows[number], answers[number], teacher, context)
        if example:
            chosen[number] = example
    examples = [chosen[number] for number in sorted(chosen)]
    tokens = sum(len(ids) - first for ids, first in examples)
    most = max(_NUMBERS // teacher.chat.vocab_size, _TOKENS_PER_ROW * len(examples))
    share = min(1.0, most / tokens) if tokens else 1.0
    texts = []
    for ids, first in examples:
        places = range(first, len(ids))
        part = draw.sample(places, max(1, round(share * len(places)))) if share < 1 else places
        texts.append(TeacherText(ids, tuple(sorted(part))))
    log_probs = [teacher.log_probs_at(text.ids, text.positions).numpy() for text in texts]
    return TeacherTexts(texts, log_probs, confidence)


def _example(row: Row, answer: JudgedAnswer, teacher: HFRuntime, context: int) -> tuple[tuple[int, ...], int] | None:
    """Token ids of a prompt with the teacher's answer, and the position of the answer's first token."""
    if not answer.text.strip():
        return None
    answered = row.model_copy(update={"completion": Message(role="assistant", content=answer.text)})
    try:
        example = teacher.chat.example(answered)
    except ValueError:  # the teacher's own template cannot render this answer
        return None
    ids = example.ids[:context]
    return (ids, example.n_prompt) if example.n_prompt < len(ids) else None


def _renormalised(log_probs_SK: Array) -> Array:
    import numpy as np

    highest_S1 = log_probs_SK.max(axis=-1, keepdims=True)
    total_S1 = np.log(np.exp(log_probs_SK - highest_S1).sum(axis=-1, keepdims=True)) + highest_S1
    return np.asarray(log_probs_SK - total_S1)
