"""Run any model the same way: Hugging Face weights, a GGUF in llama.cpp, an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from potstill.core.records import Row

__all__ = ["Answer", "OnAnswers", "Runtime", "Sampling"]


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn. `temperature` 0 is greedy; `seed` counts only when sampling."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """What a model said: raw text (tool calls still in the model's own markup), why it stopped, and how many tokens
    it took."""

    text: str
    finish_reason: str
    """`stop`, or `length` when cut off."""
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    tokens: str | None = None
    """What an endpoint says of its tokens, where it is asked: see `runtimes.log_probs.pack_tokens`."""


OnAnswers = Callable[[list[tuple[int, Answer]]], None]
"""Called with (index into rows, answer) pairs as soon as they are there, so that nothing paid for is lost."""


class Runtime(Protocol):
    """Anything that answers rows."""

    def answer(
        self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        """Answers in the order of `rows`; `label` names the progress bar; `on_answers` hears of answers as they
        come."""
        ...
