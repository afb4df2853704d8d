"""Answers of a model to the test rows: one JSON object per line in `answers-MODEL.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from potstill.core.artifacts.base import Part, read_parts
from potstill.core.files import write_text

__all__ = [
    "ERROR_NAMES",
    "AnswerError",
    "ClassifiedRow",
    "JudgedAnswer",
    "answers_file",
    "read_answers",
    "write_answers",
]


AnswerError = Literal[
    "no_call", "wrong_tool", "wrong_number", "missing_argument", "extra_argument", "wrong_value", "unwanted_call",
    "unparsable", "cut_off", "unfinished", "refused", "wrong_words",
]  # fmt: skip
"""Why an answer is wrong.

no_call            no tool is called where one should be
wrong_tool         another tool is called
wrong_number       the right tools are called too often or too seldom
missing_argument   the right tool is called without an argument that it needs
extra_argument     the right tool is called with an argument that the gold does not have
wrong_value        the arguments are the right ones, and a value is wrong
unwanted_call      a tool is called, in any markup, where none should be
unparsable         a call cannot be read, or thinking does not end
cut_off            the answer reached the limit of tokens
unfinished         the endpoint ended the answer for a reason of its own, such as a content filter
refused            the endpoint did not answer the row
wrong_words        the text is not what is asked for
"""
ERROR_NAMES: dict[AnswerError, str] = {
    "no_call": "no call",
    "wrong_tool": "wrong tool",
    "wrong_number": "too many or too few calls",
    "missing_argument": "missing argument",
    "extra_argument": "extra argument",
    "wrong_value": "wrong value",
    "unwanted_call": "call where none was wanted",
    "unparsable": "call that cannot be read",
    "cut_off": "cut off",
    "unfinished": "ended by the endpoint",
    "refused": "refused by the endpoint",
    "wrong_words": "wrong words",
}


class JudgedAnswer(Part):
    """A language model's answer to one test row, and how it was judged.

    prompt          last message of the user
    text            raw answer, with tool calls in the model's own syntax
    finish_reason   `stop`; `length` for an answer that was cut off; `unfinished` or `refused` where an endpoint ended
                    or refused it
    exact           whether the answer is right; None for a row that does not say what is right
    parses          whether tool calls in it could be read
    schema_valid    whether tool calls fit the tools' schemas; None for an answer that calls no tool
    expected        the right answer, for a person to read
    served          the judged reading, which users of llama.cpp's chat endpoint get, where potstill reads other calls
                    or words in the text; None where both agree, and for other models
    error           why the answer is wrong; None for one that is right or not judged
    tools           names of the tools that should be called, each once
    group           the row's group; None for a row without one
    confidence      the model's own probability of this answer: the product of its tokens' probabilities at temperature
                    1; None where they are not known
    """

    row_id: str
    behaviour: str
    prompt: str
    text: str
    finish_reason: str
    exact: bool | None
    parses: bool
    schema_valid: bool | None
    expected: str
    served: str | None = None
    error: AnswerError | None = None
    tools: tuple[str, ...] = ()
    group: str | None = None
    confidence: float | None = None


class ClassifiedRow(Part):
    """A classifier's answer to one test row: the text, its right label, the predicted one and its probability."""

    text: str
    label: str
    predicted: str
    confidence: float

    @property
    def exact(self) -> bool:
        """Whether the prediction is right."""
        return self.label == self.predicted


AnswerT = TypeVar("AnswerT", JudgedAnswer, ClassifiedRow)


def answers_file(model: str) -> str:
    """File name of a model's answers in the evaluate step's directory."""
    return f"answers-{model}.jsonl"


def write_answers(path: Path, answers: Sequence[Part]) -> None:
    """Write answers, one per line, whole or not at all."""
    write_text(path, "".join(answer.model_dump_json() + "\n" for answer in answers))


def read_answers(path: Path, kind: type[AnswerT]) -> list[AnswerT]:
    """Answers of one model, in the order of the test rows.

    Raises:
        StepError: a line is not an answer of this kind.
    """
    return read_parts(path, kind)
