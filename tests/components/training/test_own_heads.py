"""A head of its own in the weights counts, whatever config.json says: in students, sizes and the exported file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures import make_model
from potstill.components.chat.format import Example, load_chat
from potstill.components.conversion.convert import convert_checkpoint
from potstill.components.models.safetensors import stored_head
from potstill.components.models.source import load_spec
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.pruning import cut_width, measure_importance
from potstill.components.training.students import StudentStart, from_teacher_layers, retied, save_model
from potstill.core.recipe import FromCheckpoint
from potstill.stages.check.check import check_recipe

if TYPE_CHECKING:
    from workshop import Workshop


def change(folder: Path, *, tied: bool, head: torch.Tensor | None) -> None:
    """Put a head into the weights, or none, and the tying into the config."""
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight", None)
    save_file(weights | ({} if head is None else {"lm_head.weight": head}), folder / "model.safetensors")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": tied}))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A model whose config ties the head to the embedding, with a head of its own in the weights."""
    folder = make_model(tmp_path / "own", layers=3)
    embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    change(folder, tied=True, head=embedding + 0.1 * torch.randn(embedding.shape))
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[1, 50, 60, 70, 80]])).logits
    return found


def test_students_keep_both_matrices(own: Path, tmp_path: Path) -> None:
    teacher = load_causal_lm(own)
    for student in (from_teacher_layers(teacher, 3), start(own).build()):
        assert torch.equal(logits(student), logits(teacher))
        save_model(student, own, tmp_path / "saved")
        assert stored_head(tmp_path / "saved") == "own"
        assert json.loads((tmp_path / "saved/config.json").read_text())["tie_word_embeddings"] is False
        assert torch.equal(logits(load_causal_lm(tmp_path / "saved")), logits(teacher))


def start(folder: Path) -> StudentStart:
    checkpoint = FromCheckpoint.model_validate({"init": "checkpoint", "model": str(folder)})
    return StudentStart(checkpoint, load_chat(folder), 64, 0, checkpoint=folder)


def test_a_pruned_student_keeps_the_teachers_head(own: Path) -> None:
    teacher = load_causal_lm(own)
    student = from_teacher_layers(teacher, 3)
    examples = [Example(tuple(range(5, 25)), 3, False)]
    narrow = cut_width(student, measure_importance(student, examples), hidden=None, ffn=None, kv_heads=1)
    assert torch.equal(narrow.get_output_embeddings().weight, teacher.get_output_embeddings().weight)
    assert torch.equal(narrow.get_input_embeddings().weight, teacher.get_input_embeddings().weight)


def test_tying_by_the_recipe_takes_the_embedding(own: Path) -> None:
    tied = retied(load_causal_lm(own))
    assert tied.config.tie_word_embeddings
    assert torch.equal(tied.get_output_embeddings().weight, load_causal_lm(own).get_input_embeddings().weight)


def test_the_exported_file_and_the_predicted_size_have_both_matrices(own: Path, tmp_path: Path) -> None:
    convert_checkpoint(own, tmp_path / "own.gguf", quantization="F32")
    stored = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "own.gguf").tensors}
    weights = load_file(own / "model.safetensors")
    assert (stored["output.weight"] == weights["lm_head.weight"].numpy()).all()
    assert (stored["token_embd.weight"] == weights["model.embed_tokens.weight"].numpy()).all()
    assert not load_spec(str(own)).tied


def test_a_copy_of_the_embedding_stays_tied(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "copy", layers=2)
    change(folder, tied=True, head=load_file(folder / "model.safetensors")["model.embed_tokens.weight"].clone())
    assert stored_head(folder) == "copy" and load_spec(str(folder)).tied
    assert load_causal_lm(folder).config.tie_word_embeddings
    convert_checkpoint(folder, tmp_path / "copy.gguf")
    assert "output.weight" not in {tensor.name for tensor in gguf.GGUFReader(tmp_path / "copy.gguf").tensors}


def test_a_head_that_is_promised_and_not_there_is_refused(workshop: Workshop) -> None:
    """transformers would make it of random numbers, and only warn."""
    change(workshop.model, tied=False, head=None)
    message = workshop.refused(workshop.recipe())
    assert (
        message.startswith("teacher.model: ") and "no lm_head.weight, so the output matrix would be random" in message
    )


def test_the_check_counts_a_head_of_its_own(workshop: Workshop) -> None:
    before = check_recipe(workshop.recipe()).student.parameters
    change(workshop.model, tied=True, head=torch.ones(384, 64))
    after = check_recipe(workshop.recipe()).student.parameters
    assert before is not None and after == before + 384 * 64
