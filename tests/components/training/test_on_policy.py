"""The student's samples: their distribution, their loss by definition, its mean over sampled tokens, and resuming."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from components.losses.oracle import divergence
from fixtures import light_rows, make_model, read_log, write_jsonl
from potstill.components.chat.format import Example, load_chat
from potstill.components.runtimes import Sampling
from potstill.components.runtimes.hf import HFRuntime
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.attention import grouped_attention
from potstill.components.training.batches import SampledAnswer
from potstill.components.training.checkpoints import StepLog
from potstill.components.training.counts import Counts, Weights
from potstill.components.training.learner import LanguageTask, Learner
from potstill.components.training.loop import LoopOptions, train_model
from potstill.components.training.on_policy import SamplingPlan, StudentSamples, sample_lengths
from potstill.components.training.rows import training_examples
from potstill.components.training.students import from_teacher_layers
from potstill.core.artifacts.training import LogLine, LoopSummary, StepValues, TrainSummary
from potstill.core.recipe import DIVERGENCES, OnPolicy, Recipe, Schedule, Train
from potstill.core.recipe.objective import ForwardKL
from potstill.core.records import read_rows
from potstill.stages.train.stage import STAGE
from stage_runs import run_stage


def rows_of(folder: Path, tmp_path: Path) -> list[Example]:
    return training_examples(read_rows(write_jsonl(tmp_path / "rows.jsonl", light_rows([""]))), load_chat(folder), 128)


def drawn_by(model: Any, folder: Path, rows: list[Example], temperature: float = 1.0) -> list[SampledAnswer]:
    runtime = HFRuntime(model, load_chat(folder), 128)
    prompts = [list(row.ids[: row.n_prompt]) for row in rows]
    said = runtime.continue_ids(prompts, list(range(len(rows))), Sampling(9, temperature))
    return [
        SampledAnswer((*prompt, *out.ids), len(prompt), out.stopped, tuple(out.log_probs))
        for prompt, out in zip(prompts, said, strict=True)
    ]


@torch.no_grad()
def log_probs(model: Any, row: Example, temperature: float = 1.0) -> Tensor:
    """Log-probabilities (N, V) at the supervised positions, by a plain pass over the single row, in float64."""
    logits = model(torch.tensor([row.ids])).logits[0, row.n_prompt - 1 : -1]
    return (logits.double() / temperature).log_softmax(-1)


def test_sampled_tokens_come_with_their_probability(tiny_model: Path, tmp_path: Path) -> None:
    model = load_causal_lm(tiny_model)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(3)  # so that some tokens are likelier
    own = drawn_by(model, tiny_model, rows_of(tiny_model, tmp_path)[:3], temperature=0.7)
    assert len({row.ids[row.n_prompt :] for row in own}) == 3
    for row in own:
        want = log_probs(model, row, 0.7).gather(1, torch.tensor(row.ids[row.n_prompt :])[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(row.log_probs).double(), want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_an_answer_comes_with_the_models_own_probability(tiny_model: Path, tmp_path: Path, temperature: float) -> None:
    rows = read_rows(write_jsonl(tmp_path / "rows.jsonl", light_rows([""])))[:4]
    runtime = HFRuntime(load_causal_lm(tiny_model), load_chat(tiny_model), 128)
    prompts = [runtime.chat.prompt_ids(row) for row in rows]
    said = runtime.continue_ids(prompts, [1, 2, 3, 4], Sampling(9, temperature))
    for prompt, out in zip(prompts, said, strict=True):
        own = log_probs(runtime.model, Example((*prompt, *out.ids), len(prompt), out.stopped))
        want = own.gather(1, torch.tensor(out.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(out.own).double(), want, atol=1e-4, rtol=0)
    answers = runtime.answer(rows, Sampling(9), "answer")
    assert all(answer.log_prob is not None and answer.log_prob < 0 for answer in answers)
    assert runtime.answer(rows[:1], Sampling(0), "answer")[0].log_prob is None  # no token, so no confidence


def want_loss(objective: str, student: Any, teacher: Any, rows: list[Any], temperature: float) -> tuple[float, int]:
    """Sum over the tokens of rows, and the number of tokens, in float64 from plain passes."""
    total, tokens = 0.0, 0
    for row in rows:
        q, p = log_probs(student, row, temperature), log_probs(teacher, row, temperature)
        if objective == "sampled_reverse_kl":
            said = torch.tensor(row.ids[row.n_prompt :])[:, None]
            q, p = (x.gather(1, said)[:, 0] for x in (q, p))
            found = (q - torch.tensor(row.log_probs).double()).exp() * (q - p)
        else:
            found = divergence(objective, p.exp(), q.exp(), 0.5, 0.1)
        total += temperature**2 * float(found.sum())
        tokens += row.n_supervised
    return total, tokens


@pytest.mark.parametrize(
    ("settings", "losses"),
    [
        ({"name": "jsd"}, ("jsd", "jsd")),
        ({"name": "contrastive"}, ("skew_kl", "skew_reverse_kl_detached")),
        ({"name": "forward_kl", "on_policy": {"loss": "sampled_reverse_kl"}}, ("forward_kl", "sampled_reverse_kl")),
    ],
    ids=["jsd", "contrastive", "sampled"],
)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_each_kind_of_text_has_its_own_loss_and_mean(
    tiny_model: Path, tmp_path: Path, settings: dict[str, Any], losses: tuple[str, str], temperature: float
) -> None:
    objective = DIVERGENCES[settings["name"]].model_validate(settings | {"temperature": temperature})
    assert objective.losses == losses
    teacher, rows = load_causal_lm(tiny_model).eval(), rows_of(tiny_model, tmp_path)
    with torch.no_grad():
        teacher.get_output_embeddings().weight.mul_(3)  # so that the two differ
    student = from_teacher_layers(teacher, 2).eval()
    mine = drawn_by(student, tiny_model, rows[:4])
    group = [[*rows[4:8], mine[0]], [*mine[1:], *rows[8:11]]]
    how = StudentSamples(OnPolicy(), load_chat(tiny_model), 128, 128)
    task = LanguageTask(teacher, objective=objective, student_samples=how)
    learner = Learner(student, task, teacher.config.vocab_size, False)
    counts = Counts.of(group)
    with grouped_attention(student, teacher), torch.no_grad():
        sums = [learner(task.batch(batch, 0), counts.weights(None)) for batch in group]
    total, tokens = want_loss(losses[0], student, teacher, rows[4:11], temperature)
    own_total, own_tokens = want_loss(losses[1], student, teacher, mine, temperature)
    assert (counts.text, counts.sampled) == (tokens, own_tokens)
    assert sum(s.loss.item() for s in sums) == pytest.approx(
        7 / 11 * total / tokens + 4 / 11 * own_total / own_tokens, rel=2e-4, abs=1e-6
    )
    assert sum(s.sampled_divergence.item() for s in sums) == pytest.approx(own_total, rel=2e-4, abs=1e-5)
    assert sum(s.divergence.item() for s in sums) == pytest.approx(total, rel=2e-4)


def test_hard_labels_are_the_teachers_text_only(tiny_model: Path, tmp_path: Path) -> None:
    teacher, rows = load_causal_lm(tiny_model).eval(), rows_of(tiny_model, tmp_path)[:4]
    student = from_teacher_layers(teacher, 2).eval()
    mine, found = drawn_by(student, tiny_model, rows), []
    how = StudentSamples(OnPolicy(), load_chat(tiny_model), 128, 128)
    for share in (0.0, 0.5):
        objective = ForwardKL(name="forward_kl", hard_label_weight=share)
        task = LanguageTask(teacher, objective=objective, student_samples=how)
        with grouped_attention(student, teacher), torch.no_grad():
            learner = Learner(student, task, teacher.config.vocab_size, False)
            found.append([learner(task.batch(batch, 0)).loss.item() for batch in (mine, rows)])
    assert found[0][0] == found[1][0]
    assert found[0][1] != pytest.approx(found[1][1], rel=1e-3)


def test_the_mean_is_over_sampled_tokens() -> None:
    """And not over the tokens of the data set, which are unrelated to the student's samples."""
    rows, own = Example((1, 2, 3, 4), 1, True), SampledAnswer((1, *range(10)), 1, False, (-1.0,) * 10)
    counts = Counts.of([[rows, own], [own, own]])
    assert (counts.text, counts.sampled, counts.sampled_share) == (3, 30, 0.75)
    assert counts.weights(None) == Weights(0.25 / 3, 0.75 / 30, None)
    assert counts.means({"divergence": 6.0, "sampled_divergence": 6.0, "loss": 6.0}) == {
        "divergence": 2.0, "sampled_divergence": 0.2, "loss": 6.0,
    }  # fmt: skip
    alone = Counts.of([[own]])
    assert alone.weights(None) == Weights(0.0, 0.1, None)
    assert "divergence" not in alone.means({"divergence": 0.0, "sampled_divergence": 1.0})


