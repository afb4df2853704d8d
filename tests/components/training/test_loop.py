"""The loop learns, and a run that was killed and resumed ends in the same bits as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaMLP

from fixtures import light_rows, read_log, write_jsonl
from potstill.components.chat.format import Example, load_chat
from potstill.components.models.layers import even_layers
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.batches import pack
from potstill.components.training.forward import layers_alone
from potstill.components.training.learner import LanguageTask, Learner
from potstill.components.training.loop import LoopOptions, train_model
from potstill.components.training.rows import training_examples
from potstill.components.training.students import from_teacher_layers
from potstill.core.errors import DataError, StepError
from potstill.core.recipe import Schedule
from potstill.core.records import read_rows

RUN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from potstill.components.chat.format import load_chat
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.learner import LanguageTask
from potstill.components.training.loop import LoopOptions, train_model
from potstill.components.training.students import from_teacher_layers
from potstill.core.recipe import Schedule
from potstill.core.recipe.objective import ForwardKL
from potstill.core.records import read_rows
from potstill.components.training.rows import training_examples
model, rows, out = map(Path, sys.argv[1:4])
chat = load_chat(model)
teacher = load_causal_lm(model)
examples = training_examples(read_rows(rows), chat, 128)
schedule = Schedule(optimizer="muon", epochs=20, batch_tokens=256, gradient_accumulation=2, learning_rate=3e-3,
                    checkpoint_every=3)
student = from_teacher_layers(teacher, 2)
divergence = ForwardKL(name="forward_kl", temperature=2.0, hard_label_weight=0.3)
done = train_model(student, LanguageTask(teacher, objective=divergence), examples, examples[:4], schedule,
                   LoopOptions(out=out, name="student", vocab_size=chat.vocab_size, pad_id=0, seed=5))
torch.save(student.state_dict(), out / "final.pt")
(out / "validation.json").write_text(done.model_dump_json(include={"kept", "steps", "validation"}))
"""


def start(model: Path, rows: Path, out: Path) -> subprocess.Popen[bytes]:
    out.mkdir(exist_ok=True)
    with (out / "stderr").open("w") as log:
        return subprocess.Popen([sys.executable, "-c", RUN, str(model), str(rows), str(out)], stderr=log)


