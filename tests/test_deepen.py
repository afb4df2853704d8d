"""Deepening the embedded teacher: more layers, the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from potstill.components.runtimes.load import load_causal_lm
from test_workload import example_module


def test_a_deeper_model_answers_as_before_and_its_new_layers_learn(tiny_model: Path, tmp_path: Path) -> None:
    example_module("deepen").deepen(tiny_model, 7, tmp_path / "deep")
    before, after = load_causal_lm(tiny_model), load_causal_lm(tmp_path / "deep")
    assert after.config.num_hidden_layers == 7 and (tmp_path / "deep" / "tokenizer.json").is_file()
    ids = torch.tensor([[5, 9, 2, 30, 7]])
    # to the bit: what a new layer adds is zero
    assert torch.equal(before(ids).logits, after(ids).logits)
    after(ids, labels=ids).loss.backward()
    new = after.base_model.layers[1]
    assert all(float(weight.grad.abs().sum()) > 0 for weight in (new.self_attn.o_proj.weight, new.mlp.down_proj.weight))


def test_fewer_layers_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 4 layers: give a larger number"):
        example_module("deepen").deepen(tiny_model, 4, tmp_path / "deep")
    assert not (tmp_path / "deep").exists()
