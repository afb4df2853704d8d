"""May it ship: what the licences of teacher, base student and data say of a student, before a token is paid for.

Three answers, and it fails closed: allowed, allowed with obligations, blocked or unknown. Facts are in licences.toml,
each with its source and the date it was entered. It is not legal advice.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from potstill.recipe import Recipe

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["ALLOWED", "BLOCKED", "OBLIGATIONS", "Verdict", "licence_verdict", "render_licences"]

ALLOWED, OBLIGATIONS, BLOCKED = "allowed", "allowed with obligations", "blocked or unknown"
_OPEN = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Verdict:
    """The answer for a whole chain.

    obligations    what whoever ships the student must do: the union over all parts
    reasons        one sentence for each part, with its source
    """

    answer: str
    obligations: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    commercial: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "answer": self.answer,
            "commercial": self.commercial,
            "obligations": list(self.obligations),
            "reasons": list(self.reasons),
        }


@dataclass
class _Chain:
    blocked: bool = False
    commercial: bool = True
    obligations: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    prefixes: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, terms: Mapping[str, Any] | None, tag: str, use: Literal["outputs", "weights"]) -> None:
        """One part of the chain."""
        if terms is None:
            self.blocked = True
            why = "no licence is named" if tag == "unknown" else f"nothing is known of {tag!r}"
            self.reasons.append(f"{what}: {why}, so it is not cleared.")
            return
        answer = terms.get(use, "blocked")
        self.blocked |= answer == "blocked"
        self.commercial &= terms.get("commercial", True)
        words = {"allowed": ALLOWED, "obligations": OBLIGATIONS, "blocked": "blocked"}[answer]
        only = "" if terms.get("commercial", True) else ", and not for business"
        self.reasons.append(f"{what} ({tag}): its {use} are {words}{only}; {terms['source']}, {terms['entered']}.")
        if answer == "obligations":
            self.obligations += [o for o in terms.get("obligations", ()) if o not in self.obligations]
            if prefix := terms.get("name_prefix"):
                self.prefixes[prefix] = what


@cache
def _terms() -> tuple[dict[str, Any], ...]:
    text = resources.files("potstill.plan").joinpath("licences.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["terms"])


def _by_tag(tag: str) -> dict[str, Any] | None:
    return next((row for row in _terms() if tag.lower() in row.get("tags", ())), None)


def _by_host(host: str) -> dict[str, Any] | None:
    return next((row for row in _terms() if host in row.get("hosts", ())), None)


def licence_verdict(recipe: Recipe) -> Verdict:
    """The planned chain: the teacher's outputs, the weights that the student starts from, the data.

    A hosted endpoint is judged by its own terms, one on this machine by the licence of its model.
    """
    chain, teacher = _Chain(), recipe.teacher
    host = urlsplit(teacher.base_url).hostname or "" if teacher.base_url else ""
    if teacher.kind == "api" and host not in _OPEN:
        chain.add(f"the endpoint {host}", _by_host(host), f"terms of {host}", "outputs")
    else:
        chain.add("the teacher", _by_tag(teacher.license), teacher.license, "outputs")
    if recipe.student.init == "teacher_layers":
        chain.add("the teacher's layers", _by_tag(teacher.license), teacher.license, "weights")
    elif recipe.student.init == "checkpoint":
        chain.add("the base student", _by_tag(recipe.student.license), recipe.student.license, "weights")
    chain.add("the data", _by_tag(recipe.data.license), recipe.data.license, "outputs")
    for prefix, what in chain.prefixes.items():
        if not recipe.name.lower().startswith(prefix.lower()):
            chain.reasons.append(f"The recipe's name must begin with {prefix!r}, which {what} asks: set name.")
    if len(chain.prefixes) > 1:
        chain.blocked = True
        chain.reasons.append(f"Two names are asked for at once: {', '.join(chain.prefixes)}.")
    answer = BLOCKED if chain.blocked else OBLIGATIONS if chain.obligations or not chain.commercial else ALLOWED
    return Verdict(answer, tuple(chain.obligations), tuple(chain.reasons), chain.commercial)


def render_licences(verdict: Mapping[str, Any]) -> RenderableType:
    """A verdict's `to_json` for a terminal: the answer, why, and what is to be done."""
    from rich.console import Group
    from rich.text import Text

    style = {ALLOWED: "green", OBLIGATIONS: "yellow"}.get(verdict["answer"], "red")
    head = Text("May it ship: ", style="bold").append(verdict["answer"], style=f"bold {style}")
    if not verdict["commercial"]:
        head.append(", and not for business")
    lines = [f"- {reason}" for reason in verdict["reasons"]]
    if verdict["obligations"]:
        lines += ["Whoever ships it must:", *(f"- {duty}" for duty in verdict["obligations"])]
    return Group(head, *map(Text, lines), Text("Facts as entered in licences.toml; not legal advice."))
