"""Recipes of runs that have all stages and take seconds, with their rows and teachers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from fixtures import TOOLS, labelled_rows, light_rows, make_encoder, make_model, write_jsonl

NAME = "small"
"""Name of the run."""


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


RECIPES: dict[str, Callable[[Path], Path]] = {"language": language_recipe, "classifier": classifier_recipe}
"""By the task: makes a recipe in a folder."""


def _write(folder: Path, recipe: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path
