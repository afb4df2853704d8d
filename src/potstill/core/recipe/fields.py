"""What the recipe's sections are made of: ranges of numbers, paths that are relative to the recipe, strict mappings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

__all__ = ["Count", "LocalPath", "ModelName", "Positive", "Section", "Share", "beside_recipe"]

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def beside_recipe(path: Path, info: ValidationInfo) -> Path:
    """Resolve a path against the recipe's folder, which `load_recipe` passes as context."""
    folder = (info.context or {}).get("folder", Path.cwd())
    return (Path(folder) / path.expanduser()).resolve()


LocalPath = Annotated[Path, AfterValidator(beside_recipe)]


def _model_beside_recipe(model: str, info: ValidationInfo) -> str:
    """A model's folder, if the name is one beside the recipe or looks like a path; otherwise it is left as a hub id."""
    folder = beside_recipe(Path(model), info)
    return str(folder) if folder.is_dir() or model.startswith((".", "/", "~")) else model


ModelName = Annotated[str, AfterValidator(_model_beside_recipe)]


class Section(BaseModel):
    """A mapping of the recipe: frozen, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def hashed_values(self) -> dict[str, Any]:
        """The section's values for a fingerprint, as JSON."""
        return self.model_dump(mode="json")

    def blanked(self) -> Self:
        """The section as a stage receives it."""
        return self
