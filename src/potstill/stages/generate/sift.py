"""Which answers are fit to learn from; what is not is set aside with its reason, never dropped unseen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from potstill.components.chat.format import ChatFormat
from potstill.components.chat.tool_calls import parse_answer
from potstill.components.runtimes import Answer
from potstill.core.records import Function, Message, Row, ToolCall
from potstill.stages.generate.teachers import LoadedTeacher

__all__ = ["sift"]


def sift(
    rows: Sequence[Row], answers: Mapping[str, Answer], teacher: LoadedTeacher, keep_truncated: bool, context: int
) -> tuple[list[Row], list[Row]]:
    """Rows to learn from and rows set aside, both in the order of `rows`, each with its provenance.

    Reasons: `length` (cut off by the token limit), `empty`, `repeated` (the same prompt again), `boundary` (prompt and
    answer cannot be told apart once rendered), `context` (prompt and answer are longer than `context` tokens).
    """
    kept: list[Row] = []
    aside: list[Row] = []
    seen: set[str] = set()
    for row in rows:
        answer = answers[row.row_id]
        reason = _reason(row, answer, seen, keep_truncated)
        seen.add(row.row_id)
        answered = row.model_copy(update={"completion": _message(row, answer.text, teacher.chat)})
        provenance = {
            **row.provenance,
            "teacher": teacher.identity,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
        }
        answered = answered.model_copy(update={"provenance": provenance})
        if reason is None:
            reason = _rendered(answered, teacher.student_chat, context)
        if reason is None:
            kept.append(answered)
        else:
            aside.append(answered.model_copy(update={"provenance": {**provenance, "set_aside": reason}}))
    return kept, aside


def _reason(row: Row, answer: Answer, seen: set[str], keep_truncated: bool) -> str | None:
    if row.row_id in seen:
        return "repeated"
    if not answer.text.strip():
        return "empty"
    return "length" if answer.finish_reason == "length" and not keep_truncated else None


def _rendered(row: Row, chat: ChatFormat, context: int) -> str | None:
    """What is wrong with the row as the student would read it."""
    try:
        example = chat.example(row)
    except ValueError:
        return "boundary"
    return "context" if len(example.ids) > context else None


def _message(row: Row, text: str, chat: ChatFormat | None) -> Message:
    """The answer as an OpenAI-style message.

    Tool calls are taken out of the text only if the template writes them back to the very same text: otherwise the
    student would be trained on words the teacher never said.
    """
    raw = Message(role="assistant", content=text)
    parsed = parse_answer(text)
    if not parsed.calls or parsed.parse_error:
        return raw
    calls = tuple(
        ToolCall(function=Function(name=c.name, arguments=json.dumps(c.arguments, ensure_ascii=False)))
        for c in parsed.calls
    )
    message = Message(role="assistant", content=parsed.content or None, tool_calls=calls)
    if chat is None:
        return message
    same = chat.render((*row.messages, message), row.tools) == chat.render((*row.messages, raw), row.tools)
    return message if same else raw
