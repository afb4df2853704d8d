"""What a suite says about itself: suite.json, and one line per frozen item in frozen.jsonl."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from potstill.core.artifacts.base import Artifact, Part

__all__ = ["FrozenItem", "SuiteRecord", "SuiteVersion"]


class SuiteVersion(Part):
    """A frozen version of a suite.

    version   1 for the first one
    items     number of items, those of earlier versions included
    sha256    SHA-256 (hex) over the hashes of these items in their order
    frozen    when it was frozen, in UTC
    """

    version: int
    items: int
    sha256: str
    frozen: str


class SuiteRecord(Artifact):
    """A suite: what it is for, and its frozen versions.

    name          name of the suite in tables and registries
    description   what it tests
    license       licence of the items, as an SPDX id or in words
    source        where the items come from
    versions      frozen versions, oldest first
    """

    FILE: ClassVar[str] = "suite.json"

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = ""
    license: str = ""
    source: str = ""
    versions: tuple[SuiteVersion, ...] = ()

    @property
    def version(self) -> int:
        """The latest frozen version; 0 for a suite that was never frozen."""
        return self.versions[-1].version if self.versions else 0


class FrozenItem(Part):
    """A frozen item, which may not change any more.

    item      its id
    sha256    SHA-256 (hex) of the whole item, labels included
    version   version of the suite in which it was frozen
    prompt    beginning of its prompt, for messages
    """

    item: str
    sha256: str
    version: int
    prompt: str
