"""Students start from the weights that the recipe names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fixtures import make_model
from potstill.components.chat.format import Example, load_chat
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.students import (
    StudentStart,
    choose_layers,
    from_teacher_layers,
    retied,
    save_model,
)
from potstill.core.errors import RecipeError
from potstill.core.recipe import FromCheckpoint, TeacherLayers


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_kept_layers_and_embeddings_are_the_teachers_own(tmp_path: Path, architecture: str) -> None:
    teacher = load_causal_lm(make_model(tmp_path, layers=5, architecture=architecture))
    student = from_teacher_layers(teacher, 3)
    for new, old in enumerate([0, 2, 4]):
        for name, weight in student.base_model.layers[new].state_dict().items():
            assert torch.equal(weight, teacher.base_model.layers[old].state_dict()[name])
    assert torch.equal(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight)
    whole = from_teacher_layers(teacher, 5)
    ids = torch.randint(3, 300, (1, 20))
    with torch.no_grad():
        assert torch.equal(whole(ids).logits, teacher(ids).logits)


def test_more_layers_than_the_teacher_has_are_rejected(tiny_model: Path) -> None:
    with pytest.raises(RecipeError, match="9 is more than the teacher's 4"):
        choose_layers(TeacherLayers(layers=9), load_causal_lm(tiny_model), [])


def test_saved_student_is_whole(tiny_model: Path, tmp_path: Path) -> None:
    student = from_teacher_layers(load_causal_lm(tiny_model), 2)
    save_model(student, tiny_model, tmp_path / "out")
    again = load_causal_lm(tmp_path / "out")
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), again.parameters(), strict=True))
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tiny_model / "tokenizer.json").read_bytes()


def test_missing_weights_are_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(RecipeError, match="cannot load"):
        load_causal_lm(tmp_path)


def test_a_pruned_student_has_the_shape_of_the_recipe(tmp_path: Path) -> None:
    folder = make_model(tmp_path, layers=4)
    teacher = load_causal_lm(folder)
    config = teacher.config
    chat = load_chat(folder)
    examples = [Example(tuple(range(3, 40)), 5, True)]
    wanted = TeacherLayers(layers=3, layer_choice="influence", ffn=config.intermediate_size // 2, kv_heads=1)
    kept = choose_layers(wanted, teacher, examples)
    start = StudentStart(wanted, chat, 64, 0, teacher=teacher, kept_layers=kept, examples=examples)
    student = start.build()
    assert student.config.num_hidden_layers == 3
    assert student.config.intermediate_size == config.intermediate_size // 2
    assert student.config.num_key_value_heads == 1
    # importance is deterministic, so the control starts from the same weights
    assert choose_layers(wanted, teacher, examples) == kept
    again = start.build()
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), again.parameters(), strict=True))


def test_settings_that_nothing_would_read_are_rejected() -> None:
    with pytest.raises(ValueError, match="needs layers, hidden, ffn or kv_heads"):
        TeacherLayers()
    with pytest.raises(ValueError, match="ffn"):
        FromCheckpoint.model_validate({"init": "checkpoint", "model": "x", "ffn": 8})
    with pytest.raises(ValueError, match="layer_choice: influence needs layers"):
        TeacherLayers(ffn=8, layer_choice="influence")


@pytest.mark.parametrize("tied", [False, True])
def test_heads_are_tied_or_untied_by_the_recipe(tmp_path: Path, tied: bool) -> None:
    teacher = load_causal_lm(make_model(tmp_path / "model"))  # its head is its embedding
    ids, chat = torch.arange(3, 20)[None], load_chat(tmp_path / "model")
    if tied:
        teacher = retied(teacher)
        teacher.get_output_embeddings().weight.data.mul_(2)
    wanted = TeacherLayers(layers=4, tied=tied)
    student = StudentStart(wanted, chat, 64, 0, teacher=teacher, kept_layers=[0, 1, 2, 3]).build()
    embedding, head = student.get_input_embeddings().weight, student.get_output_embeddings().weight
    assert (embedding is head) == tied == student.config.tie_word_embeddings
    assert torch.equal(embedding, teacher.get_input_embeddings().weight)
    assert torch.equal(head, embedding)
    save_model(student, tmp_path / "model", tmp_path / "out")
    again = load_causal_lm(tmp_path / "out")
    assert again.num_parameters() == student.num_parameters()
    torch.testing.assert_close(again(ids).logits, student(ids).logits)
