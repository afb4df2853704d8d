"""Pruning keeps what matters: planted dead parts are removed first, and the rest gives the same outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures import make_model
from potstill.components.chat.format import Example
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.training.pruning import cut_width, influential_layers, measure_importance
from potstill.core.errors import RecipeError


def examples(count: int = 6) -> list[Example]:
    rng = np.random.default_rng(0)
    return [Example(tuple(rng.integers(3, 300, n).tolist()), n // 2, True) for n in rng.integers(5, 40, count)]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_parts_that_do_nothing_are_pruned_and_the_outputs_stay(tmp_path: Path, architecture: str) -> None:
    teacher = load_causal_lm(make_model(tmp_path, architecture=architecture)).eval()
    config = teacher.config
    group, head_dim = config.num_attention_heads // config.num_key_value_heads, config.head_dim
    ffn, kv_heads = config.intermediate_size - 5, config.num_key_value_heads - 1
    with torch.no_grad():
        for layer in teacher.base_model.layers:
            dead = torch.randperm(config.intermediate_size)[:5]
            layer.mlp.down_proj.weight[:, dead] = 0
            start = int(torch.randint(config.num_key_value_heads, ())) * group * head_dim
            layer.self_attn.o_proj.weight[:, start : start + group * head_dim] = 0
    student = cut_width(teacher, measure_importance(teacher, examples()), ffn=ffn, kv_heads=kv_heads).eval()
    assert student.config.num_attention_heads == kv_heads * group
    ids = torch.randint(3, 300, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(student(ids).logits, teacher(ids).logits, atol=1e-4, rtol=1e-4)


def test_hidden_channels_that_carry_nothing_are_pruned(tmp_path: Path) -> None:
    teacher = load_causal_lm(make_model(tmp_path)).eval()
    hidden = teacher.config.hidden_size
    dead = torch.randperm(hidden)[:8]
    with torch.no_grad():
        teacher.get_input_embeddings().weight[:, dead] = 0
        for layer in teacher.base_model.layers:
            layer.self_attn.o_proj.weight[dead] = 0
            layer.mlp.down_proj.weight[dead] = 0
    seen = measure_importance(teacher, examples())
    assert set(torch.argsort(seen.hidden)[:8].tolist()) == set(dead.tolist())
    student = cut_width(teacher, seen, hidden=hidden - 8).eval()
    # a norm divides by the mean square, which is larger over fewer channels by exactly hidden / (hidden - 8)
    with torch.no_grad():
        for name, weight in student.named_parameters():
            if "layernorm" in name or name.endswith("model.norm.weight"):
                weight *= (hidden / (hidden - 8)) ** 0.5
    ids = torch.randint(3, 300, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(student(ids).logits, teacher(ids).logits, atol=1e-3, rtol=1e-3)


def test_padding_does_not_count(tmp_path: Path) -> None:
    teacher = load_causal_lm(make_model(tmp_path)).eval()
    rows = examples(3)
    together = measure_importance(teacher, rows)
    alone = [measure_importance(teacher, [row]) for row in rows]
    for name in ("hidden", "influence"):
        torch.testing.assert_close(getattr(together, name), sum(getattr(one, name) for one in alone), rtol=1e-3, atol=0)
    torch.testing.assert_close(together.ffn[1], sum(one.ffn[1] for one in alone), rtol=1e-3, atol=1e-6)


def test_a_layer_that_does_nothing_has_no_influence(tmp_path: Path) -> None:
    teacher = load_causal_lm(make_model(tmp_path, layers=4)).eval()
    with torch.no_grad():
        teacher.base_model.layers[2].self_attn.o_proj.weight.zero_()
        teacher.base_model.layers[2].mlp.down_proj.weight.zero_()
    seen = measure_importance(teacher, examples())
    assert float(seen.influence[2]) == pytest.approx(0, abs=1e-3)
    assert influential_layers(seen, 3) == [0, 1, 3]


def test_a_size_above_the_teachers_is_rejected(tmp_path: Path) -> None:
    teacher = load_causal_lm(make_model(tmp_path))
    with pytest.raises(RecipeError, match=r"student.ffn: 9999 is more than the teacher's"):
        cut_width(teacher, measure_importance(teacher, examples(1)), ffn=9999)
