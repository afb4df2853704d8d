"""Which answers are learnt from. The others are rejected with a reason, and kept in a file of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from potstill.components.chat.format import ChatFormat
from potstill.components.chat.reasoning import split_thinking
from potstill.components.chat.thinking import without_thinking
from potstill.components.chat.tool_calls import parse_answer
from potstill.components.runtimes import Answer
from potstill.core.argument_order import with_ordered_arguments
from potstill.core.recipe.chat import Reasoning
from potstill.core.records import Message, Row, ToolCall
from potstill.stages.generate.teachers import LoadedTeacher

__all__ = ["Reason", "filter_answers", "is_called", "usual_model"]

Reason = Literal["repeated", "refused", "model", "unfinished", "empty", "length", "boundary", "context"]
"""Why an answer is rejected.

repeated     an earlier row has the same prompt, or the same prompt and answer where rows have their own
refused      the endpoint always refuses the row
model        the endpoint says that another model has answered than for most rows, and not the one that was asked
unfinished   the endpoint ended the answer before its end, and not at the limit of tokens
empty        the answer has no text, or only thinking
length       the answer was cut off at the limit of tokens
boundary     the answer cannot be separated from the prompt once they are rendered
context      prompt and answer together are longer than the student's context
"""


def filter_answers(
    rows: Sequence[Row],
    answers: Mapping[str, Sequence[Answer]],
    teacher: LoadedTeacher,
    *,
    keep_truncated: bool,
    context: int,
    reasoning: Reasoning = "learn",
) -> tuple[list[Row], list[Row]]:
    """Rows to learn from, and rejected rows with their reason as `rejected`; both in order, with their provenance.

    Args:
        rows: the prompts; a row with an answer keeps it.
        answers: the teacher's answers to each of the other rows, by row id.
        teacher: who answered.
        keep_truncated: whether answers that were cut off are kept.
        context: maximum length of prompt and answer together, in tokens of the student.
        reasoning: whether the thinking in answers is learnt.
    """
    kept: list[Row] = []
    rejected: list[Row] = []
    seen: set[str] = set()
    usual = usual_model(answers)
    for row in rows:
        mark = row.row_id if row.completion is None else f"{row.row_id} {row.completion.model_dump_json()}"
        for answered, reason in _judged(row, answers.get(row.row_id, ()), teacher, keep_truncated, reasoning, usual):
            reason = "repeated" if mark in seen else reason or _reject_rendered(answered, teacher.student_chat, context)
            if reason is None:
                kept.append(answered)
            else:
                provenance = {**answered.provenance, "rejected": reason}
                rejected.append(answered.model_copy(update={"provenance": provenance}))
            if mark in seen:
                break
        seen.add(mark)
    return kept, rejected


def _judged(
    row: Row,
    answers: Sequence[Answer],
    teacher: LoadedTeacher,
    keep_truncated: bool,
    reasoning: Reasoning,
    usual: str | None,
) -> Iterator[tuple[Row, Reason | None]]:
    """The row with each of its answers, and why an answer by itself is rejected."""
    if row.completion is not None:
        yield row, None
        return
    for answer in answers:
        if reasoning == "drop":
            answer = replace(answer, text=without_thinking(answer.text)[0].lstrip())
        other = answer.model not in (None, usual) and not is_called(answer.model or "", teacher.identity.model)
        yield _answered(row, answer, teacher), "model" if other else _reject_answer(answer, keep_truncated)


def usual_model(answers: Mapping[str, Sequence[Answer]]) -> str | None:
    """The model that an endpoint says has given most of the answers; None where it says nothing."""
    said = Counter(answer.model for given in answers.values() for answer in given if answer.model)
    return said.most_common(1)[0][0] if said else None


def is_called(reported: str, asked: str) -> bool:
    """Whether a model that an endpoint reports can be the one that was asked: it may add a date or a folder."""
    return asked.lower() in reported.lower() or reported.lower() in asked.lower()


def _reject_answer(answer: Answer, keep_truncated: bool) -> Reason | None:
    if answer.finish_reason in ("refused", "unfinished"):
        return answer.finish_reason
    if not answer.text.strip():
        return "empty"
    if answer.finish_reason == "length":
        return None if keep_truncated else "length"
    return None if without_thinking(answer.text)[0].strip() else "empty"


def _reject_rendered(row: Row, chat: ChatFormat, context: int) -> Reason | None:
    """What is wrong with the row as the student reads it."""
    try:
        example = chat.example(row)
    except ValueError:
        return "boundary"
    return "context" if len(example.ids) > context else None


def _answered(row: Row, answer: Answer, teacher: LoadedTeacher) -> Row:
    provenance = {
        **row.provenance,
        "teacher": teacher.identity.model_dump(mode="json", exclude_none=True),
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
    }
    if answer.model:
        provenance["reported_model"] = answer.model
    if answer.detail:
        provenance["detail"] = answer.detail
    completion = _message(row, answer.text, teacher.chat)
    return row.model_copy(update={"completion": completion, "provenance": provenance})


def _message(row: Row, text: str, chat: ChatFormat | None) -> Message:
    """The answer as an OpenAI-style message.

    Tool calls are taken out of the text only if the template writes them back as exactly the same text: otherwise the
    student would be trained on words that the teacher did not write.
    """
    # an endpoint returns thinking in a field of its own
    thinking, said = split_thinking(text) if chat is None else (None, text)
    raw = Message(role="assistant", content=said, reasoning_content=thinking)
    parsed = parse_answer(said)
    if not parsed.calls or parsed.parse_error:
        return raw
    try:
        calls = tuple(map(ToolCall.of, parsed.calls))
    except ValueError:  # a number that no row may hold
        return raw
    message = Message(role="assistant", content=parsed.content or None, reasoning_content=thinking, tool_calls=calls)
    if chat is None:
        return with_ordered_arguments(message, row.tools)
    try:
        same = chat.render((*row.messages, message), row.tools) == chat.render((*row.messages, raw), row.tools)
    except ValueError:  # the template refuses calls
        return raw
    return with_ordered_arguments(message, row.tools) if same else raw
