"""May it ship: what the licences of teacher, base student, tokenizer and data say of it, before a token is paid for.

Three answers, and it fails closed: allowed, allowed with obligations, blocked or unknown. Facts are in licences.toml,
each with its source and the date it was entered. It is not legal advice.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from potstill.core.recipe import Recipe, Teacher

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["ALLOWED", "BLOCKED", "OBLIGATIONS", "Verdict", "judged_by_terms", "licence_verdict", "render_licences"]

ALLOWED, OBLIGATIONS, BLOCKED = "allowed", "allowed with obligations", "blocked or unknown"


@dataclass(frozen=True)
class Verdict:
    """The answer for a whole chain.

    obligations    what whoever ships the student must do: the union over all parts
    reasons        one sentence for each part, with its source
    problems       those of them that block it, but for parts of which no licence is named
    """

    answer: str
    obligations: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    commercial: bool = True
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "answer": self.answer,
            "commercial": self.commercial,
            "obligations": list(self.obligations),
            "reasons": list(self.reasons),
            "problems": list(self.problems),
        }


@dataclass
class _Chain:
    own: str | None
    """Tag of the weights that the student starts from."""
    blocked: bool = False
    commercial: bool = True
    obligations: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    prefixes: dict[str, str] = field(default_factory=dict)

    def stop(self, reason: str) -> None:
        """A reason that blocks it."""
        self.blocked = True
        self.reasons.append(reason)
        self.problems.append(reason)

    def add(self, what: str, terms: Mapping[str, Any] | None, tag: str, use: Literal["outputs", "weights"]) -> None:
        """One part of the chain."""
        if tag == "unknown":
            self.blocked = True
            self.reasons.append(f"{what}: no licence is named, so it is not cleared.")
            return
        if terms is None:
            self.stop(f"{what}: nothing is known of {tag!r}, so it is not cleared.")
            return
        answer = terms.get(use, "blocked")
        if use == "outputs" and self.own in terms.get("tags", ()):
            answer = terms.get("outputs_of_own", answer)
        words = {"allowed": ALLOWED, "obligations": OBLIGATIONS, "blocked": "blocked"}[answer]
        only = "" if terms.get("commercial", True) else ", and not for business"
        reason = f"{what} ({tag}): its {use} are {words}{only}; {terms['source']}, {terms['entered']}."
        if answer == "blocked":
            self.stop(reason)
            return
        self.commercial &= terms.get("commercial", True)
        self.reasons.append(reason)
        if answer == "obligations":
            self.obligations += [o for o in terms.get("obligations", ()) if o not in self.obligations]
            if prefix := terms.get("name_prefix"):
                self.prefixes[prefix] = what


@cache
def _terms() -> tuple[dict[str, Any], ...]:
    text = resources.files("potstill.components.licences").joinpath("licences.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["terms"])


def _by_tag(tag: str) -> dict[str, Any] | None:
    return next((row for row in _terms() if tag.lower() in row.get("tags", ())), None)


def _by_host(host: str) -> dict[str, Any] | None:
    return next((row for row in _terms() if host in row.get("hosts", ())), None)


def _host(teacher: Teacher) -> str:
    return (urlsplit(teacher.base_url).hostname or "") if teacher.base_url else ""


def judged_by_terms(teacher: Teacher) -> bool:
    """Whether a teacher is somebody else's service: not on this machine, nor in a network of one's own."""
    host = _host(teacher)
    try:
        return teacher.kind == "api" and not ipaddress.ip_address(host).is_private
    except ValueError:
        own = host == "localhost" or "." not in host or host.endswith((".localhost", ".local", ".internal", ".lan"))
        return teacher.kind == "api" and not own


def licence_verdict(recipe: Recipe) -> Verdict:
    """The planned chain: the teacher's outputs, the weights that the student starts from, its tokenizer, the data.

    A hosted endpoint is judged by its own terms, one of your own (this machine, a private network) by the licence of
    its model.
    """
    teacher, student = recipe.teacher, recipe.student
    starts = {"teacher_layers": teacher.license, "checkpoint": student.license}.get(student.init)
    chain = _Chain(starts.lower() if starts else None)
    if judged_by_terms(teacher):
        host = _host(teacher)
        chain.add(f"the endpoint {host}", _by_host(host), f"terms of {host}", "outputs")
    else:
        chain.add("the teacher", _by_tag(teacher.license), teacher.license, "outputs")
    if student.init == "checkpoint":
        chain.add("the base student with its tokenizer", _by_tag(student.license), student.license, "weights")
    else:
        what = "the teacher's tokenizer" if student.init == "scratch" else "the teacher's layers and tokenizer"
        chain.add(what, _by_tag(teacher.license), teacher.license, "weights")
    chain.add("the data", _by_tag(recipe.data.license), recipe.data.license, "outputs")
    for prefix, what in chain.prefixes.items():
        if not _plain(recipe.name).startswith(_plain(prefix)):
            chain.reasons.append(f"The recipe's name must begin with {prefix!r}, which {what} asks: set name.")
    longest = max(chain.prefixes, key=len, default="")
    if not all(longest.startswith(prefix) for prefix in chain.prefixes):
        chain.stop(f"Two names are asked for at once: {', '.join(chain.prefixes)}.")
    bound = chain.obligations or not chain.commercial
    answer = BLOCKED if chain.blocked else OBLIGATIONS if bound else ALLOWED
    return Verdict(answer, tuple(chain.obligations), tuple(chain.reasons), chain.commercial, tuple(chain.problems))


def _plain(name: str) -> str:
    """As names are compared: a recipe's has dashes where a licence has blanks."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


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
