"""Run any model in the same way: Hugging Face weights, a GGUF file in llama.cpp, an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.core.records import Row

__all__ = ["Answer", "FinishReason", "OnAnswers", "OnAsk", "Runtime", "Sampling"]

FinishReason = Literal["stop", "length", "unfinished", "refused"]
"""How an answer ended. Only after `stop` is an end token learnt.

stop         the model ended it
length       it was cut off at the limit of tokens
unfinished   the endpoint ended it for any other reason, such as a content filter or an error of its own
refused      the endpoint does not answer this row, also when it is asked again; the text is empty
"""


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled. Temperature 0 is greedy decoding, and `seed` has no effect then."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """What a model answers: the raw text, with tool calls in the model's own markup, and what the answer took."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    tokens: str | None = None
    """Log-probabilities of the tokens, where an endpoint was asked for them: see `runtimes.log_probs.pack_tokens`."""
    parsed: ParsedAnswer | None = None
    """Calls and words as the runtime gives them to its users; None where it gives them the text alone."""
    log_prob: float | None = None
    """ln of the model's own probability of all tokens of the answer, at temperature 1; None where it is not known."""
    detail: str | None = None
    """Why a row is refused or an answer is unfinished, as a clause; None for all other answers."""
    model: str | None = None
    """The model that an endpoint says has answered; None where it does not say."""


OnAnswers = Callable[[list[tuple[int, Answer]]], None]
"""Called with pairs (index into rows, answer) as soon as answers arrive, so that nothing that was paid for is lost."""

OnAsk = Callable[[list[int]], None]
"""Called with indices into rows right before these rows are sent together. It may raise an error to end the run."""


class Runtime(Protocol):
    """Anything that answers rows."""

    def answer(
        self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        """Answers in the order of `rows`. `label` names the progress bar, and `on_answers` receives the answers as they
        arrive."""
        ...
