"""What an item of a suite expects of an answer: one class per kind."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from potstill.components.checkers.instructions import check_instruction
from potstill.core.artifacts.base import Part
from potstill.core.records import GoldCall
from potstill.core.words import printable

__all__ = [
    "KINDS",
    "Calls",
    "Clarification",
    "Constraints",
    "ContainsAll",
    "Exact",
    "Expected",
    "FitsSchema",
    "Numeric",
    "OneOf",
    "Refusal",
    "Regex",
    "Rule",
]

_NUMBER = re.compile(r"-?(\d{1,18}(\.\d{0,18})?|\.\d{1,18})(e[-+]?\d{1,2}|/\d{1,18})?", re.ASCII | re.IGNORECASE)

Texts: TypeAlias = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class Exact(Part):
    """The answer has these words and no others; case counts, spacing does not."""

    kind: Literal["exact"] = "exact"
    text: str = Field(min_length=1)


class OneOf(Part):
    """The answer is one of these texts; case and spacing do not count."""

    kind: Literal["one_of"] = "one_of"
    texts: Texts


class Regex(Part):
    """The pattern is found in the answer, case ignored, where the answer does not deny it."""

    kind: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1)


class FitsSchema(Part):
    """The whole answer is a JSON value that fits the JSON Schema.

    json_schema   the schema
    fenced        whether a code fence around the JSON is accepted
    """

    kind: Literal["schema"] = "schema"
    json_schema: dict[str, Any]
    fenced: bool = False


class Calls(Part):
    """These tools are called, in any order, and no others; without calls, the answer must be in words."""

    kind: Literal["calls"] = "calls"
    calls: tuple[GoldCall, ...] = ()


class Numeric(Part):
    """The answer ends in this number: the number after the last `####`, in the last `\\boxed{}`, or else the last one.

    value       an integer, a decimal or a fraction, as text: "18", "-1.5", "3/4"
    tolerance   largest difference that is still right, as the value
    """

    kind: Literal["numeric"] = "numeric"
    value: str
    tolerance: str = "0"

    @field_validator("value", "tolerance", mode="before")
    @classmethod
    def _is_number(cls, value: Any) -> str:
        text = str(value).strip()
        try:
            if not _NUMBER.fullmatch(text):
                raise ValueError
            Fraction(text)
        except (ValueError, ZeroDivisionError):
            shown = printable(repr(text), 40)
            raise ValueError(f"{shown} is not a number of up to 18 digits; write it as 18, -1.5 or 3/4") from None
        return text

    @field_validator("tolerance")
    @classmethod
    def _is_not_negative(cls, value: str) -> str:
        if Fraction(value) < 0:
            raise ValueError(f"{value} is below 0")
        return value

    @property
    def number(self) -> Fraction:
        """The value."""
        return Fraction(self.value)

    @property
    def margin(self) -> Fraction:
        """The tolerance."""
        return Fraction(self.tolerance)


class Refusal(Part):
    """The answer declines, calls no tool and asks for nothing; with `match`, in words that the pattern finds."""

    kind: Literal["refusal"] = "refusal"
    match: str | None = None


class Clarification(Part):
    """The answer asks for what is missing and calls no tool; with `match`, in words that the pattern finds."""

    kind: Literal["clarification"] = "clarification"
    match: str | None = None


class ContainsAll(Part):
    """The answer contains every one of these texts, and none of the others; case and spacing do not count."""

    kind: Literal["contains_all"] = "contains_all"
    texts: Texts
    absent: tuple[Annotated[str, Field(min_length=1)], ...] = ()


class Rule(Part):
    """An instruction on the form of an answer, by IFEval's name, with its parameters."""

    name: str
    values: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_known(self) -> Rule:
        check_instruction(self.name, self.values)
        return self


class Constraints(Part):
    """The answer follows every one of these instructions on its form."""

    kind: Literal["constraints"] = "constraints"
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]


Expected: TypeAlias = Annotated[
    Exact | OneOf | Regex | FitsSchema | Calls | Numeric | Refusal | Clarification | ContainsAll | Constraints,
    Field(discriminator="kind"),
]
KINDS = (
    "exact", "one_of", "regex", "schema", "calls", "numeric", "refusal", "clarification", "contains_all", "constraints",
)  # fmt: skip
"""The names of all kinds."""
