"""A small run that is complete: tokenizer, a teacher of zeros, rows, tools and a recipe. Tests spoil one of them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures import TOOLS, light_rows, make_tokenizer, write_jsonl
from potstill.components.models.configs import from_config
from potstill.core.artifacts.check import CheckResult
from potstill.core.errors import UsageError
from potstill.core.recipe import Recipe, load_recipe
from potstill.core.steps import Done, blanked
from potstill.stages.check.stage import STAGE

_NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 384,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}


def transformers_name(name: str) -> str:
    """The name that transformers gives a tensor with this GGUF name."""
    *block, part, kind = name.split(".")
    layer = f"model.layers.{block[1]}." if block else ""
    return f"{layer}{_NAMES[part]}.{kind}"


def write_weights(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of zeros, by the format's own description."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dims in shapes.items():
        start = end
        end += 4
        for size in dims:
            end = start + (end - start) * size
        header[name] = {"dtype": "F32", "shape": list(dims), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


class Workshop:
    """A folder with a model, rows, tools and a recipe, all sound; a test spoils one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = self.make_model("teacher")
        (folder / "tools.json").write_text(json.dumps(TOOLS))
        self.prompts = write_jsonl(folder / "train.jsonl", light_rows(["", "please "]))
        self.test = write_jsonl(folder / "test.jsonl", light_rows(["now "]))
        self.value: dict[str, Any] = {
            "name": "lights",
            "data": {"prompts": "train.jsonl", "test": "test.jsonl", "tools": "tools.json"},
            "chat": {"context": 256},
            "teacher": {"model": "teacher"},
            "generate": {"max_new_tokens": 64},
            "student": {"init": "teacher_layers", "layers": 2},
            "licenses": {"data": "mit", "teacher": "mit", "package": "mit"},
        }

    def make_model(self, name: str, *, extra_vocabulary: int = 0, **changes: Any) -> Path:
        """A model's folder; `changes` are put into its config.json."""
        folder = make_tokenizer(self.folder / name, extra_vocabulary)
        config = CONFIG | changes
        (folder / "config.json").write_text(json.dumps(config))
        spec = from_config({**config, "architectures": ["LlamaForCausalLM"], "rope_scaling": None})
        write_weights(folder, {transformers_name(name): dims for name, dims in spec.tensors.items()})
        return folder

    def recipe(self, **changes: Any) -> Recipe:
        """The recipe, with sections updated key by key. None removes a key; a string replaces the section."""
        value = dict(self.value)
        for name, change in changes.items():
            merged = {**value.get(name, {}), **change} if isinstance(change, dict) else change
            value[name] = {k: v for k, v in merged.items() if v is not None} if isinstance(merged, dict) else merged
        path = self.folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(value, sort_keys=False))
        return load_recipe(path)

    def rows(self, file: str) -> list[dict[str, Any]]:
        """Rows of a JSONL file."""
        return [json.loads(text) for text in (self.folder / file).read_text().splitlines()]

    def check(self, recipe: Recipe, out: Path) -> CheckResult:
        """The artifact of the check stage, run with the inputs that it declares."""
        inputs = STAGE.inputs(recipe, Done({}, STAGE.reads))
        STAGE.run(blanked(inputs), out)
        return CheckResult.read(out)

    def refused(self, recipe: Recipe) -> str:
        """The message of a check that must fail; nothing is written, neither in the step nor where the run would be."""
        out, runs = self.folder / "out", self.folder / "runs"
        out.mkdir(exist_ok=True)
        with pytest.raises(UsageError) as caught:
            self.check(recipe, out)
        assert caught.value.exit_code == 2
        assert list(out.iterdir()) == []
        assert not runs.exists()
        message = str(caught.value)
        assert "\n" not in message and message.endswith(".")
        return message

    def spoil(self, file: str, line: int, change: Callable[[dict[str, Any]], Any]) -> str:
        """Change one row of a JSONL file in place; returns `file:line` as messages give it."""
        rows = self.rows(file)
        change(rows[line - 1])
        return f"{write_jsonl(self.folder / file, rows)}:{line}"
