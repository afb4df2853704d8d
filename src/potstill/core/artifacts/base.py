"""The base of all artifacts: a frozen model that is one JSON file in a step's directory, with a format number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from potstill.core.errors import StepError
from potstill.core.files import read_json_lines, read_json_object, write_json
from potstill.core.records import first_problem
from potstill.core.words import printable

__all__ = ["Artifact", "Part", "parsed", "read_parts"]

ModelT = TypeVar("ModelT", bound=BaseModel)


class Part(BaseModel):
    """A part of an artifact: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return self.model_dump(mode="json")


class Artifact(Part):
    """What a stage leaves. A subclass names its file, and raises FORMAT when its fields change."""

    FILE: ClassVar[str]
    FORMAT: ClassVar[int] = 1

    def to_json(self) -> dict[str, Any]:
        """JSON values, the format number first."""
        return {"format": self.FORMAT, **self.model_dump(mode="json")}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        """The fields and the format number, from what `to_json` gave; a subclass with another layout undoes it."""
        return value

    def write(self, folder: Path) -> None:
        """Write the artifact into a step's directory, whole or not at all."""
        write_json(folder / self.FILE, self.to_json())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The artifact of a step's directory.

        Raises:
            StepError: the file is absent or broken, or its format is unknown.
        """
        return cls.read_file(folder / cls.FILE, f"delete {folder} to run the step again")

    @classmethod
    def read_file(cls, path: Path, advice: str) -> Self:
        """The artifact in a file of any name.

        Args:
            path: the file.
            advice: what to do about a file that cannot be read, as the end of a sentence.

        Raises:
            StepError: the file is absent or broken, or its format is unknown.
        """
        what = f"{advice[0].upper()}{advice[1:]}."
        value = read_json_object(path, error=StepError, advice=what)
        try:
            value = cls.from_json(value)
        except ValidationError as error:
            problem = printable(first_problem(error))
            raise StepError(f"{path}: not a valid {cls.__name__} ({problem}). {what}") from None
        found = value.pop("format", None)
        if found != cls.FORMAT:
            raise StepError(
                f"{path}: this file has format {found}, and this version of potstill reads format {cls.FORMAT} of "
                f"{cls.__name__}. Use the version of potstill that wrote it, or {advice}."
            )
        return parsed(cls, value, str(path), what)


def parsed(kind: type[ModelT], value: Mapping[str, Any], where: str, advice: str) -> ModelT:
    """A part of an artifact from its JSON object.

    Args:
        kind: the part's class.
        value: the object.
        where: the file, or the file and the line, for the message.
        advice: a sentence on what to do.

    Raises:
        StepError: the object does not have the fields of this kind.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problem = printable(first_problem(error))
        raise StepError(f"{where}: not a valid {kind.__name__} ({problem}). {advice}") from None


def read_parts(path: Path, kind: type[ModelT]) -> list[ModelT]:
    """The parts in a JSONL file of a step's directory, one per line.

    Raises:
        StepError: the file is absent, or a line is not a part of this kind.
    """
    advice = f"Delete {path.parent} to run the step again."
    return [parsed(kind, value, f"{path}:{n}", advice) for n, value in read_json_lines(path, error=StepError)]
