"""The recipe's section on how the teacher answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from potstill.core.recipe.fields import Count, NotNegative, Section, Share

__all__ = ["AnswerChecker", "Generate", "RowFilterName", "UnknownAnswers", "Verify"]

AnswerChecker = Literal["calls", "gold", "values", "agreement"]
UnknownAnswers = Literal["keep", "reject"]
RowFilterName = Literal["pii", "refusal", "near_duplicates", "decontamination"]


def _keeps_unknown(value: Any) -> Any:
    return dict.fromkeys(value, "keep") if isinstance(value, list) else value


Verify = Annotated[dict[AnswerChecker, UnknownAnswers], BeforeValidator(_keeps_unknown)]
"""Checkers of the teacher's answers, each with what becomes of the answers that it cannot judge."""


def _certain() -> Verify:
    """The checkers that fail an answer only where the row itself says that it is wrong."""
    return {"calls": "keep", "gold": "keep"}


class Generate(Section):
    """How models answer, in the training data and in the evaluation."""

    max_new_tokens: Count = 128
    """Maximum length of an answer, in tokens; default: 128."""
    temperature: NotNegative = 0.0
    """Sampling temperature, where 0 is greedy decoding; default: 0."""
    top_p: Share = 1.0
    """Probability mass of the nucleus that is sampled from; default: 1."""
    samples: Annotated[int, Field(ge=0)] = 1
    """Number of answers to each of data.prompts, each of which becomes a row to learn from, where more than one needs a
    temperature above 0, and 0 learns from the answers that the rows have without asking the teacher; default: 1."""
    batch_size: Count = 64
    """Number of rows that a local teacher decodes together; default: 64."""
    keep_truncated: bool = False
    """Whether answers cut off at max_new_tokens are kept and learnt without an end token, as text continuation needs;
    default: no."""
    verify: Verify = Field(default_factory=_certain)
    """Checkers whose verdict `fail` rejects an answer, each with what becomes of the answers that it cannot judge
    (`keep` or `reject`), where a list of names keeps these: `calls` (each call can be read, names a tool of the row
    and fits its schema), `gold` (the row's own gold and behaviour), `values` (values of calls stand in the prompt) and
    `agreement` (the majority of at least 3 generate.samples); default: {calls: keep, gold: keep}."""

    filters: tuple[RowFilterName, ...] = ()
    """Filters that drop answered rows, in their order: `pii` (personal data, by patterns), `refusal` (the answer
    declines where none is due), `near_duplicates` (the prompt is nearly that of an earlier row) and `decontamination`
    (the prompt is nearly that of a test row); default: none."""

    @model_validator(mode="after")
    def _samples_agree(self) -> Self:
        if "agreement" in self.verify and self.samples in (1, 2):
            raise ValueError(
                f"generate.verify: agreement needs at least 3 answers to a prompt for a majority, and "
                f"generate.samples is {self.samples}: set generate.samples: 3 and a temperature above 0, or leave "
                "agreement out"
            )
        return self

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"generate.samples: {self.samples} answers to a prompt are all the same at temperature 0: set "
                "generate.temperature, for example to 0.8, or leave samples out"
            )
        return self
