"""Whether a student may be shipped, by the licences of teacher, base student, tokenizer and data.

There are three answers: allowed, allowed with obligations, blocked or unknown. What is unknown is not cleared. The
facts are in licences.toml, each with its source and the month in which it was entered. This is not legal advice.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Literal
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from potstill.core.recipe import AnyRecipe, ApiTeacher, ClassifierRecipe, LocalTeacher, Recipe, Teacher

__all__ = [
    "ALLOWED", "BLOCKED", "OBLIGATIONS", "Answer", "Chain", "LicenceVerdict", "Terms", "is_hosted", "licence_verdict",
    "load_terms", "teacher_licences",
]  # fmt: skip

Answer = Literal["allowed", "allowed with obligations", "blocked or unknown"]
ALLOWED: Answer = "allowed"
OBLIGATIONS: Answer = "allowed with obligations"
BLOCKED: Answer = "blocked or unknown"

Use = Literal["outputs", "weights", "data"]
_SUBJECTS: dict[Use, str] = {
    "outputs": "training on its outputs is",
    "weights": "building on its weights is",
    "data": "training on it is",
}


@dataclass(frozen=True)
class Terms:
    """An entry of licences.toml, which explains the fields."""

    source: str
    entered: str
    tags: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    outputs: str = "blocked"
    weights: str = "blocked"
    outputs_of_own: str | None = None
    commercial: bool = True
    obligations: tuple[str, ...] = ()
    name_prefix: str | None = None


@dataclass(frozen=True)
class LicenceVerdict:
    """The answer for a whole chain.

    commercial     False where the student may be used for non-commercial purposes only
    obligations    what whoever ships the student must do: the union over all parts of the chain
    reasons        one sentence per part, with its source
    problems       those reasons that block the student, except for parts whose licence is not named
    """

    answer: Answer
    commercial: bool = True
    obligations: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass
class Chain:
    """The parts that a student is made of, added one by one.

    own   licence tag of the weights that the student starts from
    """

    own: str | None
    blocked: bool = False
    commercial: bool = True
    obligations: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    prefixes: dict[str, str] = field(default_factory=dict)

    def block(self, reason: str) -> None:
        """Block the student for a reason."""
        self.blocked = True
        self.reasons.append(reason)
        self.problems.append(reason)

    def add(self, what: str, terms: Terms | None, tag: str, use: Use) -> None:
        """Add one part, which is used under these terms."""
        if tag == "unknown":
            self.blocked = True
            self.reasons.append(
                f"{what}: no licence is named, so it is not cleared. Name it in the recipe, in licenses."
            )
            return
        if terms is None:
            self.block(f"{what}: nothing is known about {tag!r}, so it is not cleared.")
            return
        answer = terms.weights if use == "weights" else terms.outputs
        if use != "weights" and terms.outputs_of_own and self.own in terms.tags:
            answer = terms.outputs_of_own
        words = {"allowed": ALLOWED, "obligations": OBLIGATIONS, "blocked": "blocked"}[answer]
        only = "" if terms.commercial else ", for non-commercial use only"
        reason = f"{what} ({tag}): {_SUBJECTS[use]} {words}{only}; {terms.source}, {terms.entered}."
        if answer == "blocked":
            self.block(reason)
            return
        self.commercial &= terms.commercial
        self.reasons.append(reason)
        if answer == "obligations":
            self.obligations += [duty for duty in terms.obligations if duty not in self.obligations]
            if terms.name_prefix:
                self.prefixes[terms.name_prefix] = what


@cache
def load_terms() -> tuple[Terms, ...]:
    """Every entry of licences.toml."""
    text = resources.files("potstill.components.licences").joinpath("licences.toml").read_text(encoding="utf-8")
    return TypeAdapter(tuple[Terms, ...]).validate_python(tomllib.loads(text)["terms"])


def _by_tag(tag: str) -> Terms | None:
    return next((terms for terms in load_terms() if tag.lower() in terms.tags), None)


def _by_host(host: str) -> Terms | None:
    return next((terms for terms in load_terms() if host in terms.hosts), None)


def _host(teacher: Teacher) -> str:
    return (urlsplit(teacher.base_url).hostname or "") if teacher.base_url else ""


def is_hosted(teacher: Teacher) -> bool:
    """Whether a teacher is somebody else's service: neither on this machine nor in a private network."""
    host = _host(teacher)
    try:
        return teacher.kind == "api" and not ipaddress.ip_address(host).is_private
    except ValueError:
        private = host == "localhost" or "." not in host or host.endswith((".localhost", ".local", ".internal", ".lan"))
        return teacher.kind == "api" and not private


