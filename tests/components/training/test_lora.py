"""Only the adapters are trained, and none are left after merging."""

from __future__ import annotations

from pathlib import Path

import torch

from fixtures import light_rows, write_jsonl
from potstill.components.chat.format import load_chat
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.learner import LanguageTask
from potstill.components.training.lora import add_lora
from potstill.components.training.rows import training_examples
from potstill.components.training.setup import TrainingSetup
from potstill.components.training.students import from_teacher_layers
from potstill.core.recipe import Schedule
from potstill.core.records import read_rows


def test_merged_adapters_are_the_trained_model(tiny_model: Path) -> None:
    model = load_causal_lm(tiny_model)
    names, ids = set(model.state_dict()), torch.arange(3, 20)[None]
    merge = add_lora(model, 4, seed=0)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * 4  # two factors, seven matrices in each of four layers
    assert all("lora" in name for name in trained)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.normal_(std=0.1)
        before = model(ids).logits
        merge()
        torch.testing.assert_close(model(ids).logits, before)
    assert set(model.state_dict()) == names
    assert not torch.allclose(before, load_causal_lm(tiny_model)(ids).logits)


def test_a_saved_student_has_no_adapters(tiny_model: Path, tmp_path: Path) -> None:
    chat, teacher = load_chat(tiny_model), load_causal_lm(tiny_model)
    examples = training_examples(read_rows(write_jsonl(tmp_path / "rows.jsonl", light_rows([""]))), chat, 128)
    schedule = Schedule(epochs=4, batch_tokens=256, lora_rank=4, learning_rate=1e-2)
    setup = TrainingSetup(examples, [], schedule, chat.vocab_size, chat.eos_id, tiny_model, tmp_path, 0)
    summary = setup.fit("student", lambda: from_teacher_layers(teacher, 2), LanguageTask(teacher))
    start, student = from_teacher_layers(teacher, 2).state_dict(), load_causal_lm(tmp_path / "student").state_dict()
    assert start.keys() == student.keys()
    for name, weight in start.items():
        assert torch.equal(student[name], weight) != ("_proj." in name), name
    assert summary.params == sum(p.numel() for p in from_teacher_layers(teacher, 2).parameters())
