"""How long prompts and answers are: counted with the student's tokenizer, or estimated where it is not at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.core.records import Row

__all__ = ["Lengths", "estimate_lengths"]

_BYTES_PER_TOKEN = 2.5  # fewer than in English text, so that the estimate is rather too large
_SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_ANSWER = 512  # tokens, where no row has an answer
_LONGEST_ANSWER = 8192
_RESERVE = 1.25  # of answers, which a teacher may write at greater length


@dataclass(frozen=True)
class Lengths:
    """Tokens to allow for.

    answer    of an answer
    context   of a prompt and its answer together
    counted   whether the tokens were counted, and not estimated
    """

    answer: int
    context: int
    counted: bool


def estimate_lengths(rows: Sequence[Row], student: str) -> Lengths:
    """Lengths that hold every row.

    Args:
        rows: all rows.
        student: the model whose tokenizer counts; tokens are estimated if it is not a folder.
    """
    counted = _counted(rows, Path(student)) if Path(student).is_dir() else None
    prompts, answers = counted or _estimated(rows)
    longest = max(answers, default=0)
    answer = min(_LONGEST_ANSWER, 32 * (int(_RESERVE * longest) // 32 + 1)) if longest else _ANSWER
    needed = max(prompts) + answer
    return Lengths(answer, next((size for size in _SIZES if size >= needed), _SIZES[-1]), counted is not None)


def _counted(rows: Sequence[Row], student: Path) -> tuple[list[int], list[int]] | None:
    """Tokens of the prompts and of the answers; None where the student's chat template does not take the rows."""
    from potstill.components.chat.format import load_chat
    from potstill.core.errors import PotstillError

    try:
        chat = load_chat(student)
        examples = [chat.example(row) for row in rows if row.completion]
        prompts = [len(chat.prompt_ids(row)) for row in rows]
    except (PotstillError, ValueError):  # `potstill check` says what is wrong with it
        return None
    return prompts, [example.n_supervised for example in examples]


def _estimated(rows: Sequence[Row]) -> tuple[list[int], list[int]]:
    prompts = [row.model_dump_json(include={"messages", "tools"}, exclude_defaults=True) for row in rows]
    answers = [row.completion.model_dump_json(exclude_defaults=True) for row in rows if row.completion]
    return [_tokens(text) for text in prompts], [_tokens(text) for text in answers]


def _tokens(text: str) -> int:
    return int(len(text.encode()) / _BYTES_PER_TOKEN) + 1
