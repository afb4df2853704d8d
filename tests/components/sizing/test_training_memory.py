"""Training memory against what autograd keeps and the optimizer holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures import CONFIGS
from potstill.components.hardware.devices import find_device
from potstill.components.models.configs import from_config
from potstill.components.models.recipe_models import Model, Models
from potstill.components.sizing.room import memory_problem
from potstill.components.sizing.training_memory import checkpoint_bytes, memory_need, training_memory_bytes
from potstill.components.training.lora import add_lora
from potstill.core.artifacts.check import MemoryNeed
from potstill.core.recipe import Recipe, load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"

SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": 2,
    "pad_token_id": 0,
}  # fmt: skip


def build(family: str, **changes: Any) -> Any:
    import transformers

    config = getattr(transformers, f"{family}Config")(**(SIZES | changes))
    return getattr(transformers, f"{family}ForCausalLM")(config)


def test_a_checkpoint_is_weights_and_two_moments() -> None:
    assert checkpoint_bytes(1000) == 12_000


@pytest.mark.parametrize(("family", "bf16"), [("Llama", False), ("Qwen3", False), ("Llama", True)])
def test_activations_are_what_autograd_keeps(family: str, bf16: bool) -> None:
    import torch

    layers, tokens, width = 6, 512, 128
    model = build(family, hidden_size=128, intermediate_size=352, num_hidden_layers=layers, head_dim=32).train()
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address is used twice
        return tensor

    mask = torch.ones(tokens // width, 1, width, width, dtype=torch.bool).tril()
    ids = torch.zeros(tokens // width, width, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", enabled=bf16):
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    measured = sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in parameters)
    shape = from_config(model.config.to_dict() | {"architectures": [f"{family}ForCausalLM"]})
    predicted = training_memory_bytes(shape, tokens, width=width, bf16=bf16)["activations"] * layers / (layers + 1)
    assert predicted == pytest.approx(measured, rel=0.1)


def test_training_holds_weights_gradients_and_moments() -> None:
    import torch

    model = build("Llama")
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.zeros(1, 4, dtype=torch.int64)).logits.sum().backward()
    optimizer.step()
    moments = sum(t.nbytes for state in optimizer.state.values() for t in state.values() if t.ndim)
    held = sum(p.nbytes + p.grad.nbytes for p in model.parameters()) + moments
    shape = from_config(model.config.to_dict() | {"architectures": ["LlamaForCausalLM"]})
    alone = training_memory_bytes(shape, 64)
    taught = training_memory_bytes(shape, 64, teacher_bytes=20, teacher_hidden=64)
    assert alone["student"] == held
    assert (alone["teacher"], taught["teacher"]) == (0, 20)
    assert taught["logits"] > alone["logits"]
    assert training_memory_bytes(shape, 64, recompute=True)["activations"] < alone["activations"]
    add_lora(model, 4, seed=0)
    adapters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    weights = sum(p.nbytes for p in model.parameters())
    assert training_memory_bytes(shape, 64, lora_rank=4)["student"] == weights + 12 * adapters


def models_of(recipe: Recipe) -> Models:
    """The recipe's models as their config.json files describe them; no tokenizer is needed."""

    def model(name: str) -> Model:
        path = CONFIGS / f"{name.rpartition('/')[2].lower()}.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        spec, chat = from_config(config, name), cast(Any, SimpleNamespace(vocab_size=config["vocab_size"]))
        return Model(name, path, chat, config, spec, spec.parameters)

    assert recipe.student.model
    return Models(teacher=model(recipe.teacher.model), student=model(recipe.student.model))


PROMISED = {
    path.name: float(found[1])
    for path in RECIPES.glob("*.yaml")
    if (found := re.search(r"GPU with (\d+) GB", path.read_text(encoding="utf-8")))
}


@pytest.mark.parametrize("name", PROMISED)
def test_a_recipe_fits_on_the_gpu_that_it_promises(name: str) -> None:
    assert PROMISED[name] == 24
    recipe = load_recipe(RECIPES / name)
    assert isinstance(recipe, Recipe)
    need = memory_need(recipe, models_of(recipe))
    assert memory_problem(need, find_device("RTX 3090")) is None
    problem = memory_problem(need, find_device("RTX 4080"))
    assert problem and "RTX 4080 has 16.15 GB" in problem and need.stage in problem


def test_the_process_counts_in_memory_but_not_on_a_gpu() -> None:
    """Python with torch and transformers was measured at 452 to 475 MB before any weight is loaded."""
    recipe = load_recipe(RECIPES / next(iter(PROMISED)))
    assert isinstance(recipe, Recipe)
    need = memory_need(recipe, models_of(recipe))
    assert 4.5e8 < need.parts["process"] < 5e8 and need.needed == sum(need.parts.values())
    gpu, shared = find_device("RTX 3060"), find_device("Apple M1")
    edge = MemoryNeed(stage="train", parts={"student": gpu.usable_bytes, "process": 1}, needed=gpu.usable_bytes + 1)
    assert memory_problem(edge, gpu) is None
    assert memory_problem(edge, shared.with_memory(gpu.usable_bytes))
