"""Read a checkpoint's tensors under their GGUF names and in GGUF order, in blocks of rows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from potstill.components.conversion.architecture import Hyperparameters
from potstill.core.errors import DataError, StepError
from potstill.core.files import read_json_object

__all__ = ["Tensor", "Weights", "in_file_order", "plan_tensors", "source_name"]

_BLOCK_WEIGHTS = 1 << 24
_READABLE = ("F32", "F16", "BF16")
# Name in the checkpoint -> name in GGUF. `{i}` is the layer.
_OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class Tensor:
    """One tensor to write. `heads` is set where llama.cpp's rotary embedding needs the rows in another order."""

    name: str
    source: str
    shape: tuple[int, ...]
    heads: int | None = None


class Weights:
    """The tensors of a folder's safetensors files, whole or sharded."""

    def __init__(self, checkpoint: Path) -> None:
        from safetensors import SafetensorError

        self._files: dict[str, Path] = {}
        self._framework: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in _safetensors_files(checkpoint):
            try:
                self._add(path)
            except SafetensorError as error:
                raise StepError(f"{path}: not a whole safetensors file ({error}). Copy or save it again.") from None

    def _add(self, path: Path) -> None:
        """Note the names and shapes of one file's tensors."""
        from safetensors import safe_open

        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                view = file.get_slice(name)
                kind = view.get_dtype()
                if kind not in _READABLE:
                    raise StepError(
                        f"{path}: tensor {name} has type {kind}; only {', '.join(_READABLE)} can be "
                        "exported. Save the checkpoint in bfloat16."
                    )
                self._files[name] = path
                # numpy has no bfloat16, and without it torch need not be loaded
                self._framework[name] = "pt" if kind == "BF16" else "np"
                self.shapes[name] = tuple(view.get_shape())

    def read(self, tensor: Tensor) -> Iterator[NDArray[np.float32]]:
        """A tensor as float32 in blocks of rows, the rows in the order that llama.cpp needs."""
        from safetensors import safe_open

        head = tensor.shape[0] // tensor.heads if tensor.heads else 1
        step = max(1, _BLOCK_WEIGHTS // math.prod(tensor.shape[1:]) // head) * head
        with safe_open(self._files[tensor.source], framework=self._framework[tensor.source]) as file:
            view = file.get_slice(tensor.source)
            for first in range(0, tensor.shape[0], step):
                part = view[first : min(first + step, tensor.shape[0])]
                block: NDArray[np.float32] = (
                    part.astype(np.float32) if isinstance(part, np.ndarray) else part.float().numpy()
                )
                yield in_file_order(tensor, block)


def in_file_order(tensor: Tensor, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of a tensor, whole heads of them, in the order that llama.cpp needs."""
    if not tensor.heads:
        return rows
    # transformers rotates the two halves of a head, llama.cpp rotates neighbours: interleave them
    head = tensor.shape[0] // tensor.heads
    halves = rows.reshape(-1, 2, head // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _safetensors_files(checkpoint: Path) -> list[Path]:
    index = checkpoint / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(read_json_object(index)["weight_map"].values()))
        except (DataError, KeyError, AttributeError):
            raise StepError(f"{index}: not an index of safetensors files. Save the model again.") from None
        paths = [checkpoint / name for name in names]
    else:
        paths = [checkpoint / "model.safetensors"]
    for path in paths:
        if not path.is_file():
            hint = "Save the model with save_pretrained, which writes safetensors."
            if (checkpoint / "adapter_config.json").is_file():
                hint = "This is a LoRA adapter: merge it into its base model (merge_and_unload), and save that."
            raise StepError(f"{path}: no such file. {hint}")
    return paths


def plan_tensors(weights: Weights, parameters: Hyperparameters) -> list[Tensor]:
    """The tensors to write, in layer order, each checked against the shape that config.json implies.

    Raises:
        StepError: a tensor is missing, has another shape, or is unknown.
    """
    expected = _expected_shapes(parameters)
    found: dict[str, Tensor] = {}
    for source, shape in weights.shapes.items():
        name = _gguf_name(source)
        if name is None or (name == "output.weight" and parameters.tied):
            continue
        if name not in expected or shape != expected[name]:
            raise StepError(
                f"The checkpoint's tensor {source} has shape {shape}, but config.json implies "
                f"{expected.get(name, 'no such tensor')}. The folder mixes files of two models, or the model was "
                "changed after config.json was written: save it again."
            )
        found[name] = Tensor(name, source, shape, _rotated_heads(name, parameters))
    missing = [name for name in expected if name not in found and not name.endswith(".bias")]
    if missing:
        raise StepError(
            f"The checkpoint lacks {len(missing)} tensors ({missing[0]} first, by its GGUF name) that a "
            f"{parameters.architecture} of {parameters.n_layers} layers has. Save the model again."
        )
    return [found[name] for name in expected if name in found]


def _gguf_name(source: str) -> str | None:
    """GGUF's name of a checkpoint's tensor; None for one that is computed and not learnt.

    Raises:
        StepError: the tensor is unknown.
    """
    stem, _, kind = source.rpartition(".")
    if kind == "inv_freq":
        return None
    if kind in {"weight", "bias"}:
        if stem in _OUTSIDE:
            return f"{_OUTSIDE[stem]}.{kind}"
        match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem)
        if match and match[2] in _LAYER:
            return f"blk.{int(match[1])}.{_LAYER[match[2]]}.{kind}"
    raise StepError(
        f"The checkpoint's tensor {source} is unknown, and without it the answers would change. Export a plain model "
        "without adapters or extra heads."
    )


def source_name(name: str) -> str:
    """The checkpoint's name of a tensor with this GGUF name."""
    *block, part, kind = name.split(".")
    if not block:
        return f"{next(stem for stem, ours in _OUTSIDE.items() if ours == part)}.{kind}"
    return f"model.layers.{block[1]}.{next(stem for stem, ours in _LAYER.items() if ours == part)}.{kind}"


def _expected_shapes(p: Hyperparameters) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor in the order of writing, with all possible biases."""
    hidden, queries, keys = p.hidden_size, p.n_heads * p.head_dim, p.n_kv_heads * p.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (hidden,),
        "attn_q": (queries, hidden),
        "attn_k": (keys, hidden),
        "attn_v": (keys, hidden),
        "attn_output": (hidden, queries),
        "ffn_norm": (hidden,),
        "ffn_gate": (p.intermediate_size, hidden),
        "ffn_up": (p.intermediate_size, hidden),
        "ffn_down": (hidden, p.intermediate_size),
    }
    if p.architecture == "qwen3":
        layer |= {"attn_q_norm": (p.head_dim,), "attn_k_norm": (p.head_dim,)}
    biased = {"llama": [name for name in layer if "norm" not in name], "qwen2": ["attn_q", "attn_k", "attn_v"]}
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (p.vocab_size, hidden)}
    for i in range(p.n_layers):
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in layer.items()}
        shapes |= {f"blk.{i}.{name}.bias": layer[name][:1] for name in biased.get(p.architecture, [])}
    shapes["output_norm.weight"] = (hidden,)
    if not p.tied:
        shapes["output.weight"] = (p.vocab_size, hidden)
    return shapes


def _rotated_heads(name: str, p: Hyperparameters) -> int | None:
    if p.architecture != "llama":
        return None
    return {"attn_q": p.n_heads, "attn_k": p.n_kv_heads}.get(name.split(".")[-2])
