"""Runs the commands of docs/tutorial.md in order, and writes what they print into the page.

    python docs/make_tutorial.py

The page has files ("Save this as `NAME`:", then a code block) and `console` blocks, in which each line that begins with
"$ " is a command and the lines below it are its output.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tutorial.md"
_ACTION = re.compile(
    r"Save this as `(?P<name>[^`]+)`:\n\n```\w*\n(?P<content>.*?)^```|^```console\n(?P<console>.*?)^```", re.M | re.S
)


def follow(page: str, folder: Path, wanted: Callable[[str], bool] = lambda command: True) -> list[tuple[str, str, str]]:
    """Save the page's files and run its commands in `folder/tutorial`.

    Args:
        page: text of the page.
        folder: takes the place of the checkout; it is given a link to the examples.
        wanted: which commands to run.

    Returns:
        Each command that was run, with its output in the page and its output now.
    """
    work = folder / "tutorial"
    work.mkdir(parents=True)
    (folder / "examples").symlink_to(ROOT / "examples")
    results = []
    for action in _ACTION.finditer(page):
        if action["name"]:
            (work / action["name"]).write_text(action["content"], encoding="utf-8")
            continue
        for command, output in commands(action["console"]):
            if wanted(command):
                results.append((command, output, run(command, work)))
    return results


def commands(console: str) -> list[tuple[str, str]]:
    """Commands of a console block, each with the output below it."""
    parts = re.split(r"^\$ (.*)\n", console, flags=re.M)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def run(command: str, folder: Path) -> str:
    """What a command prints, on both streams, in the order in which it is printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {
        "PATH": path, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1",
    }  # fmt: skip
    environment.pop("COLUMNS", None)
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = done.stdout.replace(f"{folder}/", "")
    # progress lines depend on time
    output = re.sub(r"^  [\w :()]+: [\d,]+ of [\d,]+.*\n", "", output, flags=re.M)
    return "".join(f"{line.rstrip()}\n" for line in output.strip().splitlines())


def main() -> None:
    """Run everything, and write the page again."""
    page = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        results = follow(page, Path(folder))
    outputs = iter(results)

    def block(match: re.Match[str]) -> str:
        if match["name"]:
            return match[0]
        shown = (f"$ {command}\n{next(outputs)[2]}" for command, _ in commands(match["console"]))
        return "```console\n" + "".join(shown) + "```"

    PAGE.write_text(_ACTION.sub(block, page), encoding="utf-8")


if __name__ == "__main__":
    main()