def teacher_licences(recipe: Recipe) -> list[tuple[LocalTeacher | ApiTeacher, str]]:
    """Each teacher with its licence, or "unknown"; a hosted endpoint is judged by its own terms instead."""
    named = recipe.licenses.get("teacher", "unknown")
    members = [(member, member.license or named) for member in recipe.member_teachers]
    return list(members) or [(recipe.lead_teacher, named)]


def licence_verdict(recipe: AnyRecipe) -> LicenceVerdict:
    """The verdict on the teacher's outputs, the weights that the student starts from, its tokenizer, and the data.

    A hosted endpoint is judged by its own terms, a private one (this machine, a private network) by the licence of its
    model. A classifier learns from the teacher's outputs and keeps some of its layers.
    """
    chain = _language_chain(recipe) if isinstance(recipe, Recipe) else _classifier_chain(recipe)
    data = recipe.license_of("data")
    chain.add("the data", _by_tag(data), data, "data")
    _check_name(recipe.name, chain)
    bound = chain.obligations or not chain.commercial
    return LicenceVerdict(
        answer=BLOCKED if chain.blocked else OBLIGATIONS if bound else ALLOWED,
        commercial=chain.commercial,
        obligations=tuple(chain.obligations),
        reasons=tuple(chain.reasons),
        problems=tuple(chain.problems),
    )


def _classifier_chain(recipe: ClassifierRecipe) -> Chain:
    licence = recipe.license_of("teacher")
    chain = Chain(licence.lower())
    chain.add("the teacher", _by_tag(licence), licence, "outputs")
    chain.add("the teacher's layers and tokenizer", _by_tag(licence), licence, "weights")
    return chain


def _language_chain(recipe: Recipe) -> Chain:
    student = recipe.student
    licence, base = (recipe.license_of(part) for part in ("teacher", "student"))
    starts = {"teacher_layers": licence, "checkpoint": base}.get(student.init)
    chain = Chain(starts.lower() if starts else None)
    for member, own in teacher_licences(recipe):
        if is_hosted(member):
            host = _host(member)
            chain.add(f"the endpoint {host}", _by_host(host), f"terms of {host}", "outputs")
        else:
            what = f"the teacher {member.model}" if recipe.member_teachers else "the teacher"
            chain.add(what, _by_tag(own), own, "outputs")
    if student.init == "checkpoint":
        chain.add("the base student with its tokenizer", _by_tag(base), base, "weights")
    else:
        what = "the teacher's tokenizer" if student.init == "scratch" else "the teacher's layers and tokenizer"
        chain.add(what, _by_tag(licence), licence, "weights")
    return chain


def _check_name(name: str, chain: Chain) -> None:
    """Add what the licences say of the student's name."""
    for prefix, what in chain.prefixes.items():
        if not _plain(name).startswith(_plain(prefix)):
            chain.reasons.append(f"The recipe's name must begin with {prefix!r}, as {what} requires: set name.")
    longest = max(chain.prefixes, key=len, default="")
    if not all(longest.startswith(prefix) for prefix in chain.prefixes):
        chain.block(f"The licences require different names at once: {', '.join(chain.prefixes)}.")


def _plain(name: str) -> str:
    """A name as it is compared: a recipe's has dashes where a licence has spaces."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
