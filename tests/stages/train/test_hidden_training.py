"""Hidden-state distillation: the right layers, each token once, projections that resume and are dropped at the end."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fixtures import light_rows, make_model, read_log, write_jsonl
from potstill.components.chat.format import Example, load_chat
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.attention import grouped_attention
from potstill.components.training.batches import count_tokens, pack
from potstill.components.training.checkpoints import StepLog
from potstill.components.training.counts import Weights
from potstill.components.training.hidden import HiddenTeacher
from potstill.components.training.learner import LanguageTask, Learner
from potstill.components.training.loop import LoopOptions, train_model
from potstill.components.training.pruning import cut_width, measure_importance
from potstill.components.training.rows import training_examples
from potstill.components.training.students import from_teacher_layers
from potstill.core.artifacts.training import LogLine, LoopSummary
from potstill.core.recipe import Hidden, Recipe, Schedule, Train
from potstill.core.records import read_rows
from potstill.stages.targets import stage as targets
from potstill.stages.train import stage as train
from stage_runs import run_stage


def rows_of(folder: Path, tmp_path: Path) -> list[Example]:
    return training_examples(read_rows(write_jsonl(tmp_path / "rows.jsonl", light_rows([""]))), load_chat(folder), 128)


@torch.no_grad()
def definition(student: Any, teacher: Any, pairs: list[tuple[int, int]], rows: list[Example], shared: int) -> float:
    """The sum over tokens of the mean over layers of 1 - cos, with each row run separately through transformers."""

    def states(model: Any, ids: tuple[int, ...]) -> list[Tensor]:
        found = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1:]
        return [layer[0].double() for layer in found]

    total = 0.0
    for number, row in enumerate(rows):
        own, taught = states(student, row.ids), states(teacher, row.ids)
        for a, b in pairs:
            distance = 1 - (own[a] * taught[b]).sum(-1) / (own[a].norm(dim=-1) * taught[b].norm(dim=-1))
            # the shared prefix counts once
            total += float(distance[0 if number == 0 else shared :].sum()) / len(pairs)
    return total


def test_every_token_of_the_rows_teaches_once_and_padding_never(tiny_model: Path, tmp_path: Path) -> None:
    teacher = load_causal_lm(tiny_model).eval()
    student = from_teacher_layers(teacher, 2).eval()
    rows = rows_of(tiny_model, tmp_path)[:5]
    long = [Example((*range(10, 50), *row.ids), 40 + row.n_prompt, True) for row in rows]
    hidden = HiddenTeacher(teacher, Hidden(), (rows, rows), [0, 3])
    assert hidden.layers(student) == (2, 3)
    learner = Learner(student, LanguageTask(teacher, hidden=hidden), teacher.config.vocab_size, False)
    for given in (rows, long):
        batch = pack(given, 0)
        with grouped_attention(student, teacher), torch.no_grad():
            plain, sums = learner(batch), learner(batch, Weights(hidden=0.5))
        want = definition(student, teacher, [(0, 2), (1, 3)], given, batch.layout.prefix)
        assert sums.hidden.item() == pytest.approx(want, rel=1e-4)
        assert sums.loss.item() == pytest.approx(plain.loss.item() + 0.5 * want, rel=1e-4)
        assert plain.hidden is None
    assert batch.layout.prefix >= 40


def test_one_pass_of_the_teacher_gives_both_losses(tiny_model: Path, tmp_path: Path) -> None:
    teacher = load_causal_lm(tiny_model).eval()
    student, rows, passes = from_teacher_layers(teacher, 2), rows_of(tiny_model, tmp_path), []
    hidden = HiddenTeacher(teacher, Hidden(), (rows, rows))
    learner = Learner(student, LanguageTask(teacher, hidden=hidden), teacher.config.vocab_size, False)
    teacher.base_model.register_forward_hook(lambda *_: passes.append(1))
    with grouped_attention(student, teacher):
        learner(pack(rows, 0), Weights(hidden=1.0)).loss.backward()
    assert len(passes) == 1


def test_similarity_finds_the_layers_that_a_student_started_from(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "teacher", layers=5)
    teacher = load_causal_lm(folder).eval()
    with torch.no_grad():
        for layer in teacher.base_model.layers:  # layers with a large effect each, as in a trained model
            layer.mlp.down_proj.weight.mul_(60)
    rows = rows_of(folder, tmp_path)
    student = from_teacher_layers(teacher, 2, [0, 1])
    hidden = HiddenTeacher(teacher, Hidden(layers="similarity"), (rows, rows))
    assert hidden.layers(student)[0] == 0
    whole = from_teacher_layers(teacher, 5)
    assert hidden.layers(whole) == (0, 1, 2, 3, 4)


class Stop(Exception):
    """Stands for killing a run."""


def narrow_run(folder: Path, out: Path, rows: list[Example], stop_at: int | None = None) -> LoopSummary:
    """Train a student of half the teacher's width; returns its summary."""
    teacher = load_causal_lm(folder)
    cut = from_teacher_layers(teacher, 2)
    student = cut_width(cut, measure_importance(cut, rows), hidden=32)
    hidden = HiddenTeacher(teacher, Hidden(balance=0.5), (rows, rows), [0, 3])
    wrote = StepLog.write

    def write(self: StepLog, line: LogLine) -> None:
        if line.step == stop_at:
            raise Stop
        wrote(self, line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepLog, "write", write)
        summary = train_model(
            student, LanguageTask(teacher, hidden=hidden), rows, (),
            Schedule(epochs=8, batch_tokens=256, gradient_accumulation=2, learning_rate=3e-3, checkpoint_every=3),
            LoopOptions(out=out, name="student", vocab_size=teacher.config.vocab_size, pad_id=0, seed=5),
        )  # fmt: skip
    torch.save(student.state_dict(), out / "final.pt")
    return summary


