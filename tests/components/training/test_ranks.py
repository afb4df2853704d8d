"""Two processes on one machine (gloo), replicas or shards, learn what one process learns with the same global batch."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures import light_rows, write_jsonl
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.students import from_teacher_layers

RUN = """
import os
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from potstill.components.chat.format import load_chat
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.hidden import HiddenTeacher
from potstill.components.training.learner import LanguageTask
from potstill.components.training.loop import LoopOptions, train_model
from potstill.components.training.students import from_teacher_layers
from potstill.core.recipe import Hidden, Schedule
from potstill.core.recipe.objective import ForwardKL
from potstill.core.records import read_rows
from potstill.components.training.rows import training_examples
model, rows, out = map(Path, sys.argv[1:4])
precision, kind = sys.argv[4:]
chat = load_chat(model)
teacher = load_causal_lm(model)
examples = training_examples(read_rows(rows), chat, 128)
hidden = HiddenTeacher(teacher, Hidden(), (examples, examples), [0, 1, 3]) if kind == "hidden" else None
divergence = ForwardKL(name="forward_kl", temperature=2.0, hard_label_weight=0.0 if kind == "harm" else 0.3)
task = LanguageTask(teacher, objective=divergence, hidden=hidden)
rate = 0.5 if kind == "harm" else 3e-3
schedule = Schedule(epochs=6.1, batch_tokens=256, gradient_accumulation=2, learning_rate=rate, checkpoint_every=5,
                    precision=precision)
for name in ("whole", "resumed"):  # the second resumes from the last checkpoint of the first
    student = from_teacher_layers(teacher, 3)
    options = LoopOptions(out=out, name="student", vocab_size=chat.vocab_size, pad_id=0, seed=5)
    train_model(student, task, examples, examples[:4], schedule, options)
    if int(os.environ.get("RANK", "0")) == 0:
        torch.save(student.state_dict(), out / f"{name}.pt")
        assert student.get_input_embeddings().weight is student.get_output_embeddings().weight
"""
SHARDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}


def launch(words: list[str], processes: int, variables: dict[str, str] | None = None) -> None:
    """Run Python on this number of processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"} | (variables or {})
    done = subprocess.run(
        [sys.executable, *launcher, *words], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def train(
    folder: Path,
    model: Path,
    processes: int,
    variables: dict[str, str] | None = None,
    *,
    precision: str = "fp32",
    kind: str = "logits",
) -> tuple[list[dict[str, Any]], Any]:
    """The log and the weights of a run."""
    folder.mkdir()
    rows = write_jsonl(folder / "rows.jsonl", light_rows(["", "please ", "now ", "quickly "]))
    script = folder / "run.py"
    script.write_text(RUN)
    launch([str(script), str(model), str(rows), str(folder), precision, kind], processes, variables)
    log = [json.loads(line) for line in (folder / "student.log.jsonl").read_text().splitlines()]
    whole, resumed = (torch.load(folder / f"{name}.pt") for name in ("whole", "resumed"))
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())
    return log, whole


@pytest.fixture(scope="module")
def alone(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[dict[str, Any]], Any]]:
    """The log and the weights of a single process, by kind of loss."""
    folder = tmp_path_factory.mktemp("alone")
    return {kind: train(folder / kind, tiny_model, 1, kind=kind) for kind in ("logits", "hidden")}


