"""What every importer is given, and what it returns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from potstill.components.suites.items import Item
from potstill.core.errors import DataError
from potstill.core.files import read_json_lines, split_lines
from potstill.core.json_values import BadJson, read_foreign

__all__ = ["Imported", "Importer", "Source", "json_lines", "user_item"]

_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Source:
    """Where items come from.

    path    a file or a folder
    split   part of a data set that has several, such as test
    tools   a JSON file with tools for rows that have none
    """

    path: Path
    split: str = "test"
    tools: Path | None = None


@dataclass
class Imported:
    """Items, and how many entries of the source became none, by reason."""

    items: list[Item] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


class Importer(Protocol):
    """Reads items from a file of some kind."""

    def __call__(self, source: Source) -> Imported:
        """The items of the source.

        Raises:
            DataError: the source is absent or not of this kind.
        """
        ...


def user_item(prompt: str, expected: dict[str, Any], where: str, *, system: str = "", **labels: Any) -> Item:
    """An item with one question of the user.

    Raises:
        DataError: the values are not those of an item; `where` names the file and the line.
    """
    if not prompt.strip():
        raise DataError(f"{where}: the prompt is empty.")
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    return Item.parse({"messages": messages, "expected": expected, **labels}, where)


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """`FILE:LINE` and the object of each line of a JSONL file; one that ends in .gz is decompressed.

    Raises:
        DataError: the file is absent or broken.
    """
    if path.suffix != ".gz":
        yield from ((f"{path}:{number}", value) for number, value in read_json_lines(path))
        return
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give the path of a JSONL file.")
    for number, line in enumerate(split_lines([_unzipped(path)]), 1):
        if not line.strip():
            continue
        try:
            value = read_foreign(line.decode("utf-8"))
        except (UnicodeDecodeError, BadJson) as error:
            raise DataError(f"{path}:{number}: not valid JSON ({error}).") from None
        if not isinstance(value, dict):
            raise DataError(f"{path}:{number}: must be a JSON object, found {type(value).__name__}.")
        yield f"{path}:{number}", value


def _unzipped(path: Path) -> bytes:
    import gzip
    import zlib

    try:
        with gzip.open(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a gzip file ({error}).") from None
    if len(data) > _MOST_BYTES:
        raise DataError(f"{path}: larger than {_MOST_BYTES:,} bytes when it is decompressed. Split the file.")
    return data


def as_json(value: Any) -> str:
    """Short JSON of a value, for labels."""
    return json.dumps(value, ensure_ascii=False)
