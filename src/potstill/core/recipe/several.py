"""The recipe's section on several teachers, which answer by a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from potstill.core.recipe.fields import COSMETIC, ELSEWHERE, NotNegative, OneLine, Section, shorthand
from potstill.core.recipe.teacher import ApiTeacher, LocalTeacher
from potstill.core.recipe.terms import TokenPrice

__all__ = ["MemberTeacher", "Policy", "SeveralTeachers", "Teacher"]

Policy = Literal["cascade", "vote", "route"]


class MemberTeacher(ApiTeacher):
    """One of several teachers, behind an OpenAI-compatible endpoint."""

    kind: Literal["api"] = "api"
    """Kind of teacher; default: api, the only one."""
    tasks: tuple[OneLine, ...] = ()
    """Tasks of the rows that it answers with `policy: route`: `provenance.task` of a row, or else its behaviour;
    default: the rows that no other teacher names."""
    license: Annotated[OneLine | None, ELSEWHERE] = None
    """Licence of the model, as an SPDX identifier or the hub's tag; default: `licenses.teacher`."""
    prices: Annotated[dict[Literal["input", "output"], NotNegative], COSMETIC] = Field(default_factory=dict)
    """Prices of 10^6 tokens of its prompts (`input`) and answers (`output`); default: the built-in list."""

    @property
    def token_price(self) -> TokenPrice | None:
        """Price of its tokens, where the recipe has one."""
        return TokenPrice(self.prices["input"], self.prices["output"]) if self.prices else None

    @model_validator(mode="after")
    def _both_prices(self) -> Self:
        if len(self.prices) == 1:
            raise ValueError("prices.input and prices.output belong together: set both, or neither")
        return self


class SeveralTeachers(Section):
    """Several models behind OpenAI-compatible endpoints, which answer by a policy."""

    kind: Literal["several"]
    """Kind of teacher: `local`, `api` or `several`; default: several where there are `teachers`, or else local."""
    teachers: Annotated[tuple[MemberTeacher, ...], Field(min_length=2, max_length=8)]
    """The teachers, at least two, in the order in which they are asked; required."""
    policy: Policy = "cascade"
    """Who answers a prompt: `cascade` asks the next teacher where no checker of generate.verify passes an answer,
    `vote` asks all and takes the answer that is right by the row's gold or else that of more than half, and `route`
    asks the teacher of the row's task; default: cascade."""
    offline: Annotated[bool, COSMETIC, Field(exclude=True)] = False
    """Whether nothing is sent, so that every answer must be in the journals of earlier runs; default: no."""

    offload: ClassVar[None] = None
    finetune: ClassVar[None] = None
    base_url: ClassVar[None] = None

    @property
    def lead(self) -> MemberTeacher:
        """The teacher that the student is compared with: the last one of a cascade, or else the first."""
        return self.teachers[-1 if self.policy == "cascade" else 0]

    @property
    def model(self) -> str:
        """The names of all teachers."""
        return ", ".join(teacher.model for teacher in self.teachers)

    @model_validator(mode="after")
    def _teachers_differ(self) -> Self:
        if len({(teacher.base_url, teacher.model) for teacher in self.teachers}) < len(self.teachers):
            raise ValueError("two of the teachers have the same model and base_url: leave one out")
        return self

    @model_validator(mode="after")
    def _tasks_fit(self) -> Self:
        tasks = [task for teacher in self.teachers for task in teacher.tasks]
        if self.policy != "route":
            if tasks:
                raise ValueError(f"tasks are for policy: route, and the policy is {self.policy}: leave tasks out")
            return self
        if len(set(tasks)) < len(tasks):
            raise ValueError("a task is named by two teachers: name it once")
        if sum(not teacher.tasks for teacher in self.teachers) != 1:
            raise ValueError(
                "policy: route needs exactly one teacher without tasks, which answers the rows of all other tasks"
            )
        return self


def _several(value: Any) -> Any:
    """`kind: several` may be left out where there are teachers."""
    return {"kind": "several", **value} if isinstance(value, Mapping) and "teachers" in value else value


Teacher = Annotated[
    LocalTeacher | ApiTeacher | SeveralTeachers,
    Field(discriminator="kind"),
    shorthand("kind", default="local"),
    BeforeValidator(_several),
]
