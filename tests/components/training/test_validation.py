"""The student that leaves a training is the best one on validation rows, also where the training was interrupted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fixtures import light_rows, read_log, write_jsonl
from potstill.components.chat.format import Example, load_chat
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.checkpoints import StepLog
from potstill.components.training.learner import LanguageTask
from potstill.components.training.loop import LoopOptions, train_model
from potstill.components.training.rows import training_examples
from potstill.components.training.setup import TrainingSetup
from potstill.components.training.students import from_teacher_layers
from potstill.core.artifacts.training import LogLine, LoopSummary
from potstill.core.errors import StepError
from potstill.core.recipe import Schedule

# three rows are learnt by heart, so that other rows get worse again before the end
BY_HEART = Schedule(
    epochs=40, batch_tokens=256, learning_rate=0.01, min_lr_ratio=1, checkpoint_every=3, tracker="none"
)  # fmt: skip


class Stop(Exception):
    """Stands for killing a run."""


@pytest.fixture
def rows(tiny_model: Path, tmp_path: Path) -> tuple[list[Example], list[Example]]:
    """Rows to train on, and rows for validation."""
    from potstill.core.records import read_rows

    chat, files = load_chat(tiny_model), {"train": light_rows([""])[:3], "validation": light_rows(["now "])[6:10]}
    train, validation = (
        training_examples(read_rows(write_jsonl(tmp_path / f"{name}.jsonl", some)), chat, 128)
        for name, some in files.items()
    )
    return train, validation


def fit(
    model: Path,
    out: Path,
    rows: tuple[list[Example], list[Example]],
    schedule: Schedule = BY_HEART,
    *,
    distil: bool = False,
    stop_at: int | None = None,
) -> tuple[LoopSummary, dict[str, torch.Tensor]]:
    """Train a student of two layers; its summary and weights. By the loop's clock, each step takes one second."""
    teacher = load_causal_lm(model)
    student = from_teacher_layers(teacher, 2)
    wrote, now = StepLog.write, [0]

    def write(self: StepLog, line: LogLine) -> None:
        if line.step == stop_at:
            raise Stop
        wrote(self, line)
        now[0] += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepLog, "write", write)
        patch.setattr("potstill.components.training.loop.time", SimpleNamespace(monotonic=lambda: now[0]))
        options = LoopOptions(out=out, name="student", vocab_size=teacher.config.vocab_size, pad_id=0, seed=5)
        summary = train_model(student, LanguageTask(teacher if distil else None), *rows, schedule, options)
    return summary, student.state_dict()


@torch.no_grad()
def cross_entropy(model_folder: Path, weights: dict[str, torch.Tensor], rows: list[Example]) -> float:
    """The loss of a student, computed row by row."""
    student = from_teacher_layers(load_causal_lm(model_folder), 2).eval()
    student.load_state_dict(weights)
    total, tokens = 0.0, 0
    for row in rows:
        log_p = student(torch.tensor([row.ids])).logits[0, row.n_prompt - 1 : -1].log_softmax(-1)
        total -= float(log_p.gather(1, torch.tensor(row.ids[row.n_prompt :])[:, None]).sum())
        tokens += len(row.ids) - row.n_prompt
    return total / tokens


def test_the_best_weights_are_kept_and_the_start_is_measured(
    tiny_model: Path, tmp_path: Path, rows: tuple[list[Example], list[Example]]
) -> None:
    before = from_teacher_layers(load_causal_lm(tiny_model), 2).state_dict()
    summary, weights = fit(tiny_model, tmp_path / "out", rows)
    points = {point.step: point.loss for point in summary.validation}
    assert list(points) == list(range(0, 41, 4))
    assert points[0] == pytest.approx(cross_entropy(tiny_model, before, rows[1]), rel=1e-4)
    assert 0 < summary.kept < summary.steps == 40
    assert points[summary.kept] == min(points.values()) < points[40]
    assert cross_entropy(tiny_model, weights, rows[1]) == pytest.approx(points[summary.kept], rel=1e-4)
    logged = {
        line["step"] + 1: line["validation_loss"] for line in read_log(tmp_path / "out") if "validation_loss" in line
    }
    assert {0: points[0], **logged} == points


@pytest.mark.parametrize("stop_at", [1, 26, 38])
def test_an_interrupted_run_keeps_the_same_weights(
    tiny_model: Path, tmp_path: Path, rows: tuple[list[Example], list[Example]], stop_at: int
) -> None:
    """The run stops before its first checkpoint, before the best weights, and after them."""
    whole, expected = fit(tiny_model, tmp_path / "whole", rows)
    assert 26 < whole.kept < 38
    with pytest.raises(Stop):
        fit(tiny_model, tmp_path / "killed", rows, stop_at=stop_at)
    resumed, weights = fit(tiny_model, tmp_path / "killed", rows)
    assert resumed.resumed_at == stop_at // 3 * 3
    assert resumed.seconds == whole.seconds == 40
    assert (resumed.kept, resumed.validation) == (whole.kept, whole.validation)
    assert all(torch.equal(expected[name], weights[name]) for name in expected)


def test_without_validation_rows_the_last_weights_are_kept(
    tiny_model: Path, tmp_path: Path, rows: tuple[list[Example], list[Example]]
) -> None:
    summary, weights = fit(tiny_model, tmp_path / "out", (rows[0], []))
    assert (summary.kept, summary.validation) == (40, ())
    chosen = fit(tiny_model, tmp_path / "chosen", rows)[1]
    assert any(not torch.equal(weights[name], chosen[name]) for name in weights)


@pytest.mark.parametrize("rank", [None, 2])
def test_a_training_that_does_harm_gives_the_start_back_and_says_so(
    tiny_model: Path, tmp_path: Path, rows: tuple[list[Example], list[Example]], rank: int | None
) -> None:
    teacher, chat = load_causal_lm(tiny_model), load_chat(tiny_model)
    schedule = Schedule(epochs=3, batch_tokens=256, learning_rate=0.5, lora_rank=rank, tracker="none")
    out = tmp_path / "out"
    setup = TrainingSetup(*rows, schedule, chat.vocab_size, 0, tiny_model, out, 5)
    setup.save_start(lambda: from_teacher_layers(teacher, 2))
    summary = setup.fit("student", lambda: from_teacher_layers(teacher, 2), LanguageTask(teacher))
    assert summary.kept == 0
    start, kept = (load_causal_lm(out / name).state_dict() for name in ("start", "student"))
    assert all(torch.equal(start[name], kept[name]) for name in start)
    (said,) = summary.findings("student", "train")
    assert said.startswith("The training of the student ended worse than it started")
    assert "The student keeps the weights that it had before training" in said
    assert said.endswith("Lower train.learning_rate, which is 0.5.")
    # nothing of the training's own is left beside the model
    assert not [path for path in (out / "student").iterdir() if path.is_dir()]
    assert [path.name for path in (out / "student").glob("*.safetensors")] == ["model.safetensors"]


def test_a_loss_on_validation_rows_that_is_not_finite_stops_the_run(
    tiny_model: Path, tmp_path: Path, rows: tuple[list[Example], list[Example]]
) -> None:
    """The weights break in the last step, after its loss was taken."""
    schedule = Schedule(epochs=1, batch_tokens=4096, learning_rate=1e38, warmup_ratio=0, tracker="none")
    with pytest.raises(StepError, match=r"validation rows is (nan|inf) after 1 steps\. Lower learning_rate"):
        fit(tiny_model, tmp_path / "out", rows, schedule)
