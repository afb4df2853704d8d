"""How far the accepted rows of the generate stage cover what a curriculum asks for: coverage.json."""

from __future__ import annotations

from typing import ClassVar

from potstill.core.artifacts.base import Artifact, Part

__all__ = ["Coverage", "CoverageCell"]


class CoverageCell(Part):
    """One quota.

    of         value of each axis that counts
    quota      number of accepted rows that are asked for
    accepted   number of rows that have these values and are learnt from
    written    number of prompts with these values that were written for the curriculum
    """

    of: dict[str, str]
    quota: int
    accepted: int
    written: int = 0

    @property
    def missing(self) -> int:
        """Rows that the quota lacks."""
        return max(0, self.quota - self.accepted)

    @property
    def name(self) -> str:
        """The values in words."""
        return ", ".join(f"{axis}: {value}" for axis, value in self.of.items())


class Coverage(Artifact):
    """The quotas of a curriculum and the rows that meet them.

    curriculum   id and version of the curriculum
    rows         number of accepted rows
    written      number of prompts that were written
    cells        one for each quota
    """

    FILE: ClassVar[str] = "coverage.json"

    curriculum: str
    rows: int
    written: int
    cells: tuple[CoverageCell, ...]

    @property
    def unmet(self) -> tuple[CoverageCell, ...]:
        """The quotas that lack rows."""
        return tuple(cell for cell in self.cells if cell.missing)

    @property
    def sentence(self) -> str:
        """The grid in a sentence."""
        met = f"{len(self.cells) - len(self.unmet)} of {len(self.cells)} quotas are met"
        missing = "; ".join(f"{cell.name} lacks {cell.missing} of {cell.quota}" for cell in self.unmet[:5])
        more = "; ..." if len(self.unmet) > 5 else ""
        return f"{self.curriculum}: {met}" + (f" ({missing}{more})" if missing else "")