def test_counts_have_the_lengths_of_sampled_answers() -> None:
    whole, cut = SampledAnswer((1, 2, 3), 1, True, (-1.0,) * 2), SampledAnswer((1, *range(7)), 1, False, (-1.0,) * 7)
    counts = Counts.of([[Example((1, 2, 3, 4), 1, True), whole], [cut, whole]])
    assert counts.lengths() == {"sampled_length": pytest.approx(11 / 3), "sampled_cut_off": pytest.approx(1 / 3)}
    assert Counts.of([[Example((1, 2, 3, 4), 1, True)]]).lengths() == {}


def log_line(step: int, length: float | None, cut_off: float | None = 0.0) -> LogLine:
    return LogLine(
        step=step, layers=2, loss=1.0, grad_norm=1.0, learning_rate=1e-3, tokens=9, tokens_per_s=1.0, mfu=0.1,
        sampled_length=length, sampled_cut_off=cut_off,
    )  # fmt: skip


def test_samples_that_end_up_longer_than_the_teachers_text_are_told() -> None:
    growing = [log_line(step, 10.0 + step, step / 100) for step in range(40)]
    found = sample_lengths([log_line(0, None, None), *growing], [8, 12])
    assert found is not None
    assert (found.text, found.first, found.last) == (10, 11.5, 47.5)
    assert found.cut_off == pytest.approx(0.375)
    assert found.too_long
    summary = TrainSummary(
        steps=40, kept=40, learning_rate=1e-3, precision="fp32", supervised_tokens=1, tokens=1, seconds=1.0,
        resumed_at=0, final=StepValues(loss=1.0, grad_norm=1.0, learning_rate=1e-3, tokens=9), samples=found, params=1,
    )  # fmt: skip
    (told,) = summary.findings("student", "train")
    assert "47.5 tokens" in told and "37.5 %" in told and "The teacher's text has 10 tokens" in told
    short = sample_lengths(
        [log_line(step, 60.0 - step) for step in range(50)], [10]
    )  # of a student that learns to stop
    assert short is not None and short.last == 13
    assert not summary.model_copy(update={"samples": short.model_copy(update={"last": 12.5})}).findings("it", "train")
    assert sample_lengths([log_line(0, None, None)], [10]) is None


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
def test_a_token_that_ends_a_sample_is_learnt_like_all_others(tiny_model: Path, tmp_path: Path, at_once: bool) -> None:
    """Every token that ends an answer, which padding has too, and special tokens within the answer."""
    teacher, chat = load_causal_lm(tiny_model).eval(), load_chat(tiny_model)
    student, row = from_teacher_layers(teacher, 2).eval(), rows_of(tiny_model, tmp_path)[0]
    prompt, special = row.ids[: row.n_prompt], tuple(sorted(chat.stop_ids))
    mine = [
        SampledAnswer((*prompt, *(() if at_once else (7, *special, 9)), stop), len(prompt), True, ())
        for stop in special
    ]
    mine = [dataclasses.replace(own, log_probs=(-1.0,) * own.n_supervised) for own in mine]
    task = LanguageTask(
        teacher, objective=ForwardKL(name="forward_kl"), student_samples=StudentSamples(OnPolicy(), chat, 128, 128)
    )
    for pad_id in {chat.eos_id, 0}:
        batch = task.batch([*mine, row], pad_id)
        assert batch.sampled is not None
        told = sorted(batch.labels[batch.sampled].tolist())
        assert told == sorted(token for own in mine for token in own.ids[own.n_prompt :])
        with grouped_attention(student, teacher), torch.no_grad():
            sums = Learner(student, task, teacher.config.vocab_size, False)(batch)
        total, tokens = want_loss("forward_kl", student, teacher, mine, 1.0)
        assert tokens == len(told)
        assert sums.sampled_divergence.item() == pytest.approx(total, rel=2e-4, abs=1e-6)


