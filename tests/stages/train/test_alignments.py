"""A student learns from a teacher with another tokenizer, online and from its stored distributions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures import light_rows, make_model, write_jsonl
from potstill.components.chat.format import ChatFormat, load_chat
from potstill.components.losses.alignment import DenseTeacher, linear_alignment_divergence
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.alignments import Alignments, align_rows
from potstill.components.training.attention import grouped_attention
from potstill.components.training.learner import LanguageTask, Learner
from potstill.components.training.rows import training_examples
from potstill.core.errors import DataError, RecipeError
from potstill.core.recipe import Recipe
from potstill.core.recipe.objective import ForwardKL
from potstill.core.records import Row, read_rows
from potstill.stages.targets import stage as targets
from potstill.stages.train import stage as train
from stage_runs import run_stage


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer has 60 fewer merges than `tiny_model`'s."""
    return make_model(tmp_path_factory.mktemp("models") / "other", layers=2, seed=3, extra_vocabulary=-60)


def mixed_rows(tmp_path: Path) -> list[Row]:
    """Rows whose order by length differs between the two tokenizers."""
    rows = light_rows(["", "please "])[::3]
    for number, row in enumerate(rows):
        row["messages"][0]["content"] += " xyzzy"[: number % 7] * (number % 3)
    return read_rows(write_jsonl(tmp_path / "rows.jsonl", rows))


def read_by(student: Path, teacher: Path, tmp_path: Path) -> tuple[Alignments, list[Any], list[Any]]:
    chats = load_chat(student), load_chat(teacher)
    rows = mixed_rows(tmp_path)
    own, taught = (training_examples(rows, chat, 256) for chat in chats)
    return align_rows(rows, own, taught, chats), own, taught


@pytest.mark.parametrize(("temperature", "hard"), [(1.0, 0.0), (2.0, 0.3)])
def test_one_tokenizer_is_the_plain_loss(tiny_model: Path, tmp_path: Path, temperature: float, hard: float) -> None:
    alignments, own, _ = read_by(tiny_model, tiny_model, tmp_path)
    teacher, student = load_causal_lm(tiny_model).eval(), load_causal_lm(make_model(tmp_path / "s", seed=2, layers=2))
    vocab, found = load_chat(tiny_model).vocab_size, []
    for given in (None, alignments):
        objective = ForwardKL(name="forward_kl", temperature=temperature, hard_label_weight=hard)
        task = LanguageTask(teacher, objective=objective, alignments=given)
        student.zero_grad()
        with grouped_attention(student, teacher):
            sums = Learner(student, task, vocab, False)(task.batch(own, 0))
            sums.loss.backward()
        assert all(p.grad is not None for p in student.parameters())
        gradients = [p.grad.flatten().clone() for p in student.parameters() if p.grad is not None]
        found.append((sums, torch.cat(gradients)))
    (plain, plain_gradient), (aligned, aligned_gradient) = found
    for key in ("loss", "divergence", "cross_entropy"):
        assert getattr(aligned, key).item() == pytest.approx(getattr(plain, key).item(), rel=1e-4, abs=1e-4), key
    assert float((aligned_gradient - plain_gradient).norm() / plain_gradient.norm()) < 1e-4


def test_two_tokenizers_compare_the_rows_that_belong_together(
    tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    """The packed batch against each row run separately through transformers."""
    alignments, own, taught = read_by(other_model, tiny_model, tmp_path)
    teacher, student = load_causal_lm(tiny_model).eval(), load_causal_lm(other_model).eval()
    by_length = [sorted(range(len(own)), key=lambda i: -len(side[i].ids)) for side in (own, taught)]
    assert by_length[0] != by_length[1], "the test would not see rows of another order"
    want = 0.0
    for mine, theirs in zip(own, taught, strict=True):
        with torch.no_grad():
            student_SH, teacher_TG = (
                model.base_model(torch.tensor([e.ids])).last_hidden_state[0, e.n_prompt - 1 : -1]
                for model, e in ((student, mine), (teacher, theirs))
            )
            source = DenseTeacher(teacher_TG, teacher.get_output_embeddings().weight)
            head_VH = student.get_output_embeddings().weight
            spans = alignments.rows[mine][1]
            want += linear_alignment_divergence(student_SH, head_VH, source, spans, alignments.vocab).loss.item()
    task = LanguageTask(teacher, alignments=alignments)
    with grouped_attention(student, teacher), torch.no_grad():
        got = Learner(student, task, load_chat(other_model).vocab_size, False)(task.batch(own, 0))
    assert got.loss.item() == pytest.approx(want, rel=1e-4)


def recipe_of(
    tmp_path: Path, workload: Path, teacher: Path, base: Path, objective: dict[str, Any], **student: Any
) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "lights",
            "data": {"prompts": workload / "train.jsonl", "test": workload / "test.jsonl"},
            "chat": {"context": 128},
            "teacher": {"model": str(teacher)},
            "student": {"init": "checkpoint", "model": str(base)} | student,
            "train": {
                "epochs": 4,
                "batch_tokens": 512,
                "learning_rate": 3e-3,
                "control": "none",
                "objective": objective,
            },
            "trainer": {"tracker": "none"},
        }
    )


@pytest.mark.parametrize(
    ("objective", "student"),
    [
        ({}, {}),
        ({"targets": {"kind": "top_k", "k": 1024}}, {}),
        ({}, {"vocabulary": "workload"}),
    ],
    ids=["online", "stored", "trimmed"],
)
def test_a_recipe_distils_across_tokenizers(
    tiny_model: Path,
    other_model: Path,
    tmp_path: Path,
    workload: Path,
    objective: dict[str, Any],
    student: dict[str, Any],
) -> None:
    recipe = recipe_of(tmp_path, workload, tiny_model, other_model, objective, **student)
    steps, out = {"generate": workload}, tmp_path / "trained"
    out.mkdir()
    if objective.get("targets"):
        steps["targets"] = tmp_path / "targets"
        steps["targets"].mkdir()
        run_stage(targets.STAGE, recipe, {"generate": workload}, steps["targets"])
    run_stage(train.STAGE, recipe, steps, out)
    lines = [json.loads(line) for line in (out / "student.log.jsonl").read_text().splitlines()]
    assert lines[-1]["divergence"] < 0.8 * lines[0]["divergence"]
    assert load_chat(out / "student").vocab_size < load_chat(tiny_model).vocab_size


@pytest.mark.parametrize("objective", [{"name": "jsd"}, {"hidden": {}}])
def test_objectives_that_compare_token_by_token_are_rejected(
    tiny_model: Path, other_model: Path, tmp_path: Path, workload: Path, objective: dict[str, Any]
) -> None:
    recipe = recipe_of(tmp_path, workload, tiny_model, other_model, objective)
    with pytest.raises(RecipeError, match="compares teacher and student token by token"):
        run_stage(train.STAGE, recipe, {"generate": workload}, tmp_path)


def test_answers_that_two_templates_write_differently_are_named(tiny_model: Path, tmp_path: Path) -> None:
    chat = load_chat(tiny_model)
    wordy = ChatFormat(
        chat.tokenizer, chat.template.replace("<tool_call>\n", "I call:\n"), chat.bos, chat.eos, chat.stop_ids
    )
    rows = mixed_rows(tmp_path)[:1]
    sides = [training_examples(rows, c, 256) for c in (chat, wordy)]
    with pytest.raises(DataError, match=r"rows\.jsonl:1: teacher and student do not read the same answer.*template"):
        align_rows(rows, *sides, (chat, wordy))
