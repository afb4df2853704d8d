"""Files that are written whole or not at all, and JSON whose errors name the file, the line and what to do.

A file is written under a temporary name in the same folder, flushed to the disk, and renamed. A process that is killed
on the way leaves the old file as it was, and a `NAME.tmp` that the next write replaces.
"""

from __future__ import annotations

import codecs
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from potstill.core.errors import DataError, PotstillError
from potstill.core.json_values import BadJson, read_strictly

__all__ = [
    "file_lines",
    "move_into_place",
    "read_json",
    "read_json_lines",
    "read_json_object",
    "replacing",
    "set_usual_modes",
    "split_lines",
    "write_bytes",
    "write_json",
    "write_json_lines",
    "write_text",
]

_UMASK = os.umask(0)
os.umask(_UMASK)  # the only way to read it is to set it


# ---- write ----


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write a file or a folder at; it becomes `path` when the block ends without an error."""
    temporary = path.with_name(path.name + ".tmp")
    _remove(temporary)
    try:
        yield temporary
        move_into_place(temporary, path)
    finally:
        _remove(temporary)


def move_into_place(source: Path, target: Path) -> None:
    """Rename a finished file or folder to `target`, replacing what is there; it is on the disk before and after."""
    inside = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
    if source.is_dir():  # libraries write folders; a file of our own has the mode that it should have
        set_usual_modes(inside)
    for path in inside:
        _flush(path)
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)
    _flush(target.parent)  # the new name must survive a loss of power too


def set_usual_modes(files: Iterable[Path]) -> None:
    """Give files the mode that the user's umask asks for; some libraries write files that only their owner can read."""
    for path in files:
        path.chmod(path.stat().st_mode | (0o666 & ~_UMASK))


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, with line ends as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON; NaN and infinity are refused with ValueError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ---- read ----


def read_json(path: Path, *, error: type[PotstillError] = DataError, advice: str = "") -> Any:
    """The value in a JSON file.

    Args:
        path: the file; a byte order mark at its beginning is skipped.
        error: what is raised when the file cannot be read.
        advice: what the user can do then: one or more sentences that end the message.

    Raises:
        PotstillError: the file is absent, unreadable, or not valid JSON; of the type `error`.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        reason = "no such file"
    except OSError as found:
        reason = f"cannot be read ({found.strerror})"
    except UnicodeDecodeError as found:
        reason = f"not UTF-8 text ({found.reason} at byte {found.start})"
    except json.JSONDecodeError as found:
        reason = f"not valid JSON ({found.msg} at line {found.lineno}, column {found.colno})"
    except RecursionError:
        reason = "not valid JSON (it is nested too deeply)"
    except ValueError:
        reason = "not valid JSON (a number has too many digits)"
    raise error(f"{path}: {reason}. {advice}".rstrip())


def read_json_object(
    path: Path, *, missing_ok: bool = False, error: type[PotstillError] = DataError, advice: str = ""
) -> dict[str, Any]:
    """The object in a JSON file; with `missing_ok`, an empty one where there is no such file.

    Raises:
        PotstillError: as `read_json`; also when the file holds another kind of value.
    """
    if missing_ok and not path.exists():
        return {}
    value = read_json(path, error=error, advice=advice)
    if not isinstance(value, dict):
        raise error(f"{path}: must hold a JSON object, found {type(value).__name__}. {advice}".rstrip())
    return value


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a text that comes in pieces, without their line feeds.

    Only a line feed ends a line: U+2028, U+0085 and their like, at which `str.splitlines` cuts, may stand in a string.
    """
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def file_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that are not blank; see `split_lines`."""
    with path.open("rb") as file:
        yield from (line for line in split_lines(file) if line.strip())


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The line number and the object of each line of a JSONL file that is not blank.

    A byte order mark at the beginning is skipped.

    Raises:
        DataError: the file is absent, or a line is not a JSON object (see `read_strictly`); the message names the file
            and the line.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file. Give the path of a JSONL file; paths in a recipe are relative to its folder."
        )
    with path.open("rb") as file:
        for number, line in enumerate(split_lines(file), 1):
            if line.strip():
                yield number, _parse_line(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line, path, number)


def _parse_line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    where = f"{path}:{number}"
    try:
        value = read_strictly(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 text ({error.reason} at byte {error.start} of the line). Save the file as UTF-8."
        ) from None
    except BadJson as error:
        raise DataError(
            f"{where}: not valid JSON ({error}). Each line must hold one whole JSON object; fix or delete this line."
        ) from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: a row must be a JSON object, found {type(value).__name__}.")
    return value
