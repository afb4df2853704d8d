"""A licence verdict, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potstill.components.licences.licences import ALLOWED, OBLIGATIONS, LicenceVerdict

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["render_licences"]


def render_licences(verdict: LicenceVerdict) -> RenderableType:
    """The answer, the reasons, and what whoever ships the student must do."""
    from rich.console import Group
    from rich.text import Text

    style = {ALLOWED: "green", OBLIGATIONS: "yellow"}.get(verdict.answer, "red")
    head = Text("May it ship: ", style="bold").append(verdict.answer, style=f"bold {style}")
    if not verdict.commercial:
        head.append(", for non-commercial use only")
    lines = [f"- {reason}" for reason in verdict.reasons]
    if verdict.obligations:
        lines += ["Whoever ships it must:", *(f"- {duty}" for duty in verdict.obligations)]
    return Group(head, *map(Text, lines), Text("Facts as entered in licences.toml; not legal advice."))
