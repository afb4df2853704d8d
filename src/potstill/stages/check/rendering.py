"""Proves that the text that a model reads and learns has everything in the rows, and shows one such text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from potstill.components.chat.format import ChatFormat
from potstill.components.chat.losses import ANSWER, CALL, EARLIER_WORDS, left_out, left_out_of_answer, marked
from potstill.components.chat.variables import reads
from potstill.components.sizing.workload import Split, Splits
from potstill.core.artifacts.check import ShownRow
from potstill.core.errors import DataError, RecipeError
from potstill.core.messages import Message
from potstill.core.recipe import Recipe
from potstill.core.records import Row

__all__ = ["check_rendering", "show_row"]


def check_rendering(recipe: Recipe, chats: Sequence[ChatFormat], splits: Splits) -> list[str]:
    """Warnings about what is lost of the rows' answers when they become text.

    Args:
        recipe: the recipe.
        chats: tokenizer and template of the teacher and of the student, or one of both.
        splits: all rows.

    Raises:
        RecipeError: a variable of the recipe is one that no template reads.
        DataError: the template leaves out a part of a prompt, or of an answer; the message names the first row.
    """
    _require_known_variables(recipe, chats)
    warnings: list[str] = []
    for chat in chats:
        for name, rows in splits.items():
            if name == "finetune" and chat is not chats[0]:
                continue
            trained = recipe.teacher.finetune is not None and name in ("finetune", "validation")
            answers = trained or name in ("test", "labelled")
            warnings += _require_rendered(name, rows, chat, answers=answers)
    return list(dict.fromkeys(warnings))


def _require_known_variables(recipe: Recipe, chats: Sequence[ChatFormat]) -> None:
    """Raise RecipeError for a variable that no template reads: it may be misspelt."""
    for name in recipe.chat.template_kwargs:
        # what is set at the top of a template is read below
        if not any(
            _reads_below(source, name) for chat in chats for source in (chat.template, chat.tool_template or "")
        ):
            raise RecipeError(
                f"chat.template_kwargs.{name}: the chat template never reads a variable of this name, so it would "
                "change nothing. Look for the right name in the template, or take the key out of the recipe."
            )


def _reads_below(source: str, name: str) -> bool:
    return any(reads(line, name) for line in source.split("\n") if not line.startswith(f"{{% set {name} = "))


def _require_rendered(split: str, rows: Sequence[Row], chat: ChatFormat, *, answers: bool) -> list[str]:
    """Warnings about what the template leaves out of the rows' answers.

    Args:
        split: name of the split, for messages.
        rows: its rows.
        chat: tokenizer and template.
        answers: whether the rows' own answers are learnt, or compared with a model's.

    Raises:
        DataError: the template leaves out a part of a prompt, or of an answer; the message names the first row.
    """
    lost: Counter[str] = Counter()
    first: dict[str, str] = {}
    said: Counter[str] = Counter()
    probed: set[str] = set()
    for row in rows:
        found = left_out(row, chat)
        if (shape := _shape(row)) not in probed:
            probed.add(shape)
            found += _probe(row, chat)
        if _CALL_IN_ANSWER in found and _answers_in_words(row):  # no call may ever be wanted
            found.remove(_CALL_IN_ANSWER)
            said[_CALL_IN_ANSWER] += 1
            first.setdefault(_CALL_IN_ANSWER, row.where)
        for part in dict.fromkeys(found):
            lost[part] += 1
            first.setdefault(part, row.where)
        if answers and row.completion:
            for part in left_out_of_answer(row, chat):
                said[part] += 1
                first.setdefault(part, row.where)
    for part in (ANSWER, CALL):
        if n := said.pop(part, 0):
            lost[part] = n
    if n := lost.pop(EARLIER_WORDS, 0):  # many templates do it, llama.cpp renders it alike, and calls still are read
        said[EARLIER_WORDS] = n
    if lost:
        raise _loses(split, lost, first, len(rows))
    return [
        f"{split}: the chat template leaves {part} out of {n} of {len(rows)} rows (the first is {first[part]}), so no "
        "model would read or learn it."
        for part, n in said.items()
    ]


_CALL_IN_ANSWER = "a call in the answer"


def _loses(split: str, lost: Counter[str], first: dict[str, str], n_rows: int) -> DataError:
    part, n = lost.most_common(1)[0]
    others = f", and also {', '.join(name for name in lost if name != part)}" if len(lost) > 1 else ""
    rows = f"{n} of the {n_rows} rows of {split}" if n > 1 else f"a row of {split}"
    return DataError(
        f"{first[part]}: the chat template leaves {part} out of {rows}{others}, so the model would never read it. "
        "Choose a template that writes it (chat.template names a Jinja file), or take it out of the rows."
    )


def _shape(row: Row) -> str:
    """A key that is equal for conversations that are rendered alike except for their texts."""
    turns = [(m.role, bool(m.content), len(m.tool_calls)) for m in row.messages]
    return json.dumps([turns, len(row.tools), _answers_in_words(row)])


def _answers_in_words(row: Row) -> bool:
    """Whether the row says that its answer is words, and not a call."""
    return row.completion is not None and row.behaviour not in ("tool_call", "multi_call")


def _probe(row: Row, chat: ChatFormat) -> list[str]:
    """What is left out of the same conversation with other words; if it has tools, with a call as the answer."""
    probe = marked(row)
    try:
        found = left_out(probe, chat)
    except ValueError:  # the template looks at the words
        return []
    try:
        left = left_out_of_answer(probe, chat)
    except ValueError as error:
        left = [CALL] if row.tools and "tool" in str(error).lower() else []
    return found + ([_CALL_IN_ANSWER] if CALL in left else [])


def show_row(splits: Splits, chat: ChatFormat) -> ShownRow | None:
    """The text of the first row that is learnt from, or else of the first prompt with an answer of one word."""
    names: tuple[Split, ...] = ("finetune", "prompts", "validation", "test")
    rows = sorted((row for name in names for row in splits.get(name, ())[:1]), key=lambda row: row.completion is None)
    for row in rows[:1]:
        answered = row if row.completion else row.model_copy(update={"completion": _OK})
        try:
            example = chat.example(answered)
        except ValueError:  # reported when the row is measured
            return None
        text = chat.tokenizer.decode(list(example.ids), skip_special_tokens=False)
        prompt = chat.tokenizer.decode(list(example.ids[: example.n_prompt]), skip_special_tokens=False)
        return ShownRow(
            where=row.where,
            text=text,
            learnt=((len(prompt), len(text)),),
            tokens=len(example.ids),
            learnt_tokens=example.n_supervised,
            own_answer=row.completion is not None,
        )
    return None


_OK = Message(role="assistant", content="OK")
