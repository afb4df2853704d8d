"""Files that are written whole or not at all, and JSON whose errors name the file, the line and what to do.

A file is written under a temporary name in the same folder, flushed to the disk, and renamed. A process that is killed
on the way leaves the old file as it was, and an unfinished one that the next write replaces; see `unfinished`.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from potstill.core.errors import DataError, PotstillError, StepError
from potstill.core.json_values import BadJson, read_foreign, read_strictly

__all__ = [
    "file_errors",
    "file_lines",
    "move_into_place",
    "read_json",
    "read_json_lines",
    "read_json_object",
    "read_text",
    "replacing",
    "set_usual_modes",
    "split_lines",
    "unfinished",
    "write_bytes",
    "write_json",
    "write_json_lines",
    "write_link",
    "write_text",
]

_UMASK = os.umask(0)
os.umask(_UMASK)  # the only way to read it is to set it

MOST_BYTES = 32_000_000
"""Limit of a JSON file and of a line of JSONL, in bytes. Values take up to 25 times as much memory as their text."""

_FILE_ERRORS = {
    errno.EACCES: ("permission denied", "Change the permissions, or choose another place"),
    errno.EPERM: ("the operation is not permitted", "Change the permissions, or choose another place"),
    errno.EROFS: ("the file system is read-only", "Choose another place"),
    errno.ENOSPC: ("no space is left on the disk", "Free some space, or choose another disk"),
    errno.EDQUOT: ("the disk quota is used up", "Free some space, or choose another disk"),
    errno.EFBIG: ("the file would be larger than the system allows", "Choose another disk, or raise the limit"),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter name"),
    errno.ENOTDIR: ("a part of the path is not a folder", "Choose another path"),
    errno.EISDIR: ("it is a folder and not a file", "Give the path of a file"),
    errno.ENOENT: ("no such file", "Check the path"),
    errno.EEXIST: ("a file of this name is in the way", "Move it, or choose another path"),
    errno.ELOOP: ("the links point at each other", "Check the path"),
    errno.EIO: ("the disk reports an error", "Check the disk"),
    errno.ESTALE: ("the network drive has lost the file", "Check the drive"),
    errno.EBUSY: ("another program uses it", "Close that program"),
    errno.ETXTBSY: ("another program uses it", "Close that program"),
    errno.ENOLCK: ("the file system has no locks", "Choose another place"),
    errno.EMFILE: ("too many files are open", "Raise the limit with `ulimit -n`"),
    errno.ENFILE: ("too many files are open on this system", "Close other programs"),
    errno.ENXIO: ("it is not a regular file", "Give the path of a regular file"),
    errno.ENODEV: ("it is not a regular file", "Give the path of a regular file"),
}
"""Errors of the file system by their number: what is wrong, and what to do. Errors of networks are not among them."""


@contextmanager
def file_errors(what: Path | str, *, error: type[PotstillError] = StepError, advice: str = "") -> Iterator[None]:
    """Raise errors of the file system inside the block as one of potstill's own, in one paragraph.

    Args:
        what: the file or folder that is worked on; named where the system's error does not name one.
        error: the type that is raised.
        advice: what the user can do, in one or more sentences; by default what goes with the kind of error.
    """
    try:
        yield
    except OSError as found:
        if found.errno not in _FILE_ERRORS:
            raise
        reason, usual = _FILE_ERRORS[found.errno]
        raise error(f"{found.filename or what}: {reason}. {advice or usual + '.'}") from None


# ---- write ----


def unfinished(path: Path) -> Path:
    """The name of a file or a folder until it is whole. It is potstill's own: what has it may be deleted."""
    return path.with_name(f".{path.name}.potstill-unfinished")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write a file or a folder at; it becomes `path` when the block ends without an error."""
    temporary = unfinished(path)
    _remove(temporary)
    try:
        yield temporary
        move_into_place(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed write, as on a full disk, names no file
        raise
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


def write_link(link: Path, target: Path) -> None:
    """Make a symbolic link in one atomic step, relative so that both can move together; a link there is replaced."""
    temporary = unfinished(link)
    _remove(temporary)
    temporary.symlink_to(os.path.relpath(target, link.parent))
    os.replace(temporary, link)


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
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ---- read ----


def read_text(
    path: Path, *, error: type[PotstillError] = DataError, advice: str = "", most_bytes: int = MOST_BYTES
) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Args:
        path: the file.
        error: what is raised when the file cannot be read.
        advice: what the user can do then: one or more sentences that end the message.
        most_bytes: limit of the file's size; a larger file is not read.

    Raises:
        PotstillError: the file is absent, unreadable, too large, or not UTF-8; of the type `error`.
    """
    with file_errors(path, error=error, advice=advice), _open_regular(path, error, advice) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise error(f"{path}: larger than {most_bytes:,} bytes, the limit for such a file. {advice}".rstrip())
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as found:
        advice = advice or "Save the file as UTF-8."
        raise error(f"{path}: not UTF-8 text ({found.reason} at byte {found.start}). {advice}") from None


