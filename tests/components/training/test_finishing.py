"""A finished file has the weights that were trained, is nearer to its checkpoint, and is never worse than before."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader

from fixtures import light_rows, make_tokenizer
from potstill.components.chat.format import load_chat
from potstill.components.conversion.convert import convert_checkpoint, file_types
from potstill.components.conversion.file_weights import largest_difference
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.finishing import FinishTask, LatentWeights, finish_weights, whole_rows
from potstill.components.training.rows import training_examples
from potstill.components.training.students import save_model
from potstill.core.errors import StepError
from potstill.core.recipe import Finish
from potstill.core.records import parse_row

QUANTIZATIONS = ("Q8_0", "Q4_0", "Q4_K_M", "Q6_K")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with random weights, uneven norms, and rows of 256 weights, as the K types need them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("finish")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400, hidden_size=256, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.06, bos_token_id=None,
        eos_token_id=2, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    save_model(model, make_tokenizer(folder / "tokenizer"), folder / "model")
    return folder / "model"


def task(checkpoint: Path, quantization: str) -> FinishTask:
    chat = load_chat(checkpoint)
    rows = [parse_row(row, (), True, f"row {n}") for n, row in enumerate(light_rows(["", "please ", "now "]))]
    examples = whole_rows(training_examples(rows, chat, 256))
    return FinishTask(checkpoint, quantization, examples[:-8], examples[-8:], chat.vocab_size, chat.eos_id, 0)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_model_in_training_has_the_values_of_the_file(checkpoint: Path, tmp_path: Path, quantization: str) -> None:
    """By gguf-py, which did not write the file: every value of every tensor, to the bit."""
    convert_checkpoint(checkpoint, tmp_path / "m.gguf", quantization=quantization)
    model = load_causal_lm(checkpoint)
    LatentWeights(model, file_types(checkpoint, quantization))
    values = {name: p.detach().numpy() for name, p in model.named_parameters()}
    assert largest_difference(tmp_path / "m.gguf", checkpoint, values) == 0.0
    tensors = {t.name: t for t in GGUFReader(tmp_path / "m.gguf").tensors}
    down = tensors["blk.0.ffn_down.weight"]
    assert down.tensor_type not in (GGMLQuantizationType.F32, GGMLQuantizationType.F16)
    found = gguf.dequantize(down.data, down.tensor_type)
    np.testing.assert_array_equal(found, values["model.layers.0.mlp.down_proj.weight"])


@pytest.mark.parametrize("quantization", ["Q4_0", "Q4_K_M"])
def test_finishing_wins_back_and_the_file_has_the_trained_weights(
    checkpoint: Path, tmp_path: Path, quantization: str
) -> None:
    settings = Finish(steps=30, rows=4, learning_rate=1e-4, norm_learning_rate=1e-3)
    found, values = finish_weights(task(checkpoint, quantization), settings, tmp_path / "finished")
    assert found.kl_before == found.points[0].kl and found.kl_after == min(p.kl for p in found.points)
    assert found.won_back > 0.5 and found.kept > 0
    for source, name in ((checkpoint, "plain"), (tmp_path / "finished", "finished")):
        convert_checkpoint(source, tmp_path / f"{name}.gguf", quantization=quantization, metadata={"general.name": "m"})
    assert (tmp_path / "plain.gguf").stat().st_size == (tmp_path / "finished.gguf").stat().st_size
    assert largest_difference(tmp_path / "finished.gguf", tmp_path / "finished", values) <= 1e-6
    assert largest_difference(tmp_path / "plain.gguf", checkpoint, values) > 1e-4  # the training changed the file


def test_norms_learn_too(checkpoint: Path, tmp_path: Path) -> None:
    settings = Finish(steps=5, rows=4, learning_rate=1e-12, norm_learning_rate=1e-3)
    found, values = finish_weights(task(checkpoint, "Q4_0"), settings, tmp_path / "finished")
    before = {name: p.detach().numpy() for name, p in load_causal_lm(checkpoint).named_parameters()}
    changed = {name for name, value in values.items() if value.ndim == 1 and not np.array_equal(value, before[name])}
    assert found.kept > 0 and changed == {name for name, value in values.items() if value.ndim == 1}


@pytest.mark.parametrize("rate", [0.3, 1e30])
def test_a_wrong_rate_is_stopped_and_rolled_back(checkpoint: Path, tmp_path: Path, rate: float) -> None:
    """The file is then that of plain quantization, byte by byte."""
    settings = Finish(steps=40, rows=4, learning_rate=rate, norm_learning_rate=rate)
    found, _ = finish_weights(task(checkpoint, "Q4_0"), settings, tmp_path / "finished")
    assert (found.kept, found.won_back) == (0, 0.0) and found.stopped < found.steps
    assert "was undone" in found.sentence
    for source, name in ((checkpoint, "plain"), (tmp_path / "finished", "finished")):
        convert_checkpoint(source, tmp_path / f"{name}.gguf", quantization="Q4_0", metadata={"general.name": "m"})
    assert (tmp_path / "plain.gguf").read_bytes() == (tmp_path / "finished.gguf").read_bytes()


def test_the_same_seed_gives_the_same_weights(checkpoint: Path, tmp_path: Path) -> None:
    settings = Finish(steps=3, rows=4, learning_rate=1e-3, norm_learning_rate=1e-3)
    first, second = (finish_weights(task(checkpoint, "Q8_0"), settings, tmp_path / name)[1] for name in ("a", "b"))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_without_held_out_rows_nothing_is_trained(checkpoint: Path, tmp_path: Path) -> None:
    given = task(checkpoint, "Q4_0")
    empty = FinishTask(checkpoint, "Q4_0", given.examples, [], given.vocab_size, given.pad_id, 0)
    with pytest.raises(StepError, match=r"Set data\.validation"):
        finish_weights(empty, Finish(), tmp_path / "finished")
