"""Which student: every shape that can be cut from a teacher, and known small models, against a device's budgets.

A student cut from the teacher keeps its head size and the ratio of query to key-value heads (`potstill.train.pruning`).
Each candidate is judged by the same arithmetic as `potstill plan SHAPE`; SHAPE is given, so that it can be asked again.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any

from potstill.errors import UsageError
from potstill.plan.anatomy import Anatomy
from potstill.plan.configs import from_config
from potstill.plan.devices import Device
from potstill.plan.fit import Wish
from potstill.plan.limits import Limits
from potstill.plan.memory import Memory, memory
from potstill.plan.source import shape_words, words_config
from potstill.plan.speed import Part, Speed, speed

__all__ = ["QUANTIZATIONS", "Candidate", "Goal", "cuts", "feasible", "frontier", "search"]

QUANTIZATIONS = ("Q8_0", "Q6_K", "Q4_K_M")
_CUTTABLE = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
_DEPTHS = (1, 7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4, 1 / 8)
_WIDTHS = (1, 3 / 4, 1 / 2, 1 / 4)
_CHANNELS = 256
"""K-quantizations pack rows of 256 weights."""
_SMALLEST_BITS = 2.0
_PADDING = 512
"""Rows of an embedding that no token has: Qwen2.5's smaller models have 128 fewer than its 72B."""
_BANDS = ((0.5, "near the teacher"), (0.2, "most of one task"), (0.05, "one narrow task"), (0.0, "a few fixed answers"))


