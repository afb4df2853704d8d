"""Every row of a run, looked at before it is paid for: tools, golds, rendering, lengths, leakage."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from potstill.components.chat.format import ChatFormat
from potstill.components.checkers.golds import check_golds
from potstill.core.errors import DataError
from potstill.core.progress import progress_bar
from potstill.core.recipe import Recipe
from potstill.core.records import Message, Row, read_rows

__all__ = ["Lengths", "check_leakage", "measure_rows", "read_splits"]

# an answer of one word, which shows where prompt and answer meet; text continued without roles begins with a space
_PROBES = tuple(Message(role="assistant", content=text) for text in ("OK", " OK"))
_SAMPLE = 32
_LEAK_SHARE = 0.01


def read_splits(recipe: Recipe) -> dict[str, list[Row]]:
    """Rows by split: prompts, validation, test, finetune (those a recipe has), as the stages will read them.

    Raises:
        DataError: a file is absent or broken, a tool or a gold is not valid, or a finetune row has no assistant turn.
    """
    data, tune = recipe.data, recipe.teacher.finetune
    splits = {"prompts": read_rows(data.prompts, tools=data.tools, limit=data.limit)}
    if data.validation:
        splits["validation"] = read_rows(data.validation, tools=data.tools)
    splits["test"] = read_rows(data.test, tools=data.tools, limit=data.test_limit)
    if tune:
        splits["finetune"] = read_rows(tune.rows, tools=data.tools, need_completion=True)
    for rows in splits.values():
        check_golds(rows)
    return splits


class _PieceCache(ChatFormat):
    """The same ids, faster: text is cut before each special token, and a piece seen before is not encoded again.

    Rows share the pieces that hold the system prompt and the tools, which are most of their tokens.
    """

    def __init__(self, chat: ChatFormat) -> None:
        super().__init__(chat.tokenizer, chat.template, chat.bos, chat.eos, chat.stop_ids)
        added = chat.tokenizer.get_added_tokens_decoder().values()
        # these are found before text is normalized and cut, so nothing reaches across their beginning
        texts = [t.content for t in added if not (t.normalized or t.lstrip or t.single_word)]
        self._cut = re.compile("(?=" + "|".join(map(re.escape, texts)) + ")") if texts else None
        self._piece = lru_cache(maxsize=4096)(lambda text: tuple(chat.encode(text)))

    def encode(self, text: str) -> list[int]:
        """See `ChatFormat.encode`."""
        pieces = self._cut.split(text) if self._cut else [text]
        return [i for piece in pieces if piece for i in self._piece(piece)]


def _fast(chat: ChatFormat, rows: Sequence[Row]) -> ChatFormat:
    """`chat` with a cache, if it gives the same ids on a sample of the rows."""
    cached = _PieceCache(chat)
    for row in rows[:: max(1, len(rows) // _SAMPLE)]:
        try:
            answer = [row.completion] if row.completion else []
            text = chat.render((*row.messages, *answer), row.tools, generate=not answer)
        except ValueError:
            continue  # told when its turn comes
        if cached.encode(text) != chat.encode(text):
            return chat
    return cached


@dataclass
class Lengths:
    """Tokens of each prompt, and supervised tokens of each row that carries an answer."""

    prompt: list[int] = field(default_factory=list)
    supervised: list[int] = field(default_factory=list)


def measure_rows(
    split: str, rows: Sequence[Row], chat: ChatFormat, context: int, max_new_tokens: int | None, *, learnt: bool
) -> Lengths:
    """Render every row, and prove that it can be answered and learnt from.

    Args:
        split: for the progress bar.
        chat: tokenizer and template.
        context: most tokens of a row.
        max_new_tokens: of the answer a model is to give; None where none is asked.
        learnt: the rows' own answers are trained on.

    Raises:
        DataError: the template refuses a row, changes the prompt once it is answered or drops the answer; no token or
            no end token is supervised; or the row does not fit the context.
    """
    chat = _fast(chat, rows)
    lengths = Lengths()
    with progress_bar(f"check {split}", len(rows)) as ticker:
        for row in rows:
            n_prompt, n_supervised = _measure(row, chat)
            lengths.prompt.append(n_prompt)
            if row.completion is not None:
                lengths.supervised.append(n_supervised)
                if learnt:
                    _check_answer_fits(row, n_prompt, n_supervised, context)
            if max_new_tokens is not None:
                _check_prompt_fits(row, n_prompt, max_new_tokens, context)
            ticker.advance()
    return lengths


def _measure(row: Row, chat: ChatFormat) -> tuple[int, int]:
    """Prompt tokens and supervised tokens; a row without an answer is given one of a word."""
    reason = ""
    for answer in [row.completion] if row.completion else _PROBES:
        answered = row.model_copy(update={"completion": answer})
        try:
            example = chat.example(answered)
        except ValueError as error:
            reason = reason or str(error)
            continue
        says = bool(answer.content or answer.tool_calls)
        if example.n_supervised <= int(example.eos_supervised and says):
            raise DataError(
                f"{row.where}: the rendered row has no supervised token of the answer: the chat template leaves it "
                "out. Use a template that writes assistant turns and their tool calls."
            )
        if not example.eos_supervised and row.provenance.get("finish_reason") != "length":
            raise DataError(
                f"{row.where}: no end-of-turn token ({chat.eos}) follows the answer in the rendered row, so a student "
                "would never learn to stop. Let the chat template write it after each assistant turn, or name the "
                "token that it does write as eos_token in tokenizer_config.json."
            )
        return example.n_prompt, example.n_supervised
    raise DataError(f"{row.where}: the row cannot be learnt from: {reason}. Look at chat.template, or mend the row.")


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


def check_leakage(splits: Mapping[str, Sequence[Row]]) -> tuple[int, str | None]:
    """How many test prompts are trained on too, and a sentence that says so.

    Raises:
        DataError: they are more than one in a hundred.
    """
    trained: dict[str, Row] = {}
    asked = {row.messages for row in splits["test"]}
    for split in ("prompts", "finetune"):
        # hashing a prompt with its tools is slow, so only those whose messages are met in the test
        trained |= {row.row_id: row for row in splits.get(split, ()) if row.messages in asked}
    leaked = [row for row in splits["test"] if row.row_id in trained]
    if not leaked:
        return 0, None
    first = leaked[0]
    said = (
        f"{len(leaked)} of {len(splits['test'])} test prompts are trained on too, the first at {first.where} and "
        f"{trained[first.row_id].where}"
    )
    if len(leaked) > _LEAK_SHARE * len(splits["test"]):
        raise DataError(
            f"{said}. What is measured on them would not show what the student can do elsewhere; take them out of one "
            "file."
        )
    return len(leaked), said
