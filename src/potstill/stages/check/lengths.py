"""Renders every row as the stages will, and proves that it can be answered and learnt from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from potstill.components.chat.format import ChatFormat
from potstill.core.errors import DataError
from potstill.core.progress import progress_bar
from potstill.core.records import Message, Row

__all__ = ["Lengths", "PieceCache", "faster_chat", "measure_rows"]

# an answer of one word shows where prompt and answer meet; text continued without roles begins with a space
_PROBES = tuple(Message(role="assistant", content=text) for text in ("OK", " OK"))
_SAMPLE = 32


class PieceCache(ChatFormat):
    """The same ids, faster: text is cut before each special token, and a piece is encoded only once.

    Rows share the pieces with the system prompt and the tools, which are most of their tokens.
    """

    def __init__(self, chat: ChatFormat) -> None:
        super().__init__(
            chat.tokenizer, chat.template, chat.bos, chat.eos, chat.stop_ids, tool_template=chat.tool_template
        )
        added = chat.tokenizer.get_added_tokens_decoder().values()
        # the tokenizer finds these before it normalizes and cuts text, so nothing reaches across their beginning
        texts = [t.content for t in added if not (t.normalized or t.lstrip or t.single_word)]
        self._cut = re.compile("(?=" + "|".join(map(re.escape, texts)) + ")") if texts else None
        self._piece = lru_cache(maxsize=4096)(lambda text: tuple(chat.encode(text)))

    def encode(self, text: str) -> list[int]:
        """See `ChatFormat.encode`."""
        pieces = self._cut.split(text) if self._cut else [text]
        return [i for piece in pieces if piece for i in self._piece(piece)]


def faster_chat(chat: ChatFormat, rows: Sequence[Row]) -> ChatFormat:
    """`chat` with a cache, if that gives the same ids on a sample of the rows."""
    cached = PieceCache(chat)
    for row in rows[:: max(1, len(rows) // _SAMPLE)]:
        try:
            answer = [row.completion] if row.completion else []
            text = chat.render((*row.messages, *answer), row.tools, generate=not answer)
            if cached.encode(text) != chat.encode(text):
                return chat
        except ValueError:
            continue  # reported when it is measured
    return cached


@dataclass
class Lengths:
    """Tokens of each prompt, and supervised tokens of each row that has an answer."""

    prompt: list[int] = field(default_factory=list)
    supervised: list[int] = field(default_factory=list)


def measure_rows(
    split: str, rows: Sequence[Row], chat: ChatFormat, context: int, max_new_tokens: int | None, *, trained: bool
) -> Lengths:
    """Render every row, and prove that it can be answered and learnt from.

    Args:
        split: name of the split, for the progress bar.
        rows: its rows.
        chat: tokenizer and template.
        context: maximum number of tokens of a row.
        max_new_tokens: maximum number of tokens of a model's answer; None where no model answers the rows.
        trained: the rows' own answers are trained on.

    Raises:
        DataError: the template refuses a row, renders the prompt differently once it is answered, or drops the answer;
            no token or no end token is supervised; or the row does not fit into the context.
    """
    chat = faster_chat(chat, rows)
    lengths = Lengths()
    with progress_bar(f"check {split} rows", len(rows)) as ticker:
        for row in rows:
            n_prompt, n_supervised = _measure(row, chat)
            lengths.prompt.append(n_prompt)
            if row.completion is not None:
                lengths.supervised.append(n_supervised)
                if trained:
                    _check_answer_fits(row, n_prompt, n_supervised, context)
            if max_new_tokens is not None:
                _check_prompt_fits(row, n_prompt, max_new_tokens, context)
            ticker.advance()
    return lengths


def _measure(row: Row, chat: ChatFormat) -> tuple[int, int]:
    """Prompt tokens and supervised tokens; a row without an answer is measured with an answer of one word."""
    reason = ""
    for answer in [row.completion] if row.completion else _PROBES:
        answered = row.model_copy(update={"completion": answer})
        try:
            example = chat.example(answered)
        except ValueError as error:
            reason = reason or str(error)
            continue
        has_text = bool(answer.content or answer.tool_calls)
        if example.n_supervised <= int(example.eos_supervised and has_text):
            raise DataError(
                f"{row.where}: the rendered row has no supervised token of the answer: the chat template leaves it "
                "out. Use a template that writes assistant turns and their tool calls."
            )
        if not example.eos_supervised and not row.unfinished:
            raise DataError(
                f"{row.where}: no end-of-turn token ({chat.eos}) follows the answer in the rendered row, so a student "
                "would never learn to stop. Let the chat template write it after each assistant turn, or name the "
                "token that the template writes as eos_token in tokenizer_config.json."
            )
        return example.n_prompt, example.n_supervised
    raise DataError(f"{row.where}: the row cannot be learnt from: {reason}. Look at chat.template, or fix the row.")


def _check_answer_fits(row: Row, n_prompt: int, n_supervised: int, context: int) -> None:
    if n_prompt + n_supervised > context:
        raise DataError(
            f"{row.where}: the row has {n_prompt + n_supervised} tokens ({n_prompt} of prompt, {n_supervised} of "
            f"answer), more than chat.context ({context}). Raise it, or drop the row."
        )


def _check_prompt_fits(row: Row, n_prompt: int, max_new_tokens: int, context: int) -> None:
    if n_prompt + max_new_tokens > context:
        raise DataError(
            f"{row.where}: the prompt has {n_prompt} tokens; with generate.max_new_tokens ({max_new_tokens}) that is "
            f"{n_prompt + max_new_tokens}, more than chat.context ({context}). Raise chat.context, lower "
            "generate.max_new_tokens, or shorten the row."
        )