class Stop(Exception):
    """Stands for killing a run."""


def own_run(
    folder: Path,
    out: Path,
    rows: list[Example],
    share: float = 0.5,
    refresh: int = 3,
    stop_at: int | None = None,
    prompts: Sequence[Example] = (),
) -> tuple[LoopSummary, list[list[list[Example]]]]:
    """Train on a mixture of both texts; returns the summary and the rows of every step."""
    teacher, chat = load_causal_lm(folder), load_chat(folder)
    student, groups = from_teacher_layers(teacher, 2), []
    how = StudentSamples(OnPolicy(share=share, refresh=refresh), chat, 128, 12, prompts)
    wrote, gave = StepLog.write, SamplingPlan.group

    def write(self: StepLog, line: LogLine) -> None:
        if line.step == stop_at:
            raise Stop
        wrote(self, line)

    def group(self: SamplingPlan, step: int) -> list[list[Example]]:
        groups.append(gave(self, step))
        return groups[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepLog, "write", write)
        patch.setattr(SamplingPlan, "group", group)
        summary = train_model(
            student, LanguageTask(teacher, student_samples=how), rows, (),
            Schedule(epochs=6, batch_tokens=256, gradient_accumulation=2, learning_rate=3e-3, checkpoint_every=2),
            LoopOptions(out=out, name="student", vocab_size=chat.vocab_size, pad_id=0, seed=5),
        )  # fmt: skip
    torch.save(student.state_dict(), out / "final.pt")
    return summary, groups


