"""Reads files and folders of every kind that `potstill init --from` takes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from potstill.apps.init.sources.found import Found, Request
from potstill.apps.init.sources.logs import is_logged, read_logged
from potstill.apps.init.sources.tables import Columns, guess_columns, is_row, read_row, read_table_row
from potstill.apps.init.sources.tools import is_tools, read_tool_file
from potstill.core.errors import DataError
from potstill.core.files import read_json, read_json_lines, read_text
from potstill.core.format import format_count
from potstill.core.recipe.yaml_text import BadYaml, read_yaml
from potstill.core.records import parse_row

__all__ = ["KINDS", "read_sources"]

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".yaml", ".yml", ".txt", ".md")
_TASK_NAMES = ("task", "readme", "description")
_ANSWER_SUFFIX = ".answer"
_DELIMITERS = ",;\t|"
_NO_DELIMITER = "\x1f"  # of a table with one column, whose cells may have commas


def read_sources(paths: Iterable[Path]) -> Found:
    """Everything that is found in files and folders.

    Raises:
        DataError: a path does not exist, a file is broken, or there is nothing that can be used.
    """
    found = Found()
    for path in paths:
        if path.is_dir():
            _read_folder(path, found)
        else:
            _read_file(path, found)
    if not found.requests and found.left_out:
        raise DataError(
            f"none of {len(found.left_out)} entries can be used; the first: {found.left_out[0]} "
            "Give rows with messages or a prompt, or a log in the shape of OpenAI's API."
        )
    return found


def _read_file(path: Path, found: Found) -> None:
    if not path.exists():
        raise DataError(f"{path}: no such file. Give a file of prompts, a log, a list of tools, or a task in words.")
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        _read_objects(path, ((f"{path}:{n}", value) for n, value in read_json_lines(path)), found)
    elif suffix == ".json":
        _read_value(path, read_json(path), found)
    elif suffix in (".csv", ".tsv"):
        _read_objects(path, _table_rows(path), found)
    elif suffix in (".yaml", ".yml"):
        _read_value(path, _yaml_value(path), found)
    elif suffix in (".txt", ".md"):
        found.task = "\n\n".join(filter(None, (found.task, read_text(path).strip())))
        found.guesses.append(f"{path.name}: the task in words")
    else:
        raise DataError(f"{path}: files of this kind are not read. Give one that ends in {', '.join(KINDS)}.")


def _read_value(path: Path, value: Any, found: Found) -> None:
    """A JSON file with tools, with a list of rows, or with one row."""
    if is_tools(value) and not (isinstance(value, Mapping) and "messages" in value):
        tools = read_tool_file(value, str(path))
        found.tools = (*found.tools, *(tool for tool in tools if tool not in found.tools))
        found.guesses.append(f"{path.name}: {format_count(len(tools), 'tool')}")
        return
    entries = value if isinstance(value, list) else [value]
    objects = [(f"{path}, entry {n}", each) for n, each in enumerate(entries, 1)]
    if wrong := next((where for where, each in objects if not isinstance(each, dict)), None):
        raise DataError(
            f"{wrong}: must be a JSON object. Give a list of rows, an OpenAPI document, or a list of tools with names."
        )
    _read_objects(path, iter(objects), found)


def _yaml_value(path: Path) -> Any:
    """The value of a YAML file as JSON has it: dates become text, and keys too."""
    try:
        return json.loads(json.dumps(read_yaml(read_text(path)), default=str, allow_nan=False))
    except BadYaml as error:
        raise DataError(f"{path}: not valid YAML: {error}.") from None
    except (TypeError, ValueError):
        raise DataError(
            f"{path}: it has a key or a number that JSON does not have, such as a date as a key, or .nan. Put quotes "
            "around it."
        ) from None


def _table_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = read_text(path)
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=_delimiter(path, text), skipinitialspace=True, strict=True
    )
    try:
        names = reader.fieldnames or ()
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise DataError(f"{path}: two columns have the name {repeated!r}. Rename one of them.")
        for value in reader:
            yield f"{path}:{reader.line_num}", value
    except csv.Error as error:
        raise DataError(
            f"{path}:{reader.line_num}: not valid CSV ({error}). Put cells with quotes, delimiters or line feeds in "
            "double quotes, and double the quotes in them."
        ) from None


def _delimiter(path: Path, text: str) -> str:
    """What separates the cells: the most frequent candidate in the header, where texts of users do not matter."""
    header = re.sub('"[^"]*"', "", text.partition("\n")[0])
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=header.count)
    return delimiter if delimiter in header else _NO_DELIMITER


def _read_objects(path: Path, objects: Iterator[tuple[str, dict[str, Any]]], found: Found) -> None:
    """The entries of one file, which are all of the kind of the first."""
    columns, kind, before = Columns(), "", len(found.requests)
    for where, value in objects:
        if not kind:
            kind = "log" if is_logged(value) else "rows" if is_row(value) else "table"
            columns = guess_columns([name for name in value if name is not None], where) if kind == "table" else columns
        try:
            found.requests.append(_request(kind, value, columns, where))
        except DataError as error:
            found.left_out.append(str(error))
        except ValueError as error:
            found.left_out.append(f"{where}: {error}.")
    if not kind:
        raise DataError(f"{path}: the file is empty.")
    said = {
        "log": "a log of requests; the answers are those that a model gave, and are not taken as right",
        "rows": "rows; their answers are taken as right",
        "table": f"a table: {columns.sentence}",
    }
    found.guesses.append(f"{path.name}: {len(found.requests) - before} entries of {said[kind]}")


def _request(kind: str, value: Mapping[str, Any], columns: Columns, where: str) -> Request:
    if None in value:  # what csv.DictReader names the cells without a header
        raise DataError(f"{where}: the line has more cells than the header. Put cells with commas in double quotes.")
    if kind == "log":
        return read_logged(value, where)
    return read_row(value, where) if kind == "rows" else read_table_row(value, columns, where)


def _read_folder(folder: Path, found: Found) -> None:
    """Every file below a folder; a text file is a prompt, with its answer in NAME.answer.txt if there is one."""
    files = sorted(
        path for path in folder.rglob("*")
        if path.is_file() and path.suffix.lower() in KINDS and not path.name.startswith(".")
    )  # fmt: skip
    if not files:
        raise DataError(f"{folder}: the folder has no file that ends in {', '.join(KINDS)}.")
    prompts = 0
    for path in files:
        is_text = path.suffix.lower() in (".txt", ".md")
        if not is_text or path.stem.casefold() in _TASK_NAMES:
            _read_file(path, found)
        elif not path.stem.endswith(_ANSWER_SUFFIX):
            answer = path.with_name(f"{path.stem}{_ANSWER_SUFFIX}{path.suffix}")
            row: dict[str, Any] = {"messages": [{"role": "user", "content": read_text(path).strip()}]}
            if answer.is_file():
                row["completion"] = {"role": "assistant", "content": read_text(answer).strip()}
            found.requests.append(Request(parse_row(row, (), False, str(path))))
            prompts += 1
    if prompts:
        found.guesses.append(f"{folder.name}/: {prompts} text files, each a prompt")