def test_projections_and_the_balance_resume_in_the_same_bits(tiny_model: Path, tmp_path: Path) -> None:
    rows = rows_of(tiny_model, tmp_path)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    narrow_run(tiny_model, tmp_path / "whole", rows)
    with pytest.raises(Stop):
        narrow_run(tiny_model, tmp_path / "killed", rows, stop_at=7)
    assert narrow_run(tiny_model, tmp_path / "killed", rows).resumed_at == 6
    lines, resumed = (read_log(tmp_path / name) for name in ("whole", "killed"))
    assert lines == resumed
    whole, killed = (torch.load(tmp_path / name / "final.pt") for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    assert lines[0]["hidden_weight"] == 0.0
    assert lines[-1]["hidden"] < 0.8 * lines[0]["hidden"]
    logit = hidden = 0.0
    for before, line in pairwise(lines):  # half as large as the logit loss, both smoothed over the earlier steps
        logit = 0.9 * logit + 0.1 * (before["loss"] - before["hidden_weight"] * before["hidden"])
        hidden = 0.9 * hidden + 0.1 * before["hidden"]
        assert line["hidden_weight"] == pytest.approx(0.5 * logit / hidden, rel=1e-5)


@pytest.mark.parametrize(
    ("student", "changes"),
    [
        ({"layers": 2}, {}),
        ({"layers": 2, "hidden": 32}, {"name": "jsd"}),
        ({"layers": 3, "vocabulary": "workload"}, {"hidden": {"layers": "similarity"}}),
        ({"layers": 2, "ffn": 48, "layer_choice": "influence"}, {"targets": {"kind": "counts", "k": 20}}),
        (
            {"init": "scratch", "shape": "llama:layers=2,hidden=32,ffn=48,heads=2"},
            {"hidden": {"distance": "mse"}, "targets": {"kind": "top_k", "k": 8}},
        ),
        ({"init": "checkpoint"}, {"hidden": {"balance": 2.0}}),
    ],
    ids=["cut", "narrow", "trimmed", "counts", "scratch", "checkpoint"],
)
def test_a_recipe_sets_it(tmp_path: Path, workload: Path, student: dict[str, Any], changes: dict[str, Any]) -> None:
    teacher, base = make_model(tmp_path / "teacher", context=256), None
    if student.get("init") == "checkpoint":
        base = make_model(tmp_path / "base", layers=2, seed=1, context=256)
        student = student | {"model": str(base)}
    settings = {"epochs": 1, "batch_tokens": 512, "control": "none", "objective": {"hidden": {}} | changes}
    recipe = Recipe.model_validate(
        {
            "name": "lights",
            "data": {"prompts": workload / "train.jsonl", "test": workload / "test.jsonl"},
            "chat": {"context": 256},
            "teacher": {"model": str(teacher)},
            "student": student,
            "train": settings,
            "trainer": {"tracker": "none"},
        }
    )
    steps, out = {"generate": workload}, tmp_path / "trained"
    out.mkdir()
    if recipe.stored_targets is not None:
        steps["targets"] = tmp_path / "targets"
        steps["targets"].mkdir()
        run_stage(targets.STAGE, recipe, {"generate": workload}, steps["targets"])
    run_stage(train.STAGE, recipe, steps, out)
    lines = [json.loads(line) for line in (out / "student.log.jsonl").read_text().splitlines()]
    assert all(line["hidden"] > 0 for line in lines)
    assert all(line["hidden_weight"] > 0 for line in lines[1:])
    assert not [name for name in load_causal_lm(out / "student").state_dict() if "projection" in name]


def test_counted_tokens_are_those_of_the_batch(tiny_model: Path, tmp_path: Path) -> None:
    rows = rows_of(tiny_model, tmp_path)
    assert count_tokens(rows) == len(pack(rows, 0).tokens)


def test_plain_fine_tuning_has_no_hidden_states_to_learn_from() -> None:
    with pytest.raises(ValueError, match=r"objective\.sft\.hidden"):
        Train.model_validate({"objective": {"name": "sft", "hidden": {}}})