@pytest.mark.parametrize("kind", ["logits", "hidden"])
@pytest.mark.parametrize("variables", [{}, SHARDED], ids=["ddp", "fsdp2"])
def test_two_processes_learn_what_one_learns(
    tiny_model: Path,
    tmp_path: Path,
    alone: dict[str, tuple[list[dict[str, Any]], Any]],
    variables: dict[str, str],
    kind: str,
) -> None:
    one, weights_one = alone[kind]
    two, weights_two = train(tmp_path / "two", tiny_model, 2, variables, kind=kind)
    assert len(one) == len(two) == 37
    assert one[-1]["tokens"] < 0.7 * one[0]["tokens"]  # the last step has a single micro-batch
    keys = ["loss", "divergence", "cross_entropy", *(["hidden"] if kind == "hidden" else [])]
    for single, shared in zip(one, two, strict=True):
        assert single["tokens"] == shared["tokens"]
        for key in keys:
            assert shared[key] == pytest.approx(single[key], abs=1e-5), key
        assert shared["grad_norm"] == pytest.approx(single["grad_norm"], rel=1e-3)
    assert weights_one.keys() == weights_two.keys()
    for name, weight in weights_one.items():
        torch.testing.assert_close(weights_two[name], weight, atol=2e-4, rtol=0)


@pytest.mark.parametrize("variables", [{}, SHARDED], ids=["ddp", "fsdp2"])
def test_two_processes_give_the_start_back_after_a_training_that_does_harm(
    tiny_model: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    log, weights = train(tmp_path / "two", tiny_model, 2, variables, kind="harm")
    assert log[-1]["validation_loss"] > 0.01
    start = from_teacher_layers(load_causal_lm(tiny_model), 3).state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in start.items())


def test_hidden_states_teach_in_bf16_too(
    tiny_model: Path, tmp_path: Path, alone: dict[str, tuple[list[dict[str, Any]], Any]]
) -> None:
    single, _ = alone["hidden"]
    half, _ = train(tmp_path / "half", tiny_model, 1, precision="bf16", kind="hidden")
    for key in ("loss", "hidden"):
        assert half[0][key] == pytest.approx(single[0][key], rel=0.02), key
        assert half[0][key] != single[0][key], key
    assert half[-1]["hidden"] < 0.7 * half[1]["hidden"]


DRAW = """
import os
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from potstill.components.chat.format import load_chat
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.on_policy import SamplingPlan, StudentSamples
from potstill.components.training.ranks import make_accelerator
from potstill.core.recipe import OnPolicy
from potstill.core.records import read_rows
from potstill.components.training.rows import training_examples
model, rows, out = map(Path, sys.argv[1:4])
chat = load_chat(model)
examples = training_examples(read_rows(rows), chat, 128)
how = StudentSamples(OnPolicy(refresh=2), chat, 128, 8)
steps = [[[0, 1, 2, 3], [4, 5, 6]], [[7, 8], [9, 10, 11]], [[0, 2], [4, 6]]]
own = SamplingPlan(how, make_accelerator(out, "none", "draw"), load_causal_lm(model), examples, steps, 5)
torch.save([own.group(step) for step in range(3)], out / f"{os.environ.get('RANK', '0')}.pt")
"""


def test_all_processes_get_the_answers_that_each_sampled_a_part_of(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", light_rows([""]))
    script = tmp_path / "draw.py"
    script.write_text(DRAW)
    found = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        out.mkdir()
        launch([str(script), str(tiny_model), str(rows), str(out)], processes)
        found += [torch.load(out / f"{rank}.pt", weights_only=False) for rank in range(processes)]
    alone, first, second = found
    assert first == second
    ids = [[row.ids for step in run for batch in step for row in batch] for run in (alone, first)]
    assert ids[0] == ids[1]
    kinds = [type(row).__name__ for step in alone for batch in step for row in batch]
    assert {"Example", "SampledAnswer"} == set(kinds)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "on_exit"), reason="the C library has no on_exit")
def test_a_rank_exits_with_its_status_whatever_runs_after_python(tmp_path: Path) -> None:
    """The test plants an abort at the place of gloo's."""
    code = (
        "import ctypes, sys; libc = ctypes.CDLL(None); libc.on_exit(libc.abort, None)\n"
        "from potstill.components.training.ranks import exit_cleanly; [exit_cleanly() for _ in range(2)]\n"
        "open(sys.argv[1], 'w').write('whole'); print('said'); sys.exit(3)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "f")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, (tmp_path / "f").read_text()) == (3, "said\n", "whole")
