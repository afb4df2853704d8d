"""The file that `data.curriculum` names: the task, axes with quotas, operators and templates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from potstill.core.errors import RecipeError
from potstill.core.files import read_text
from potstill.core.recipe.fields import Count, NotNegative, OneLine, Section
from potstill.core.recipe.problems import first_problem, line_of
from potstill.core.recipe.yaml_text import BadYaml, read_yaml
from potstill.core.records import BEHAVIOURS
from potstill.core.words import nearest_hint

__all__ = ["CODE_OPERATORS", "TEACHER_OPERATORS", "AxisValue", "CodeOperator", "Curriculum", "Quota", "TeacherOperator"]

TeacherOperator = Literal["self_instruct", "broader", "deeper", "paraphrase", "persona", "slot_grid"]
CodeOperator = Literal["typos", "truncation", "mixed_language", "bullets", "pasted_log", "missing_information"]
TEACHER_OPERATORS: tuple[TeacherOperator, ...] = get_args(TeacherOperator)
CODE_OPERATORS: tuple[CodeOperator, ...] = get_args(CodeOperator)

_MOST_BYTES = 200_000
_REQUESTS_PER_ROW = 4
"""Prompts that are written for each row of the quotas at most, where the curriculum has no limit."""


class AxisValue(Section):
    """A value of an axis."""

    rows: Annotated[int, Field(ge=0)] = 0
    """Quota: number of accepted rows with this value; default: 0."""
    text: str = ""
    """What the value means, in words for the teacher that writes prompts; default: its name."""
    operator: CodeOperator | None = None
    """Operator that makes the value: prompts without it are changed by code; default: none."""
    default: bool = False
    """Whether rows that say nothing of the axis have this value; default: no."""


class Quota(Section):
    """A quota for rows with several values."""

    of: dict[str, str]
    """Value of each axis that counts; required."""
    rows: Count
    """Number of accepted rows; required."""


def _bare_rows(value: Any) -> Any:
    return {"rows": value} if isinstance(value, int) and not isinstance(value, bool) else value


class Curriculum(Section):
    """What the accepted rows must cover, and how prompts are written until they do."""

    format: Literal[1]
    """Format of the file: 1; required."""
    id: Annotated[OneLine, Field(min_length=1)]
    """Name of the set of prompts; required."""
    version: Count
    """Version of the set, which you raise when you change the file; required."""
    task: Annotated[str, Field(min_length=1)]
    """The task in words, for the teacher that writes prompts; required."""
    axes: Annotated[dict[str, dict[str, Annotated[AxisValue, BeforeValidator(_bare_rows)]]], Field(min_length=1)]
    """Values of each axis with their quotas, where `behaviour`, `label` and `tool` are read from the rows' golds and
    any other axis from `provenance.coverage`; required."""
    quotas: tuple[Quota, ...] = ()
    """Quotas for rows with several values; default: none."""
    operators: tuple[TeacherOperator, ...] = ()
    """Operators that ask the teacher for prompts: `self_instruct`, `broader`, `deeper`, `paraphrase`, `persona` and
    `slot_grid`; default: none, and prompts are changed by code only."""
    personas: tuple[OneLine, ...] = ()
    """People in whose words `persona` writes; default: a built-in list."""
    templates: dict[TeacherOperator, str] = Field(default_factory=dict)
    """Jinja templates in place of the built-in ones, by operator; default: the built-in ones."""
    temperature: NotNegative = 0.8
    """Sampling temperature of the teacher when it writes prompts; default: 0.8."""
    limit: Count | None = None
    """Maximum number of prompts that are written; default: 4 for each row of the quotas."""

    @model_validator(mode="after")
    def _values_exist(self) -> Self:
        for name, values in self.axes.items():
            if sum(value.default for value in values.values()) > 1:
                raise ValueError(f"axes.{name} has two values with default: true; a row has one of them")
        if unknown := [value for value in self.axes.get("behaviour", ()) if value not in BEHAVIOURS]:
            raise ValueError(f"axes.behaviour: {unknown[0]!r}: {nearest_hint(unknown[0], BEHAVIOURS)}")
        for place, quota in enumerate(self.quotas):
            for axis, value in quota.of.items():
                if value not in self.axes.get(axis, {}):
                    raise ValueError(f"quotas.{place}.of: {axis}: {value} is not a value of an axis")
        if not any(cell.rows for cell in self.cells):
            raise ValueError("axes: no value has a quota; write the number of rows after each value")
        return self

    @property
    def name(self) -> str:
        """Id and version, as in the provenance of rows."""
        return f"{self.id}@{self.version}"

    @property
    def cells(self) -> tuple[Quota, ...]:
        """All quotas: those of single values in the order of the axes, then the others."""
        single = (
            Quota(of={axis: value}, rows=each.rows)
            for axis, values in self.axes.items()
            for value, each in values.items()
            if each.rows
        )
        return (*single, *self.quotas)

    @property
    def most_prompts(self) -> int:
        """Maximum number of prompts that are written."""
        return self.limit or _REQUESTS_PER_ROW * sum(cell.rows for cell in self.cells)

    @classmethod
    def read(cls, path: Path) -> Curriculum:
        """The curriculum in a YAML file.

        Raises:
            RecipeError: the file is absent, not YAML, or not a valid curriculum; the message names file and line.
        """
        advice = "data.curriculum must name a YAML file; docs/howto/curriculum.md shows one."
        text = read_text(path, error=RecipeError, advice=advice, most_bytes=_MOST_BYTES)
        try:
            value = read_yaml(text)
        except BadYaml as error:
            raise RecipeError(f"{path}: not valid YAML: {error}.") from None
        if not isinstance(value, Mapping):
            raise RecipeError(f"{path}: a curriculum is a mapping. {advice}")
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            problem = first_problem(error, cls)
            line = line_of(text, problem.path)
            raise RecipeError(f"{path}:{line}: {problem}" if line else f"{path}: {problem}") from None
