"""Whole runs of a quarter of a minute, with all stages: what `kills.py` and `tamper.py` damage.

Models and rows are those of the tests. A run is started in a process of its own, as a user starts it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from fixtures import TOOLS, labelled_rows, light_rows, make_encoder, make_model, write_jsonl  # noqa: E402

NAME = "small"
VERDICT_CODES = (0, 3, 4)


def language_recipe(folder: Path) -> Path:
    """A recipe with every stage of a language model, with its rows and its teacher."""
    make_model(folder / "teacher")
    (folder / "tools.json").write_text(json.dumps(TOOLS))
    write_jsonl(folder / "train.jsonl", light_rows(["", "please "]))
    write_jsonl(folder / "validation.jsonl", light_rows(["now "])[:6])
    write_jsonl(folder / "test.jsonl", light_rows(["now "])[6:])
    finetune = {"rows": "train.jsonl", "epochs": 2, "batch_tokens": 256, "learning_rate": 1e-3}
    return _write(folder, {
        "name": NAME,
        "data": {"prompts": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}
        | {"tools": "tools.json"},
        "chat": {"context": 128},
        "teacher": {"model": "./teacher", "finetune": finetune},
        "generate": {"max_new_tokens": 8, "temperature": 1.0, "keep_truncated": True, "batch_size": 4},
        "student": {"init": "teacher_layers", "layers": 2},
        "train": {"epochs": 4, "batch_tokens": 256, "objective": {"targets": {"kind": "counts", "k": 8}}},
        "trainer": {"checkpoint_every": 2},
        "evaluate": {"threads": 1},
        "gates": {"exact": 0.5, "top1_agreement": 0.1},
        "licenses": {"data": "cc0-1.0", "teacher": "mit", "package": "mit"},
    })  # fmt: skip


def classifier_recipe(folder: Path) -> Path:
    """A recipe with every stage of a classifier, with its rows and its teacher."""
    make_encoder(folder / "teacher")
    rows = labelled_rows(["play", "show"])
    write_jsonl(folder / "train.jsonl", [row for n, row in enumerate(rows) if n % 4])
    write_jsonl(folder / "test.jsonl", rows[::4])
    schedule = {"epochs": 4, "batch_tokens": 512, "learning_rate": 3e-3}
    return _write(folder, {
        "name": NAME, "task": "classify",
        "data": {"train": "train.jsonl", "test": "test.jsonl", "out_of_scope": "oos", "context": 40},
        "teacher": {"model": "./teacher", "finetune": schedule},
        "student": {"layers": 2, "vocabulary": 60},
        "train": schedule,
        "trainer": {"checkpoint_every": 4},
        "evaluate": {"threads": 1, "latency_requests": 20},
        "gates": {"exact": 0.5, "retention": 0.5},
    })  # fmt: skip


RECIPES = {"language": language_recipe, "classifier": classifier_recipe}


def _write(folder: Path, recipe: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


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
