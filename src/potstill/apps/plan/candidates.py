"""Candidates for a student: everything that can be cut from a teacher, and known small models, on one device.

A student that is cut from the teacher keeps its head size and its ratio of query heads to key-value heads (see
`training.pruning`). Each candidate is predicted by the same rules as `potstill fit SHAPE`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any

from potstill.apps.plan.options import require_context
from potstill.components.hardware.devices import Device
from potstill.components.hardware.fit import Serving, device_memory
from potstill.components.hardware.memory import Memory, indivisible_head
from potstill.components.hardware.speed import Placement, Speed, speed
from potstill.components.models.architectures import not_prunable
from potstill.components.models.configs import from_config, settings
from potstill.components.models.derived import pruned_config
from potstill.components.models.shapes import shape_of, shape_to_config
from potstill.components.models.spec import ModelSpec
from potstill.components.sizing.limits import Limits
from potstill.core.errors import UsageError

__all__ = [
    "BANDS", "QUANTIZATIONS", "Candidate", "Goal", "cuts", "fastest_of_each_size", "feasible", "feasible_candidates",
    "teacher_quantizations", "tokenizer_of",
]  # fmt: skip

QUANTIZATIONS = ("Q8_0", "Q6_K", "Q4_K_M")
_DEPTHS = (1, 7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4, 1 / 8)
_WIDTHS = (1, 3 / 4, 1 / 2, 1 / 4)
_CHANNELS = 256
"""K-quantizations pack rows of 256 weights."""
_SMALLEST_BITS = 2.0
BANDS = ("near the teacher", "general short answers", "most of one task", "one narrow task", "a few fixed answers")
"""What to expect of a student, the best first: rules of thumb, not measurements."""
# (share of the teacher or number of parameters, band): either one is enough; both are without embeddings
_SHARES = ((0.5, 0), (0.2, 2), (0.05, 3))
_SIZES = ((1e9, 1), (2e8, 2), (5e7, 3))
_FULL_VALUE_SHARE = 0.5
"""Share of its teacher that a cut must keep for its parameters to count in full."""


@dataclass(frozen=True)
class Goal:
    """What a student must run on, how it is served, and within which limits."""

    device: Device
    serving: Serving = field(default_factory=Serving)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Candidate:
    """A student in one quantization, and what is predicted for it on the goal's device.

    origin      "teacher", or the hub id of a known model
    shape       for `potstill fit SHAPE`
    student     keys of a recipe's `student` section
    kept        its parameters over the teacher's, without embeddings
    ttft        seconds to the first token after a prompt of the goal's length, low and high
    """

    origin: str
    shape: str
    student: Mapping[str, Any]
    spec: ModelSpec
    kept: float
    memory: Memory
    speed: Speed
    ttft: tuple[float, float]

    @property
    def id(self) -> str:
        """A name that is the same in every search: sizes or hub id, and quantization."""
        keys = (f"{key}={value}" for key, value in self.student.items() if key not in ("init", "vocabulary"))
        return f"{','.join(keys) if self.origin == 'teacher' else self.origin}/{self.spec.quantization}"

    @property
    def value(self) -> float:
        """Number of parameters, without embeddings, that count: a rule of thumb.

        A known model was trained at its size and counts in full. A cut needs training to recover; where it keeps less
        than half of the teacher, it counts for less, in proportion. More parameters are always worth more.
        """
        share = 1.0 if self.origin != "teacher" else min(1.0, self.kept / _FULL_VALUE_SHARE)
        return self.spec.block_parameters * share

    @property
    def band(self) -> str:
        """What to expect, from `value` alone, absolute and relative to the teacher."""
        relative = self.value / self.spec.block_parameters * self.kept
        ranks = [rank for found, limits in ((relative, _SHARES), (self.value, _SIZES)) for least, rank in limits
                 if found >= least]  # fmt: skip
        return BANDS[min(ranks, default=len(BANDS) - 1)]


@dataclass(frozen=True)
class _KnownTokenizer:
    """An entry [[tokenizer]] of students.toml."""

    name: str
    architecture: str
    vocab: tuple[int, ...]


@dataclass(frozen=True)
class _KnownModel:
    """An entry [[student]] of students.toml."""

    model: str
    shape: str
    tokenizer: str
    license: str


@cache
def _known() -> tuple[tuple[_KnownTokenizer, ...], tuple[_KnownModel, ...]]:
    text = resources.files("potstill.apps.plan").joinpath("students.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text)
    return (
        tuple(_KnownTokenizer(row["name"], row["architecture"], tuple(row["vocab"])) for row in rows["tokenizer"]),
        tuple(_KnownModel(row["model"], row["shape"], row["tokenizer"], row["license"]) for row in rows["student"]),
    )


def tokenizer_of(config: Mapping[str, Any]) -> str | None:
    """Name in students.toml of a model's tokenizer, by class and vocabulary; None where they match no entry."""
    kind, vocabulary = (config.get("architectures") or [""])[0], config.get("vocab_size")
    return next((t.name for t in _known()[0] if t.architecture == kind and vocabulary in t.vocab), None)


def _sizes(size: int, shares: Sequence[float], multiple: int) -> list[int]:
    """Parts of a size, the largest first: each a multiple of `multiple`, or the whole."""
    found = {size} | {round(size * share / multiple) * multiple for share in shares if share < 1}
    return sorted((n for n in found if 0 < n <= size), reverse=True)


