"""Which student: every shape that can be cut from a teacher, and known small models, against a device's budgets.

A student cut from the teacher keeps its head size and the ratio of query to key-value heads (see
`training.pruning`).
Each candidate is judged by the same arithmetic as `potstill plan SHAPE`; SHAPE is given, so that it can be asked again.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any

from potstill.apps.plan.options import refuse_context
from potstill.components.hardware.devices import Device
from potstill.components.hardware.fit import Serving, device_memory
from potstill.components.hardware.memory import Memory, odd_heads
from potstill.components.hardware.speed import Part, Speed, speed
from potstill.components.models.architectures import not_prunable
from potstill.components.models.configs import from_config, settings
from potstill.components.models.derived import pruned_config
from potstill.components.models.shapes import shape_of, shape_to_config
from potstill.components.models.spec import ModelSpec
from potstill.components.sizing.limits import Limits
from potstill.core.errors import UsageError

__all__ = [
    "BANDS", "QUANTIZATIONS", "Candidate", "Goal", "cuts", "feasible", "frontier", "search", "tokenizer_of",
    "whole_teacher",
]  # fmt: skip

QUANTIZATIONS = ("Q8_0", "Q6_K", "Q4_K_M")
_DEPTHS = (1, 7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4, 1 / 8)
_WIDTHS = (1, 3 / 4, 1 / 2, 1 / 4)
_CHANNELS = 256
"""K-quantizations pack rows of 256 weights."""
_SMALLEST_BITS = 2.0
BANDS = ("near the teacher", "general short answers", "most of one task", "one narrow task", "a few fixed answers")
"""What to expect of a student, the best first: rules of thumb, not measurements."""
# band -> share of the teacher, and parameters, of which either is enough; both count what is outside of embeddings
_SHARES = ((0.5, 0), (0.2, 2), (0.05, 3))
_SIZES = ((1e9, 1), (2e8, 2), (5e7, 3))
_HEALED = 0.5
"""Share of its teacher that a cut must keep to count in full."""


@dataclass(frozen=True)
class Goal:
    """What a student must run on, with what context, and within which limits."""

    device: Device
    serving: Serving = field(default_factory=Serving)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Candidate:
    """A student in one quantization, and what is predicted of it on the goal's device.

    origin      "teacher" or the hub id of a known model
    student     keys of a recipe's `student` section
    blocks      its parameters, embeddings left out
    kept        the same over the teacher's
    ttft        seconds to the first token after a prompt of the goal's length, low and high
    """

    origin: str
    shape: str
    student: Mapping[str, Any]
    spec: ModelSpec
    blocks: int
    kept: float
    memory: Memory
    speed: Speed
    ttft: tuple[float, float]

    @property
    def id(self) -> str:
        """Its name: what it is cut to or starts from, and its quantization. The same wherever it is found."""
        keys = (f"{key}={value}" for key, value in self.student.items() if key not in ("init", "vocabulary"))
        return f"{','.join(keys) if self.origin == 'teacher' else self.origin}/{self.spec.quantization}"

    @property
    def worth(self) -> float:
        """Its blocks' parameters, as many as count: a rule of thumb.

        A known model was trained as it is and counts in full. A cut must be healed by training; where it keeps less
        than half of the teacher's, it counts for less, in proportion. More parameters are always worth more.
        """
        return self.blocks * (1.0 if self.origin != "teacher" else min(1.0, self.kept / _HEALED))

    @property
    def band(self) -> str:
        """What to expect of it, by its worth alone, in itself and beside the teacher: not a measurement."""
        rules = [(self.worth / self.blocks * self.kept, _SHARES), (self.worth, _SIZES)]
        ranks = [rank for value, limits in rules for least, rank in limits if value >= least]
        return BANDS[min(ranks, default=len(BANDS) - 1)]

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the shape that `potstill plan` takes."""
        return {
            "id": self.id,
            "origin": self.origin,
            "shape": self.shape,
            "quantization": self.spec.quantization,
            "student": dict(self.student),
            "parameters": self.spec.parameters,
            "kept": round(self.kept, 4),
            "weight_bytes": self.spec.weight_bytes,
            "bits_per_weight": round(self.spec.bits_per_weight, 4),
            "file_bytes": self.memory.weights,
            "needed_bytes": self.memory.needed,
            "total_bytes": self.memory.total,
            "decode_tokens_per_s": [round(rate, 3) for rate in self.speed.decode],
            "ttft_seconds": [round(seconds, 4) for seconds in self.ttft],
            "quality_band": self.band,
        }


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
    config = _prunable(config)
    heads = int(config["num_attention_heads"])
    whole = {
        "layers": int(config["num_hidden_layers"]), "ffn": int(config["intermediate_size"]),
        "hidden": int(config["hidden_size"]), "kv_heads": int(config.get("num_key_value_heads") or heads),
    }  # fmt: skip
    for layers in _steps(whole["layers"], _DEPTHS, 1):
        for channels in _steps(whole["ffn"], _WIDTHS, _CHANNELS):
            for width in _steps(whole["hidden"], _WIDTHS[:3], _CHANNELS):
                for kv_heads in {whole["kv_heads"], max(1, whole["kv_heads"] // 2)}:
                    sizes = {"layers": layers, "ffn": channels, "hidden": width, "kv_heads": kv_heads}
                    keys = {key: size for key, size in sizes.items() if size != whole[key]}
                    cut = pruned_config(config, **sizes) | {"vocab_size": vocabulary or config["vocab_size"]}
                    yield cut, {"init": "teacher_layers", **(keys or {"layers": layers})}


def _prunable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A teacher's config.json with the defaults of its architecture.

    Raises:
        UsageError: students cannot be cut from the architecture.
    """
    kind = (config.get("architectures") or ["(none named)"])[0]
    if problem := not_prunable(kind):
        raise UsageError(problem)
    return settings(config)[1]


@cache
def _toml() -> dict[str, list[dict[str, Any]]]:
    text = resources.files("potstill.apps.plan").joinpath("students.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def tokenizer_of(config: Mapping[str, Any]) -> str | None:
    """Name in students.toml of the tokenizer that a config.json's model has, by its class and vocabulary; None where
    they tell of none that is known there."""
    kind, vocabulary = (config.get("architectures") or [""])[0], config.get("vocab_size")
    found = (row for row in _toml()["tokenizer"] if row["architecture"] == kind and vocabulary in row["vocab"])
    return next((row["name"] for row in found), None)


def feasible(candidate: Candidate, goal: Goal) -> bool:
    """Whether all that is asked is met: memory for certain, speeds at the slow end of their ranges."""
    held = candidate.memory
    return held.needed <= goal.device.usable_bytes and not goal.limits.missed(held.weights, held.total, candidate.speed)


def _offered(
    config: Mapping[str, Any], vocabulary: int | None, same_tokenizer: bool
) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """(origin, config.json, keys of `student`): what can be cut from the teacher, then the known small models."""
    trimmed = {"vocabulary": "workload"} if vocabulary else {}
    uncut = {"init": "teacher_layers", "layers": int(config["num_hidden_layers"])}
    for made, student in cuts(config, vocabulary):
        # with all of its layers and tokens it would be the teacher itself
        if student != uncut or made["vocab_size"] < config["vocab_size"]:
            yield "teacher", made, {**student, **trimmed}
    for row in _toml()["student"]:
        made = shape_to_config(row["shape"])
        if same_tokenizer and row["tokenizer"] != tokenizer_of(config):
            continue
        made["vocab_size"] = min(vocabulary or made["vocab_size"], made["vocab_size"])
        yield row["model"], made, {"init": "checkpoint", "model": row["model"], "license": row["license"], **trimmed}


def _judged(spec: ModelSpec, goal: Goal, **what: Any) -> Candidate:
    """A candidate with types, on the goal's device."""
    held = device_memory(spec, goal.device, goal.serving)
    rate = speed(spec, [Part(goal.device, 1.0)], goal.serving.context, goal.serving.kv_type)
    return Candidate(spec=spec, memory=held, speed=rate, ttft=rate.first_token(goal.limits.prompt), **what)


def search(
    config: Mapping[str, Any],
    goal: Goal,
    *,
    vocabulary: int | None = None,
    same_tokenizer: bool = False,
    quantizations: Collection[str] = QUANTIZATIONS,
) -> list[Candidate]:
    """Every feasible student, the one of most worth first, then by bits a weight.

    Args:
        config: the teacher's config.json.
        goal: device and limits. A known model that was made for a shorter context is left out.
        vocabulary: as of `cuts`; a student of fewer tokens than its teacher has is one of a trimmed vocabulary.
        same_tokenizer: of the known small models, only those with the teacher's tokenizer.
        quantizations: of the students.

    Raises:
        UsageError: students cannot be cut from the teacher's architecture, or it was made for a shorter context.
    """
    config = _prunable(config)
    teacher, found = from_config(config, "the teacher"), []
    refuse_context(goal.serving.context, teacher.context, teacher.name)
    whole = teacher.block_parameters
    for origin, made, student in _offered(config, vocabulary, same_tokenizer):
        spec = from_config(made, origin)
        blocks = spec.block_parameters
        kept = blocks / whole
        # a student is smaller than its teacher; what could not fit at two bits a weight is not looked at closer
        too_large = kept > 1 or (kept == 1 and origin != "teacher")
        if too_large or spec.parameters * _SMALLEST_BITS / 8 > goal.device.usable_bytes:
            continue
        if goal.serving.context > (spec.context or goal.serving.context) or odd_heads(spec, goal.serving.kv_type):
            continue
        shape = shape_of(made)
        for quantization in quantizations:
            quantized = replace(spec.quantized(quantization), name=shape)
            one = _judged(quantized, goal, origin=origin, shape=shape, student=student, blocks=blocks, kept=kept)
            if feasible(one, goal):
                found.append(one)
    return sorted(found, key=lambda one: (-one.worth, -one.spec.bits_per_weight, one.shape))


def whole_teacher(config: Mapping[str, Any], goal: Goal, quantizations: Collection[str] = QUANTIZATIONS) -> list[str]:
    """Quantizations in which the teacher itself meets the goal, so that no student is needed."""
    teacher = from_config(config, "the teacher")
    if odd_heads(teacher, goal.serving.kv_type):
        return []
    judged = {
        q: _judged(
            teacher.quantized(q), goal, origin="", shape="", student={}, blocks=teacher.block_parameters, kept=1.0
        )
        for q in quantizations
    }
    return [quantization for quantization, one in judged.items() if feasible(one, goal)]


def frontier(found: Sequence[Candidate], gain: float = 1.1) -> list[Candidate]:
    """Candidates worth a look: first the one of most worth, then each time the next that decodes `gain` times faster.

    Args:
        found: as `search` returns them. Of equal ones in speed, that with more bits a weight stands first.
        gain: how much faster the next must be; with 1 every one is found that none of more worth outruns.
    """
    ahead: list[Candidate] = []
    for one in found:
        if not ahead or one.speed.decode[0] > gain * ahead[-1].speed.decode[0]:
            ahead.append(one)
    return ahead
