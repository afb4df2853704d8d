"""How the shipped file was asked, and how its answers were read: through llama.cpp's chat endpoint, as users do."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.core.artifacts.readings import ReadingExample
from potstill.stages.report.facts import Facts
from potstill.stages.report.text import shorten

__all__ = ["ReadingsSection", "readings_section"]


@dataclass(frozen=True)
class ReadingsSection:
    """What the page says about prompts and readings, and one answer that is read in two ways."""

    sentences: tuple[str, ...]
    example: ReadingExample | None


def readings_section(facts: Facts) -> ReadingsSection | None:
    """None for a file that was not asked through the chat endpoint."""
    found = facts.metrics.models.gguf.readings
    if found is None:
        return None
    asked = (
        f"All {found.answers:,} test rows went through llama.cpp's chat endpoint with their tools, and each prompt has "
        "the token ids of training."
    )
    alike = "" if found.different else "The endpoint reads the same calls and words in each answer as potstill does."
    example = found.example and found.example.model_copy(
        update={"prompt": shorten(found.example.prompt), "text": shorten(found.example.text)}
    )
    return ReadingsSection(tuple(filter(None, (asked, found.sentence, alike))), example)
