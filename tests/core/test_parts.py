"""A file of a step's directory that something else has changed is an error that names the line and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.core.artifacts.base import Part, read_parts
from potstill.core.errors import StepError


class Counted(Part):
    name: str
    count: int


def test_each_line_is_a_part(tmp_path: Path) -> None:
    path = tmp_path / "parts.jsonl"
    path.write_text('{"name": "a\u2028", "count": 1}\n\n{"name": "b", "count": 2}\n')
    assert read_parts(path, Counted) == [Counted(name="a\u2028", count=1), Counted(name="b", count=2)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"name": "a\xff"}', "not UTF-8"),
        ('{"name": "a"}', r"not a valid Counted \(count: Field required\)"),
        ('{"name": "a", "count": 1, "\\u001b[2J": 1}', r"not a valid Counted \(\[2J: Extra"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "parts.jsonl"
    path.write_bytes(b'{"name": "a", "count": 1}\n' + line.encode("latin-1"))
    with pytest.raises(StepError, match=says) as caught:
        read_parts(path, Counted)
    assert f"{path}:2: " in str(caught.value)
