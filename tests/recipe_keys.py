"""The keys of a recipe."""

from __future__ import annotations

from pydantic import BaseModel

from potstill.core.recipe.problems import sections_of


def leaf_keys(kind: type[BaseModel], prefix: str = "") -> set[str]:
    """Dotted paths of all keys that hold no section, over all kinds of each choice."""
    found = set()
    for name, field in kind.model_fields.items():
        sections = sections_of(field).values()
        found |= {key for section in sections for key in leaf_keys(section, f"{prefix}{name}.")} or {f"{prefix}{name}"}
    return found