def _open_regular(path: Path, error: type[PotstillError], advice: str) -> IO[bytes]:
    """The open file; a device or a pipe, which may never end, is refused."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise error(f"{path}: not a regular file. {advice}".rstrip())
    return path.open("rb")


def read_json(
    path: Path, *, error: type[PotstillError] = DataError, advice: str = "", most_bytes: int = MOST_BYTES
) -> Any:
    """The value in a JSON file that another program may have written (see `read_foreign`).

    The arguments are those of `read_text`.

    Raises:
        PotstillError: the file is absent, unreadable, too large, or not valid JSON; of the type `error`.
    """
    text = read_text(path, error=error, advice=advice, most_bytes=most_bytes)
    try:
        return read_foreign(text)
    except BadJson as found:
        raise error(f"{path}: not valid JSON ({found}). {advice}".rstrip()) from None


def read_json_object(
    path: Path,
    *,
    missing_ok: bool = False,
    error: type[PotstillError] = DataError,
    advice: str = "",
    most_bytes: int = MOST_BYTES,
) -> dict[str, Any]:
    """The object in a JSON file; with `missing_ok`, an empty one where there is no such file.

    Raises:
        PotstillError: as `read_json`; also when the file holds another kind of value.
    """
    if missing_ok and not path.exists():
        return {}
    value = read_json(path, error=error, advice=advice, most_bytes=most_bytes)
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


def read_json_lines(path: Path, *, error: type[PotstillError] = DataError) -> Iterator[tuple[int, dict[str, Any]]]:
    """The line number and the object of each line of a JSONL file that is not blank.

    A byte order mark at the beginning is skipped.

    Args:
        path: the file.
        error: what is raised when the file cannot be read.

    Raises:
        PotstillError: the file is absent or unreadable, or a line is too long or not a JSON object (see
            `read_strictly`); of the type `error`. The message names the file and the line.
    """
    if not path.exists():
        raise error(
            f"{path}: no such file. Give the path of a JSONL file; paths in a recipe are relative to its folder."
        )
    advice = "Give the path of a JSONL file."
    with file_errors(path, error=error, advice=advice), _open_regular(path, error, advice) as file:
        for number, line in enumerate(iter(lambda: file.readline(MOST_BYTES + 1), b""), 1):
            if len(line) > MOST_BYTES:
                raise error(f"{path}:{number}: the line is longer than {MOST_BYTES:,} bytes. {_SHORTER_LINES}")
            if line.strip():
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                yield number, _parse_line(text.removesuffix(b"\n"), f"{path}:{number}", error)


_SHORTER_LINES = "Each line must hold one row; split it, or delete it."


def _parse_line(line: bytes, where: str, error: type[PotstillError]) -> dict[str, Any]:
    try:
        value = read_strictly(line.decode("utf-8"))
    except UnicodeDecodeError as found:
        raise error(
            f"{where}: not UTF-8 text ({found.reason} at byte {found.start} of the line). Save the file as UTF-8."
        ) from None
    except BadJson as found:
        raise error(
            f"{where}: not valid JSON ({found}). Each line must hold one whole JSON object; fix or delete this line."
        ) from None
    if not isinstance(value, dict):
        raise error(f"{where}: a row must be a JSON object, found {type(value).__name__}.")
    return value
