"""Decoding with a shared prefix: the tokens of transformers' own generate, for every kind of attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from potstill.components.runtimes.decoding import SharedPrefix, TransformersCache, decoding

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
MODELS: dict[str, tuple[Callable[[], Any], type]] = {
    "llama": (lambda: LlamaForCausalLM(LlamaConfig(**SIZES)), SharedPrefix),
    "qwen3": (lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)), SharedPrefix),
    "mistral": (lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=11)), SharedPrefix),
    "gemma3": (
        lambda: Gemma3ForCausalLM(
            Gemma3TextConfig(**SIZES, sliding_window=11, sliding_window_pattern=2, tie_word_embeddings=False)
        ),
        SharedPrefix,
    ),
    "gpt2": (lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4)), SharedPrefix),
    "gpt-oss": (
        lambda: GptOssForCausalLM(GptOssConfig(**SIZES, num_local_experts=4, sliding_window=64)),
        TransformersCache,
    ),
}
"""Model, and what serves it. Attention of gpt-oss has sinks."""


@pytest.fixture(autouse=True)
def uninitialized_memory_is_nan() -> Iterator[None]:
    """So that a place that was never written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=MODELS)
def served(request: pytest.FixtureRequest) -> tuple[Any, type]:
    make, kind = MODELS[request.param]
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)  # so that the next token depends on those before
    return model, kind


def prompts_of(prefix: int, lengths: list[int]) -> list[list[int]]:
    drawn = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 64, (prefix + sum(lengths),), generator=drawn).tolist()
    common, rest = ids[:prefix], iter(ids[prefix:])
    return [common + [next(rest) for _ in range(length)] for length in lengths]


def generated(model: Any, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    found: list[int] = out[0, len(prompt) :].tolist()
    return found


@pytest.mark.parametrize(
    ("prefix", "lengths"),
    [(0, [9, 5, 14, 7]), (30, [3, 9, 1, 4]), (40, [6, 6, 6, 6]), (30, [5])],
    ids=["no prefix", "prefix", "equal lengths", "one row"],
)
@torch.inference_mode()
def test_the_tokens_are_those_of_transformers_generate(
    served: tuple[Any, type], prefix: int, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, kind = served
    before, prompts = model.config._attn_implementation, prompts_of(prefix, lengths)
    count = 40 if kind is SharedPrefix else 8  # more than the places that are reserved at first
    want = [generated(model, prompt, count) for prompt in prompts]
    monkeypatch.setattr("potstill.components.runtimes.decoding._PASS_TOKENS", {"cpu": 20})  # several passes
    alive, found = list(range(len(prompts))), [[] for _ in prompts]  # type: list[int], list[list[int]]
    with decoding(model, prompts, 0) as rows:
        assert type(rows) is kind
        for step in range(count):
            tokens = rows.logits_BV.argmax(-1).tolist()
            for row, token in zip(alive, tokens, strict=True):
                found[row].append(token)
            keep = list(range(len(alive)))
            if step == 5 and len(alive) > 1:  # the second row ends, and the last one takes its place
                keep = [0, *keep[-1:], *keep[2:-1]]
                rows.keep(keep)
            alive = [alive[place] for place in keep]
            rows.feed([tokens[place] for place in keep])
    assert [ids == want[row][: len(ids)] for row, ids in enumerate(found)] == [True] * len(prompts)
    assert len({token for ids in want for token in ids}) > 1  # or the test would show nothing
    assert model.config._attn_implementation == before


@torch.inference_mode()
def test_logits_are_those_of_a_plain_pass(served: tuple[Any, type]) -> None:
    model, _ = served
    prompts = prompts_of(30, [3, 9, 1, 4])
    with decoding(model, prompts, 0) as rows:
        first = rows.logits_BV.clone()
        rows.keep([3, 1, 2])
        rows.feed([7, 8, 9])
        after = rows.logits_BV.clone()
    for prompt, logits_V in zip(prompts, first, strict=True):
        torch.testing.assert_close(logits_V, model(torch.tensor([prompt])).logits[0, -1], atol=2e-4, rtol=1e-4)
    for row, token, logits_V in zip([3, 1, 2], [7, 8, 9], after, strict=True):
        want_V = model(torch.tensor([[*prompts[row], token]])).logits[0, -1]
        torch.testing.assert_close(logits_V, want_V, atol=2e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_model_in_bfloat16_attends_in_float32_on_a_cpu() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval().bfloat16()
    prompts = prompts_of(20, [4, 6])
    with decoding(model, prompts, 0) as rows:
        assert isinstance(rows, SharedPrefix)
        assert {x.dtype for layer in rows._layers.values() for x in layer.own} == {torch.float32}
    assert rows.logits_BV.dtype == torch.bfloat16
    for prompt, logits_V in zip(prompts, rows.logits_BV, strict=True):
        want_V = model(torch.tensor([prompt])).logits[0, -1]
        torch.testing.assert_close(logits_V, want_V, atol=0.02, rtol=0.02)