def test_a_run_killed_within_a_round_ends_in_the_same_bits(tiny_model: Path, tmp_path: Path) -> None:
    rows = rows_of(tiny_model, tmp_path)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    _, groups = own_run(tiny_model, tmp_path / "whole", rows)
    with pytest.raises(Stop):
        own_run(tiny_model, tmp_path / "killed", rows, stop_at=4)
    summary, resumed = own_run(tiny_model, tmp_path / "killed", rows)
    assert summary.resumed_at == 4  # the second step of the round from 3 to 5
    assert resumed == groups[4:]
    whole, killed = (torch.load(tmp_path / name / "final.pt") for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    assert read_log(tmp_path / "whole") == read_log(tmp_path / "killed")
    flat = [row for group in groups for batch in group for row in batch]
    own = [row for row in flat if isinstance(row, SampledAnswer)]
    assert 0.3 < len(own) / len(flat) < 0.7
    assert len({row.ids for row in own}) > 0.9 * len(own)  # sampled again each time


def test_prompts_that_the_teacher_did_not_answer_are_answered_by_the_student_alone(
    tiny_model: Path, tmp_path: Path
) -> None:
    *rows, one, two, three = rows_of(tiny_model, tmp_path)
    prompts = [Example(row.ids[: row.n_prompt], row.n_prompt, eos_supervised=False) for row in (one, two, three)]
    _, groups = own_run(tiny_model, tmp_path, rows, prompts=prompts)
    flat = [row for group in groups for batch in group for row in batch]
    own = [row for row in flat if isinstance(row, SampledAnswer)]
    assert {row.ids[: row.n_prompt] for row in own} == {prompt.ids for prompt in prompts}
    assert {row for row in flat if not isinstance(row, SampledAnswer)} <= set(rows)


def test_fully_on_policy_the_loss_is_the_mean_over_sampled_tokens_and_falls(tiny_model: Path, tmp_path: Path) -> None:
    rows = rows_of(tiny_model, tmp_path)
    summary, groups = own_run(tiny_model, tmp_path, rows, share=1.0, refresh=1)
    lines = [json.loads(line) for line in (tmp_path / "student.log.jsonl").read_text().splitlines()]
    for line, group in zip(lines, groups, strict=True):
        assert line["tokens"] == sum(row.n_supervised for batch in group for row in batch)
        assert line["loss"] == pytest.approx(line["sampled_divergence"], rel=1e-5)
        own = [row for batch in group for row in batch]
        assert line["sampled_length"] == pytest.approx(sum(row.n_supervised for row in own) / len(own))
        assert line["sampled_cut_off"] == pytest.approx(sum(not row.eos_supervised for row in own) / len(own))
        assert "divergence" not in line
    assert lines[-1]["sampled_divergence"] < 0.5 * lines[0]["sampled_divergence"]
    assert summary.samples is not None
    assert summary.samples.text == pytest.approx(sum(row.n_supervised for row in rows) / len(rows))
    assert summary.samples.first == pytest.approx(lines[0]["sampled_length"], rel=0.2)


@pytest.mark.parametrize(
    ("objective", "student"),
    [
        ({"name": "jsd", "on_policy": {"refresh": 2}}, {"layers": 2}),
        ({"name": "contrastive", "on_policy": {}, "hidden": {}}, {"layers": 2, "hidden": 32}),
        (
            {"on_policy": {"loss": "sampled_reverse_kl", "temperature": 0.8, "refresh": 2}},
            {"layers": 2, "vocabulary": "workload"},
        ),
    ],
    ids=["gkd", "contrastive", "sampled"],
)
def test_a_recipe_sets_it(tmp_path: Path, workload: Path, objective: dict[str, Any], student: dict[str, Any]) -> None:
    teacher = make_model(tmp_path / "teacher", context=256)
    recipe = Recipe.model_validate(
        {
            "name": "lights",
            "data": {"prompts": workload / "train.jsonl", "test": workload / "test.jsonl"},
            "chat": {"context": 256},
            "teacher": {"model": str(teacher)},
            "generate": {"max_new_tokens": 8},
            "student": student,
            "train": {"epochs": 1, "batch_tokens": 512, "objective": objective},
            "trainer": {"tracker": "none"},
        }
    )
    out = tmp_path / "trained"
    out.mkdir()
    run_stage(STAGE, recipe, {"generate": workload}, out)
    lines = [json.loads(line) for line in (out / "student.log.jsonl").read_text().splitlines()]
    assert len(lines) == (out / "control.log.jsonl").read_text().count("\n")  # the control has the same steps
    assert all(line["sampled_divergence"] != 0 and line["divergence"] > 0 for line in lines)


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ({"name": "sft", "on_policy": {}}, "sft.on_policy"),
        ({"name": "contrastive", "on_policy": {"loss": "sampled_reverse_kl"}}, "contrastive.on_policy.loss"),
        ({"on_policy": {}, "targets": {"kind": "counts"}}, "set targets: online"),
        ({"on_policy": {"share": 0.0}}, "greater than 0"),
    ],
)
def test_settings_that_exclude_each_other_are_rejected(objective: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Train.model_validate({"objective": objective})
