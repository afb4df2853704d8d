"""Foreign text on a page does nothing to a terminal."""

from __future__ import annotations

import pytest
from rich.table import Table
from rich.text import Text

from potstill.cli.render.page import console, print_page


def test_control_characters_are_printed_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name")
    table.add_row(Text("a\x1b[2Jb"))
    print_page(table)
    print_page(Text("one\x1b]0;title\x07\ntwo\u202e 👩‍💻"))
    console().print("three\x9b31m", markup=False)
    shown = capsys.readouterr().out
    assert not {"\x1b", "\x9b", "\u202e"} & set(shown)
    assert "a\\x1b" in shown and "two\\u202e 👩‍💻" in shown and "three\\x9b31m" in shown
