"""What the sections of a recipe are made of: number ranges, paths relative to the recipe, markers, strict mappings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from potstill.core.words import printable

__all__ = [
    "COSMETIC",
    "ELSEWHERE",
    "Count",
    "LocalPath",
    "Marker",
    "ModelName",
    "ModelfileText",
    "NotNegative",
    "OneLine",
    "Positive",
    "Section",
    "Share",
    "fits_modelfile",
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
Positive = Annotated[float, Field(gt=0, le=1e38)]
NotNegative = Annotated[float, Field(ge=0, le=1e38)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]  # llama.cpp and PyTorch count in 32 bits


def path_from_recipe(path: Path, info: ValidationInfo) -> Path:
    """Resolve a path against the recipe's folder, which `load_recipe` passes as context."""
    folder = (info.context or {}).get("folder", Path.cwd())
    try:
        full = (Path(folder) / path.expanduser()).resolve()
        full.exists()  # raises where there can be no such path, or where it cannot be looked up
    except OSError as error:
        raise ValueError(f"{printable(str(path))} cannot be opened ({error.strerror}). Change the path") from None
    except RuntimeError:
        raise ValueError(f"{printable(str(path))} has a ~ for which there is no home folder. Write it out") from None
    return full


def _model_from_recipe(model: str, info: ValidationInfo) -> str:
    """The absolute path of a model folder; a name that is neither a folder nor looks like a path stays a hub id."""
    folder = path_from_recipe(Path(model), info)
    return str(folder) if folder.is_dir() or model.startswith((".", "/", "~")) else model


def split_revision(model: str) -> tuple[str, str | None]:
    """A hub id and its revision from ID@REVISION; the path of a folder has none."""
    name, at, revision = model.partition("@")
    return (model, None) if not at or Path(model).is_absolute() else (name, revision)


def fits_modelfile(text: str) -> bool:
    """Whether Ollama reads the text as it is: its parser stops at three quotes and drops unprintable characters."""
    return '"""' not in text and all(c.isprintable() or c in "\n\t" for c in text)


def _for_modelfile(text: str) -> str:
    if not fits_modelfile(text):
        raise ValueError(
            "an Ollama Modelfile cannot hold this text, because it has three double quotes in a row or a control "
            "character. Remove them"
        )
    return text


def _one_line(text: str) -> str:
    if not text.isprintable() or len(text) > _LONGEST_LINE:
        raise ValueError(f"must be one line of at most {_LONGEST_LINE} printable characters")
    return _for_modelfile(text)


_LONGEST_LINE = 200
ModelfileText = Annotated[str, AfterValidator(_for_modelfile)]
"""Text that is written into an Ollama Modelfile."""
OneLine = Annotated[str, AfterValidator(_one_line)]
"""A short name or note that the package repeats."""
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

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

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