@dataclass(frozen=True)
class Goal:
    """What a student must run on, with what context, and within which limits."""

    device: Device
    wish: Wish = field(default_factory=Wish)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Candidate:
    """A student in one quantization, and what is predicted of it on the goal's device.

    origin      "teacher" or the hub id of a known model
    student     keys of a recipe's `student` section
    kept        its parameters over the teacher's, embeddings left out of both
    ttft        seconds to the first token after a prompt of the goal's length, low and high
    """

    origin: str
    shape: str
    student: Mapping[str, Any]
    anatomy: Anatomy
    kept: float
    memory: Memory
    speed: Speed
    ttft: tuple[float, float]

    @property
    def band(self) -> str:
        """What to expect of it, a rule of thumb by the share of parameters kept: not a measurement."""
        return next(words for share, words in _BANDS if self.kept >= share)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the shape that `potstill plan` takes."""
        return {
            "origin": self.origin,
            "shape": self.shape,
            "quantization": self.anatomy.quantization,
            "student": dict(self.student),
            "parameters": self.anatomy.parameters,
            "kept": round(self.kept, 4),
            "weight_bytes": self.anatomy.weight_bytes,
            "bits_per_weight": round(self.anatomy.bits_per_weight, 4),
            "file_bytes": self.memory.weights,
            "needed_bytes": self.memory.needed,
            "total_bytes": self.memory.total,
            "decode_tokens_per_s": [round(rate, 3) for rate in self.speed.decode],
            "ttft_seconds": [round(seconds, 4) for seconds in self.ttft],
            "quality_band": self.band,
        }


def _blocks(anatomy: Anatomy) -> int:
    """Parameters without embeddings, which any student of the same vocabulary has."""
    outside = (anatomy.tensors.get(name, ()) for name in ("token_embd.weight", "output.weight"))
    return anatomy.parameters - sum(math.prod(dims) for dims in outside if dims)


def _steps(size: int, shares: Sequence[float], multiple: int) -> list[int]:
    """Parts of a size, each a multiple of `multiple` or the whole."""
    found = {size} | {round(size * share / multiple) * multiple for share in shares if share < 1}
    return sorted((n for n in found if 0 < n <= size), reverse=True)


def cuts(config: Mapping[str, Any], vocabulary: int | None = None) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(config, keys of a recipe's `student`) of every student that can be cut from a teacher.

    Args:
        config: the teacher's config.json.
        vocabulary: tokens that the workload uses; None leaves the teacher's.

    Raises:
        UsageError: students cannot be cut from its architecture.
    """
    kind = (config.get("architectures") or ["(none named)"])[0]
    if kind not in _CUTTABLE:
        raise UsageError(
            f"--search: a student cannot be cut from {kind}; {', '.join(_CUTTABLE)} can. Name a small model of its "
            "family as student.model instead."
        )
    heads, total = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    ffn, hidden = int(config["intermediate_size"]), int(config["hidden_size"])
    for layers in _steps(total, _DEPTHS, 1):
        for channels in _steps(ffn, _WIDTHS, _CHANNELS):
            for width in _steps(hidden, _WIDTHS[:3], _CHANNELS):
                for kept_heads in {kv_heads, max(1, kv_heads // 2)}:
                    sizes = {
                        "layers": (layers, total), "ffn": (channels, ffn), "hidden": (width, hidden),
                        "kv_heads": (kept_heads, kv_heads),
                    }  # fmt: skip
                    keys = {key: size for key, (size, whole) in sizes.items() if size != whole}
                    yield {
                        **config,
                        "num_hidden_layers": layers, "intermediate_size": channels, "hidden_size": width,
                        "num_key_value_heads": kept_heads, "num_attention_heads": heads * kept_heads // kv_heads,
                        "head_dim": head_dim, "layer_types": None,
                        "vocab_size": vocabulary or config["vocab_size"],
                    }, {"init": "teacher_layers", **(keys or {"layers": layers})}  # fmt: skip


@cache
def _known() -> tuple[dict[str, str], ...]:
    text = resources.files("potstill.plan").joinpath("students.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["student"])


def feasible(candidate: Candidate, goal: Goal) -> bool:
    """Whether all that is asked is met: memory for certain, speeds at the slow end of their ranges."""
    held = candidate.memory
    return held.needed <= goal.device.usable_bytes and not goal.limits.missed(held.weights, held.total, candidate.speed)


def _offered(
    config: Mapping[str, Any], vocabulary: int | None, same_tokenizer: bool
) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """(origin, config.json, keys of `student`): what can be cut from the teacher, then the known small models."""
    trimmed = {"vocabulary": "workload"} if vocabulary else {}
    for made, student in cuts(config, vocabulary):
        yield "teacher", made, {**student, **trimmed}
    for row in _known():
        made = words_config(row["shape"])
        # padding apart, one family's vocabularies have one size
        if same_tokenizer and abs(made["vocab_size"] - config["vocab_size"]) > _PADDING:
            continue
        made["vocab_size"] = vocabulary or made["vocab_size"]
        yield row["model"], made, {"init": "checkpoint", "model": row["model"], "license": row["license"], **trimmed}


def search(
    config: Mapping[str, Any], goal: Goal, *, vocabulary: int | None = None, same_tokenizer: bool = False
) -> list[Candidate]:
    """Every feasible student, the one with most parameters in its blocks first, then by bits a weight.

    Args:
        config: the teacher's config.json.
        goal: device and limits.
        vocabulary: as of `cuts`; a student of fewer tokens than its teacher has is one of a trimmed vocabulary.
        same_tokenizer: of the known small models, only those with the teacher's tokenizer.

    Raises:
        UsageError: students cannot be cut from the teacher's architecture.
    """
    whole, found = _blocks(from_config(config, "teacher")), []
    wish, device = goal.wish, goal.device
    for origin, made, student in _offered(config, vocabulary, same_tokenizer):
        anatomy = from_config(made, origin)
        kept = _blocks(anatomy) / whole
        # what could not fit at two bits a weight is not looked at closer
        if kept > 1 or anatomy.parameters * _SMALLEST_BITS / 8 > device.usable_bytes:
            continue
        shape = shape_words(made)
        for quantization in QUANTIZATIONS:
            quantized = replace(anatomy.quantized(quantization), name=shape)
            held = memory(quantized, wish.context, kv_type=wish.kv_type, parallel=wish.parallel, backend=device.backend)
            rate = speed(quantized, [Part(device, 1.0)], wish.context, wish.kv_type)
            ttft = rate.first_token(goal.limits.prompt)
            one = Candidate(origin, shape, student, quantized, kept, held, rate, ttft)
            if feasible(one, goal):
                found.append(one)
    return sorted(found, key=lambda one: (-one.kept, -one.anatomy.bits_per_weight, one.shape))


def frontier(found: Sequence[Candidate], gain: float = 1.1) -> list[Candidate]:
    """Candidates worth a look: first the one that keeps most, then each time the next that decodes `gain` times faster.

    Args:
        found: as `search` returns them. Of equal ones in speed, that with more bits a weight stands first.
        gain: how much faster the next must be.
    """
    ahead: list[Candidate] = []
    for one in found:
        if not ahead or one.speed.decode[0] >= gain * ahead[-1].speed.decode[0]:
            ahead.append(one)
    return ahead
