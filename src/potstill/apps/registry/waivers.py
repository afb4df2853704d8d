"""Waivers: losses that a person accepts in writing, until a date and for named models."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError, model_validator

from potstill.core.artifacts.base import Part
from potstill.core.errors import DataError
from potstill.core.files import read_text
from potstill.core.records import first_problem

__all__ = ["Waiver", "read_waivers"]

_TOP = "waivers"


class Waiver(Part):
    """One accepted loss: of an item, of a tag, or of a whole suite.

    owner     who accepts it
    reason    why
    expires   last day on which it holds
    models    SHA-256 of the models that it is for, at least 8 digits of each
    """

    item: str | None = None
    tag: str | None = None
    suite: str | None = None
    owner: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]
    expires: datetime.date
    models: Annotated[tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _waives_one_thing(self) -> Waiver:
        if sum(each is not None for each in (self.item, self.tag, self.suite)) != 1:
            raise ValueError("a waiver names one of item, tag and suite")
        return self

    @property
    def what(self) -> str:
        """What is waived: `item 0123`, `tag refuse`, `suite lights`."""
        return f"item {self.item}" if self.item else f"tag {self.tag}" if self.tag else f"suite {self.suite}"

    @property
    def words(self) -> str:
        """Owner, date and reason, as the end of a sentence."""
        return f"waived by {self.owner} until {self.expires}: {self.reason.rstrip('.')}"

    def is_for(self, sha256: str) -> bool:
        """Whether it is for this model."""
        return any(sha256.startswith(each) for each in self.models)


def read_waivers(path: Path) -> list[Waiver]:
    """The waivers of a YAML file.

    Raises:
        DataError: the file is absent or broken, or a waiver lacks an owner, a reason, a date or a model.
    """
    advice = "Give a YAML file with a list `waivers`."
    try:
        value = yaml.safe_load(read_text(path, advice=advice))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise DataError(f"{path}: not valid YAML ({' '.join(str(error).split())}). {advice}") from None
    entries = value.get(_TOP) if isinstance(value, dict) else None
    if not isinstance(entries, list) or len(value) != 1:
        raise DataError(f"{path}: it must have the one key `{_TOP}` with a list. See docs/howto/releases.md.")
    found = []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(Waiver.model_validate(entry))
        except ValidationError as error:
            raise DataError(
                f"{path}: waiver {number}: {first_problem(error)}. A waiver has item, tag or suite, and owner, reason, "
                "expires and models."
            ) from None
    return found
