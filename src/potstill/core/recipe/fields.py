"""What the sections of a recipe are made of: number ranges, paths relative to the recipe, markers, strict mappings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

__all__ = [
    "COSMETIC",
    "ELSEWHERE",
    "Count",
    "LocalPath",
    "Marker",
    "ModelName",
    "NotNegative",
    "Positive",
    "Section",
    "Share",
    "path_from_recipe",
    "shorthand",
    "split_revision",
]


@dataclass(frozen=True)
class Marker:
    """Metadata of a recipe field that says how it takes part in a step's fingerprint."""

    name: str


COSMETIC = Marker("cosmetic")
"""The field changes no answer, so it is not hashed. A stage still receives it."""

ELSEWHERE = Marker("elsewhere")
"""Stages that need the field have an input of their own for it. It is not hashed, and a stage does not receive it."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


def path_from_recipe(path: Path, info: ValidationInfo) -> Path:
    """Resolve a path against the recipe's folder, which `load_recipe` passes as context."""
    folder = (info.context or {}).get("folder", Path.cwd())
    return (Path(folder) / path.expanduser()).resolve()


def _model_from_recipe(model: str, info: ValidationInfo) -> str:
    """The absolute path of a model folder; a name that is neither a folder nor looks like a path stays a hub id."""
    folder = path_from_recipe(Path(model), info)
    return str(folder) if folder.is_dir() or model.startswith((".", "/", "~")) else model


def split_revision(model: str) -> tuple[str, str | None]:
    """A hub id and its revision from ID@REVISION; the path of a folder has none."""
    name, at, revision = model.partition("@")
    return (model, None) if not at or Path(model).is_absolute() else (name, revision)


LocalPath = Annotated[Path, AfterValidator(path_from_recipe), ELSEWHERE]
ModelName = Annotated[str, AfterValidator(_model_from_recipe), ELSEWHERE]


def shorthand(key: str, default: str | None = None) -> BeforeValidator:
    """Let a bare string stand for `{key: string}`, and a mapping without `key` for one with `key: default`."""

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return {key: value}
        if default is not None and isinstance(value, Mapping) and key not in value:
            return {key: default, **value}
        return value

    return BeforeValidator(expand)


class Section(BaseModel):
    """A mapping of the recipe. It is frozen and rejects keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def is_elsewhere(self, name: str) -> bool:
        """Whether a field is counted by an input of its own in the stages that need it."""
        return ELSEWHERE in _markers(type(self).model_fields[name])

    def hashed_values(self) -> dict[str, Any]:
        """JSON values of all fields that are neither cosmetic nor elsewhere, nested sections included."""
        return {
            name: _jsonable(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if not self.is_elsewhere(name) and COSMETIC not in _markers(field)
        }

    def blanked(self) -> Self:
        """A copy without the fields that are elsewhere: each has its default, or None where it has no default."""
        values: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            if self.is_elsewhere(name):
                values[name] = None if field.is_required() else field.get_default(call_default_factory=True)
            else:
                values[name] = _mapped(getattr(self, name), Section.blanked)
        return type(self).model_construct(self.model_fields_set, **values)


def _markers(field: FieldInfo) -> set[Marker]:
    """Markers of a field, also those inside an optional type."""
    return {item for item in (*field.metadata, *_nested_metadata(field.annotation)) if isinstance(item, Marker)}


def _nested_metadata(annotation: Any) -> Iterator[Any]:
    yield from getattr(annotation, "__metadata__", ())
    for part in get_args(annotation):
        yield from _nested_metadata(part)


def _mapped(value: Any, change: Callable[[Section], Any]) -> Any:
    """The value with `change` applied to each section in it."""
    if isinstance(value, Section):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(item, change) for item in value)
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}
    return value


def _jsonable(value: Any) -> Any:
    return to_jsonable_python(_mapped(value, Section.hashed_values))
