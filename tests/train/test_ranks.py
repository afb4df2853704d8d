"""Two processes on one machine (gloo) learn what one process learns with the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures import light_rows, write_jsonl

RUN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from potstill.chat import load_chat
from potstill.recipe import Schedule
from potstill.records import read_rows
from potstill.runtimes.hf import load_causal_lm
from potstill.train import _examples
from potstill.train.learner import Objective
from potstill.train.loop import train_model
from potstill.train.students import from_teacher_layers
model, rows, out, accumulate = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
chat = load_chat(model)
teacher = load_causal_lm(model)
examples = _examples(read_rows(rows), chat, 128)
schedule = Schedule(epochs=6, batch_tokens=256, accumulate=int(accumulate), learning_rate=3e-3, checkpoint_every=1000)
student = from_teacher_layers(teacher, 3)
train_model(student, Objective(teacher, temperature=2.0, hard_label_share=0.3), examples, examples[:4], schedule,
            out=out, name="student", vocab_size=chat.vocab_size, pad_id=0, seed=5)
if int(__import__("os").environ.get("RANK", "0")) == 0:
    torch.save(student.state_dict(), out / "final.pt")
"""


def train(folder: Path, model: Path, rows: Path, processes: int) -> tuple[list[dict[str, Any]], Any]:
    folder.mkdir()
    script = folder / "run.py"
    script.write_text(RUN)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    words = [str(script), str(model), str(rows), str(folder), str(2 // processes)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, *words], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    log = [json.loads(line) for line in (folder / "student.log.jsonl").read_text().splitlines()]
    return log, torch.load(folder / "final.pt")


def test_two_processes_learn_what_one_learns(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", light_rows(["", "please ", "now ", "quickly "]))
    one, weights_one = train(tmp_path / "one", tiny_model, rows, 1)
    two, weights_two = train(tmp_path / "two", tiny_model, rows, 2)
    assert len(one) == len(two) > 5
    for alone, shared in zip(one, two, strict=True):
        assert alone["tokens"] == shared["tokens"]
        for key in ("loss", "divergence", "cross_entropy"):
            assert shared[key] == pytest.approx(alone[key], abs=1e-5), key
        assert shared["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-3)
    for name, weight in weights_one.items():
        torch.testing.assert_close(weights_two[name], weight, atol=2e-4, rtol=0)
