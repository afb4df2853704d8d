"""What the finetune and train stages of a classifier share: the training setup, and the tokenizer as it is served."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from potstill.components.runtimes.classifier import load_text_tokenizer
from potstill.components.training.classifier import class_rows
from potstill.components.training.ranks import wait_for_all
from potstill.components.training.rows import LabelledRows
from potstill.components.training.setup import TrainingSetup
from potstill.core.environment import is_first_process
from potstill.core.recipe import Schedule
from potstill.core.records import read_labelled

__all__ = ["classifier_setup", "write_tokenizer"]


def classifier_setup(
    rows: LabelledRows, schedule: Schedule, labels: Sequence[str], out: Path, seed: int
) -> TrainingSetup:
    """Rows in the token ids of `out/tokenizer`, and how models are trained on them."""
    tokenizer = load_text_tokenizer(out / "tokenizer", rows.context)
    files = rows.train, rows.validation
    examples, validation = (class_rows(read_labelled(f.path), labels, tokenizer) if f else [] for f in files)
    return TrainingSetup(examples, validation, schedule, tokenizer.get_vocab_size(), 0, out / "tokenizer", out, seed)


def write_tokenizer(source: Path, context: int, out: Path) -> None:
    """Write the tokenizer's files as they are served: texts are cut off at `context`, and not padded."""
    if is_first_process():
        out.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            if (source / name).is_file():
                shutil.copyfile(source / name, out / name)
        load_text_tokenizer(source, context).save(str(out / "tokenizer.json"))
    wait_for_all()