def cuts(config: Mapping[str, Any], vocabulary: int | None = None) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(config, keys of a recipe's `student`) of every student that can be cut from a teacher.

    Args:
        config: the teacher's config.json.
        vocabulary: size of a trimmed vocabulary; None keeps the teacher's.

    Raises:
        UsageError: students cannot be cut from its architecture.
    """
    config = _prunable(config)
    heads = int(config["num_attention_heads"])
    whole = {
        "layers": int(config["num_hidden_layers"]), "ffn": int(config["intermediate_size"]),
        "hidden": int(config["hidden_size"]), "kv_heads": int(config.get("num_key_value_heads") or heads),
    }  # fmt: skip
    for layers in _sizes(whole["layers"], _DEPTHS, 1):
        for channels in _sizes(whole["ffn"], _WIDTHS, _CHANNELS):
            for width in _sizes(whole["hidden"], _WIDTHS[:3], _CHANNELS):
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


def feasible(candidate: Candidate, goal: Goal) -> bool:
    """Whether a candidate meets the goal: memory for certain, speeds at the slow end of their ranges."""
    held = candidate.memory
    return held.needed <= goal.device.usable_bytes and not goal.limits.missed(held.weights, held.total, candidate.speed)


def _offered(
    config: Mapping[str, Any], vocabulary: int | None, same_tokenizer: bool
) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """(origin, config.json, keys of `student`) of everything that can be cut, and then of the known small models."""
    trimmed = {"vocabulary": "workload"} if vocabulary else {}
    whole = {"init": "teacher_layers", "layers": int(config["num_hidden_layers"])}
    for made, student in cuts(config, vocabulary):
        # with all of its layers and tokens it would be the teacher itself
        if student != whole or made["vocab_size"] < config["vocab_size"]:
            yield "teacher", made, {**student, **trimmed}
    for known in _known()[1]:
        if same_tokenizer and known.tokenizer != tokenizer_of(config):
            continue
        made = shape_to_config(known.shape)
        made["vocab_size"] = min(vocabulary or made["vocab_size"], made["vocab_size"])
        yield known.model, made, {"init": "checkpoint", "model": known.model, "license": known.license, **trimmed}


def _predicted(
    spec: ModelSpec, goal: Goal, origin: str, shape: str, student: Mapping[str, Any], kept: float
) -> Candidate:
    """A candidate with types, on the goal's device."""
    held = device_memory(spec, goal.device, goal.serving)
    rate = speed(spec, [Placement(goal.device, 1.0)], goal.serving.context, goal.serving.kv_type)
    return Candidate(origin, shape, student, spec, kept, held, rate, rate.first_token(goal.limits.prompt))


def feasible_candidates(
    config: Mapping[str, Any],
    goal: Goal,
    *,
    vocabulary: int | None = None,
    same_tokenizer: bool = False,
    quantizations: Collection[str] = QUANTIZATIONS,
) -> list[Candidate]:
    """Every candidate that meets the goal, by value and then by bits per weight, the highest first.

    Args:
        config: the teacher's config.json.
        goal: device and limits. A known model that was made for a shorter context is left out.
        vocabulary: size of a trimmed vocabulary; None keeps all tokens.
        same_tokenizer: of the known small models, consider only those with the teacher's tokenizer.
        quantizations: of the students.

    Raises:
        UsageError: students cannot be cut from the teacher's architecture, or it was made for a shorter context.
    """
    config = _prunable(config)
    teacher, found, serving = from_config(config, "the teacher"), [], goal.serving
    require_context(serving.context, teacher.context, teacher.name)
    for origin, made, student in _offered(config, vocabulary, same_tokenizer):
        spec = from_config(made, origin)
        kept = spec.block_parameters / teacher.block_parameters
        # a student is smaller than its teacher; and what has no room at two bits per weight need not be predicted
        too_large = kept > 1 or (kept == 1 and origin != "teacher")
        if too_large or spec.parameters * _SMALLEST_BITS / 8 > goal.device.usable_bytes:
            continue
        if serving.context > (spec.context or serving.context) or indivisible_head(spec, serving.kv_type):
            continue
        shape = shape_of(made)
        for quantization in quantizations:
            quantized = replace(spec.quantized(quantization), name=shape)
            candidate = _predicted(quantized, goal, origin, shape, student, kept)
            if feasible(candidate, goal):
                found.append(candidate)
    return sorted(found, key=lambda one: (-one.value, -one.spec.bits_per_weight, one.shape))


def teacher_quantizations(
    config: Mapping[str, Any], goal: Goal, quantizations: Collection[str] = QUANTIZATIONS
) -> list[str]:
    """Quantizations in which the teacher itself meets the goal, so that no student is needed."""
    teacher = from_config(config, "the teacher")
    if indivisible_head(teacher, goal.serving.kv_type):
        return []
    candidates = {kind: _predicted(teacher.quantized(kind), goal, "", "", {}, 1.0) for kind in quantizations}
    return [kind for kind, candidate in candidates.items() if feasible(candidate, goal)]


def fastest_of_each_size(found: Sequence[Candidate], gain: float = 1.1) -> list[Candidate]:
    """The candidate of highest value, and then each next one that decodes `gain` times faster than the one before.

    Args:
        found: as `feasible_candidates` returns them. Of equally fast ones, that with more bits per weight comes first.
        gain: with 1, every candidate that none of higher value outruns.
    """
    ahead: list[Candidate] = []
    for one in found:
        if not ahead or one.speed.decode[0] > gain * ahead[-1].speed.decode[0]:
            ahead.append(one)
    return ahead
