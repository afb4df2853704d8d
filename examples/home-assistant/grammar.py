"""Read the phrasing files: sections, their splits, and the wordings that one line stands for."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["SPLITS", "Phrasing", "Section", "read_phrasings"]

SPLITS = ("train", "validation", "test")
_CHOICE = re.compile(r"\(([^()]*)\)")


@dataclass(frozen=True)
class Phrasing:
    """One line: its wordings with slots in braces, whether it is a command, and arguments that the wording implies."""

    name: str
    wordings: tuple[str, ...]
    order: bool
    implied: tuple[tuple[str, str | int], ...]

    @property
    def pairs(self) -> bool:
        """Whether the line makes two calls: it has a slot with the number 2."""
        return "2}" in self.wordings[0]


@dataclass
class Section:
    """A group of phrasings with the same kind of answer."""

    kind: str
    target: str
    missing: str = ""
    ask: str = ""
    match: str = ""
    phrasings: dict[str, list[Phrasing]] = field(default_factory=lambda: {split: [] for split in SPLITS})

    @property
    def name(self) -> str:
        """For example `tool set_light` or `clarify set_light room`."""
        return " ".join(part for part in (self.kind, self.target, self.missing) if part)


def _value(text: str) -> str | int:
    return int(text) if text.isdigit() else text


def _phrasing(line: str, name: str) -> Phrasing:
    line, _, implied = line.partition("=>")
    order = not line.startswith("~")
    parts = _CHOICE.split(line.strip().removeprefix("~"))
    choices = [part.split("|") if index % 2 else [part] for index, part in enumerate(parts)]
    wordings = tuple(" ".join("".join(chosen).split()) for chosen in itertools.product(*choices))
    pairs = (pair.strip().split("=") for pair in implied.split(",") if pair.strip())
    return Phrasing(name, wordings, order, tuple((key, _value(value)) for key, value in pairs))


def read_phrasings(folder: Path, files: str = "*.txt") -> list[Section]:
    """All sections of the folder's files of these names.

    Raises:
        ValueError: a line comes before the first section or the first split.
    """
    sections: list[Section] = []
    for path in sorted(folder.glob(files)):
        split = ""
        for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            if line.startswith("["):
                kind, target, *missing = line.strip("[]").split()
                sections.append(Section(kind, target, missing[0] if missing else ""))
                split = ""
            elif line in SPLITS:
                split = line
            elif line.startswith(("ask = ", "match = ")):
                key, _, value = line.partition(" = ")
                setattr(sections[-1], key, value)
            elif not sections or not split:
                raise ValueError(f"{path}:{number}: a phrasing must come after a [section] and a split.")
            else:
                section = sections[-1]
                name = f"{section.name.replace(' ', '.')}/{split}/{len(section.phrasings[split])}"
                section.phrasings[split].append(_phrasing(line, name))
    return sections
