"""The tutorial: its quick commands print what the page shows, apart from numbers that depend on the machine."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
QUICK = ("python make_rows.py", "sed ", "potstill check", "potstill plan", "potstill fit", "potstill devices")
DURATION = re.compile(r"(less than a|[\d.]+( to [\d.]+)?) (second|minute|hour)s?\b")
MACHINE = re.compile(r"\d s |free|minutes|hours|this machine|disk|memory here|of memory")


def load_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_tutorial", ROOT / "docs" / "make_tutorial.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_quick(command: str) -> bool:
    """Whether a command needs no finished run and takes seconds."""
    return command.startswith(QUICK) and "runs/" not in command


def comparable(output: str) -> list[str]:
    """Lines with step hashes masked, and with numbers masked where they depend on the machine."""
    lines = []
    for line in output.strip().splitlines():
        line = re.sub(r"\b([a-z]+)-[0-9a-f]{12}\b", r"\1-HASH", line)
        line = DURATION.sub("TIME", line)
        line = re.sub(r"\d[\d.,]*", "#", line) if MACHINE.search(line) else line
        lines.append(re.sub(r" +", " ", line).rstrip())
    return lines


def test_quick_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    maker = load_maker()
    results = maker.follow(maker.PAGE.read_text(), tmp_path, is_quick)
    assert len(results) >= 8
    for command, shown, printed in results:
        assert comparable(printed) == comparable(shown), f"`{command}` prints something else; run docs/make_tutorial.py"


def test_the_page_ends_at_a_verdict() -> None:
    """The run that the page shows fails first and passes after the fix."""
    verdicts = re.findall(r"^verdict  (\w+)$", (ROOT / "docs" / "tutorial.md").read_text(), re.M)
    assert verdicts == ["FAIL", "PASS"]