def test_killed_and_resumed_run_ends_in_the_same_bits(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", light_rows(["", "please "]))
    whole = start(tiny_model, rows, tmp_path / "whole")
    assert whole.wait() == 0, (tmp_path / "whole" / "stderr").read_text()
    killed = start(tiny_model, rows, tmp_path / "killed")
    log = tmp_path / "killed" / "student.log.jsonl"
    while killed.poll() is None and not (log.exists() and log.read_text().count("\n") >= 8):
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "it ended before it could be killed: make the run longer"
    assert list((tmp_path / "killed" / "student").glob("checkpoint-*"))
    resumed = start(tiny_model, rows, tmp_path / "killed")
    assert resumed.wait() == 0
    expected, got = (torch.load(tmp_path / n / "final.pt") for n in ("whole", "killed"))
    assert all(torch.equal(expected[k], got[k]) for k in expected)
    # and so do the log and the choice of the weights, to the last digit
    assert len({(tmp_path / name / "validation.json").read_text() for name in ("whole", "killed")}) == 1
    assert read_log(tmp_path / "whole") == read_log(tmp_path / "killed")


def train(model_folder: Path, tmp_path: Path, **changes: object) -> list[dict[str, float]]:
    chat = load_chat(model_folder)
    teacher = load_causal_lm(model_folder)
    examples = training_examples(read_rows(write_jsonl(tmp_path / "rows.jsonl", light_rows([""]))), chat, 128)
    schedule = Schedule(**{"epochs": 15, "batch_tokens": 512, "learning_rate": 3e-3} | changes)  # type: ignore[arg-type]
    train_model(
        from_teacher_layers(teacher, 2), LanguageTask(teacher), examples, examples[:3], schedule,
        LoopOptions(out=tmp_path, name="student", vocab_size=chat.vocab_size, pad_id=0, seed=5),
    )  # fmt: skip
    return read_log(tmp_path)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_student_comes_closer_to_its_teacher(tiny_model: Path, tmp_path: Path, optimizer: str) -> None:
    log = train(tiny_model, tmp_path, optimizer=optimizer)
    assert log[-1]["divergence"] < 0.3 * log[0]["divergence"]
    assert log[-1]["validation_divergence"] == pytest.approx(log[-1]["divergence"], rel=0.5)


@torch.no_grad()
def test_held_out_rows_are_what_is_measured(tiny_model: Path, tmp_path: Path) -> None:
    """A regression test: the rows were once accepted and not read, so the value must be that of these rows."""
    chat, teacher = load_chat(tiny_model), load_causal_lm(tiny_model).eval()
    student = from_teacher_layers(teacher, 2)
    examples = training_examples(read_rows(write_jsonl(tmp_path / "rows.jsonl", light_rows([""]))), chat, 128)
    held_out = training_examples(read_rows(write_jsonl(tmp_path / "other.jsonl", light_rows(["now "])[:5])), chat, 128)
    schedule = Schedule(epochs=2, batch_tokens=256, learning_rate=3e-3)
    with torch.enable_grad():
        train_model(
            student, LanguageTask(teacher), examples, held_out, schedule,
            LoopOptions(out=tmp_path, name="student", vocab_size=chat.vocab_size, pad_id=0, seed=5),
        )  # fmt: skip
    divergence, tokens = 0.0, 0
    for row in held_out:
        logits = (m.eval()(torch.tensor([row.ids])).logits[0, row.n_prompt - 1 : -1] for m in (teacher, student))
        log_p, log_q = (z.log_softmax(-1) for z in logits)
        divergence += float((log_p.exp() * (log_p - log_q)).sum())
        tokens += len(row.ids) - row.n_prompt
    last = read_log(tmp_path)[-1]
    assert last["validation_divergence"] == pytest.approx(divergence / tokens, rel=1e-3)
    assert last["validation_divergence"] != pytest.approx(last["divergence"], rel=1e-3)


def test_accumulation_gives_the_gradient_of_the_whole_batch(tiny_model: Path, tmp_path: Path) -> None:
    """Micro-batches with different token counts are weighted by tokens, not equally."""
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    large.mkdir()
    rows = read_rows(write_jsonl(tmp_path / "r.jsonl", light_rows([""])))
    tokens = sum(len(e.ids) for e in training_examples(rows, load_chat(tiny_model), 128))
    one = train(tiny_model, large, epochs=1, batch_tokens=tokens)
    many = train(tiny_model, small, epochs=1, batch_tokens=tokens // 4, gradient_accumulation=20)
    assert len(one) == len(many) == 1
    assert many[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)
    assert many[0]["grad_norm"] == pytest.approx(one[0]["grad_norm"], rel=1e-4)


def test_bf16_autocast_is_on(tiny_model: Path, tmp_path: Path) -> None:
    exact, rounded = tmp_path / "fp32", tmp_path / "bf16"
    exact.mkdir()
    rounded.mkdir()
    first = (
        train(tiny_model, exact, epochs=1)[0]["loss"],
        train(tiny_model, rounded, epochs=1, precision="bf16")[0]["loss"],
    )
    assert first[0] != first[1]
    assert first[0] == pytest.approx(first[1], rel=0.05)


def test_bf16_without_autocast_is_refused(tiny_model: Path) -> None:
    model = load_causal_lm(tiny_model)
    learner = Learner(model, LanguageTask(), model.config.vocab_size, autocast=True)
    with pytest.raises(StepError, match="autocast is off"):
        learner(pack([Example(tuple(range(3, 20)), 5, True)], 0))


def test_activation_checkpointing_runs_layers_again_and_changes_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, again, calls = tmp_path / "plain", tmp_path / "again", {"plain": 0, "again": 0}
    whole_forward = LlamaMLP.forward
    for folder in (plain, again):
        folder.mkdir()

        def counted(self: LlamaMLP, x: torch.Tensor, name: str = folder.name) -> torch.Tensor:
            calls[name] += self.training  # only the student's: the teacher is in evaluation mode
            return whole_forward(self, x)

        monkeypatch.setattr(LlamaMLP, "forward", counted)
        train(tiny_model, folder, epochs=2, activation_checkpointing=folder is again)
    first, second = ([{k: line[k] for k in ("loss", "grad_norm")} for line in read_log(f)] for f in (plain, again))
    assert first == second
    steps, layers, validations = len(first), 2, calls["plain"] - 2 * len(first)
    assert calls["again"] == 2 * steps * layers + validations


def test_a_loss_that_is_not_finite_stops_the_run(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match="learning_rate"):
        train(tiny_model, tmp_path, learning_rate=1e30, warmup_ratio=0.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"completion": {"role": "assistant", "content": ""}}, "learn to say nothing"),
        ({"messages": [{"role": "user", "content": "x" * 400}]}, "context"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_named(
    tiny_model: Path, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    rows = [*light_rows([""])[:2], light_rows([""])[2] | change]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=rf"rows\.jsonl:3: .*{reason}"):
        training_examples(read_rows(path), load_chat(tiny_model), 128)


def test_layers_alone_are_the_student_that_starts_from_them(tiny_model: Path) -> None:
    model = load_causal_lm(tiny_model)
    kept = even_layers(model.config.num_hidden_layers, 2)
    student = from_teacher_layers(model, 2)
    ids = torch.randint(5, 100, (2, 12), generator=torch.Generator().manual_seed(0))
    whole = model(ids).logits
    with layers_alone(model, kept) as layers:
        assert layers == 2
        alone = model(ids, use_cache=False).logits
    torch.testing.assert_close(alone, student(ids).logits)
    assert not torch.allclose(alone, whole)
    torch.testing.assert_close(model(ids).logits, whole)


def test_a_shallow_part_that_is_trained_too_starts_a_better_student(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", light_rows(["", "please ", "now "]))
    chat = load_chat(tiny_model)
    examples = training_examples(read_rows(rows), chat, 128)
    shallow_loss = {}
    for name, kept in {"both": even_layers(4, 2), "whole": ()}.items():
        model = load_causal_lm(tiny_model)
        schedule = Schedule(epochs=30, batch_tokens=256, learning_rate=3e-3)
        train_model(
            model, LanguageTask(), examples, (), schedule,
            LoopOptions(out=tmp_path / name, name="model", vocab_size=chat.vocab_size, pad_id=0, seed=5, shallow=kept),
        )  # fmt: skip
        log = [json.loads(line) for line in (tmp_path / name / "model.log.jsonl").read_text().splitlines()]
        assert {line["layers"] for line in log} == ({2, 4} if kept else {4})
        examined = train_model(
            from_teacher_layers(model, 2), LanguageTask(), examples, (), Schedule(epochs=0.01, batch_tokens=4096),
            LoopOptions(out=tmp_path / f"{name}-student", name="student", vocab_size=chat.vocab_size, pad_id=0, seed=5),
        )  # fmt: skip
        shallow_loss[name] = examined.final.loss
    assert shallow_loss["both"] < 0.5 * shallow_loss["whole"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_kernels_give_the_same_training(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", light_rows(["", "please "]))
    chat = load_chat(tiny_model)
    examples = training_examples(read_rows(rows), chat, 128)
    losses = []
    for kernel in ("torch", "compile"):
        teacher = load_causal_lm(tiny_model)
        done = train_model(
            from_teacher_layers(teacher, 2), LanguageTask(teacher, kernel=kernel), examples, (),
            Schedule(epochs=3, batch_tokens=512),
            LoopOptions(out=tmp_path / kernel, name="student", vocab_size=chat.vocab_size, pad_id=0, seed=5),
        )  # fmt: skip
        losses.append(done.final.loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] > 0
