"""Whole runs of a quarter of a minute, with all stages: what `kills.py` and `tamper.py` damage.

Models and rows are those of the tests. A run is started in a process of its own, as a user starts it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from small_recipes import NAME, RECIPES

__all__ = ["NAME", "RECIPES", "VERDICT_CODES", "alive", "start", "step_files", "step_line"]

VERDICT_CODES = (0, 3, 4)


def start(*words: str | Path, mark: str) -> subprocess.Popen[str]:
    """`potstill WORDS` with both outputs in a pipe; the process and its children have `mark` in their environment."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "POTSTILL_BENCHMARK": mark}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-m", "potstill", *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def alive(mark: str) -> list[int]:
    """Processes that have `mark` in their environment (on Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:  # another user's, or it has just ended
            continue
        if f"POTSTILL_BENCHMARK={mark}".encode() in environment.split(b"\0"):
            found.append(int(process.name))
    return found


def step_line(line: str) -> tuple[str, str, str] | None:
    """Stage, `done` or `cached`, and directory of a line that a run prints as a step ends; None for other lines."""
    words = line.split()
    whole = len(words) == 5 and words[1] in ("done", "cached") and words[3] == "s"
    return (words[0], words[1], words[4].rstrip("/")) if whole else None


def step_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file of the finished steps of a run, with `STAGE/PATH`."""
    for step in sorted(folder.iterdir()):
        if step.is_dir():
            stage = step.name.rpartition("-")[0]
            for path in sorted(step.rglob("*")):
                if path.is_file():
                    yield f"{stage}/{path.relative_to(step).as_posix()}", path
