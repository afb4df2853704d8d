"""How fast: tokens a second as a range, from what a token reads and computes. Seconds, bytes, operations."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from potstill.components.hardware.devices import Device
from potstill.components.hardware.memory import MICRO_BATCH, kv_bytes
from potstill.components.models.spec import ModelSpec, block_of

__all__ = [
    "Part",
    "Speed",
    "bytes_by_type",
    "calibrated_seconds",
    "chosen_experts",
    "operations_by_type",
    "speed",
]

_CALIBRATED = (0.8, 1.2)
"""Around a calibrated machine's prediction."""
_LAYER = {"cpu": (25e-6, 5e-6), "unified": (30e-6, 5e-6), "gpu": (30e-6, 5e-6)}
"""Seconds that a layer of one token takes beside its bytes, slow and fast: starting its kernels, waiting for threads.
Assumed: a kernel starts in some microseconds, a layer has about ten, and a graph of them starts at once."""
_TOKEN = {"cpu": (200e-6, 50e-6), "unified": (300e-6, 100e-6), "gpu": (300e-6, 100e-6)}
"""Seconds of choosing and sending a token; on a CPU three models of 1 to 2 million parameters took 100 to 200."""


@dataclass(frozen=True)
class Part:
    """What of a model is on a device: a share of the cache (0 to 1), and tensors; None means all that are run."""

    device: Device
    share: float
    tensors: frozenset[str] | None = None

    def of(self, spec: ModelSpec) -> Iterable[str]:
        """Names of its tensors."""
        return spec.run_tensors if self.tensors is None else self.tensors


@dataclass(frozen=True)
class Speed:
    """Tokens a second, low and high; what limits decoding and reading a prompt: bandwidth, compute or offload."""

    decode: tuple[float, float]
    prefill: tuple[float, float]
    bound: str
    prefill_bound: str
    load_seconds: float

    def first_token(self, prompt: float) -> tuple[float, float]:
        """Seconds to the first token after a prompt of so many, low and high."""
        return prompt / self.prefill[1], prompt / self.prefill[0]


def bytes_by_type(spec: ModelSpec, names: Iterable[str] | None = None) -> dict[str, float]:
    """Weights that one decoded token reads, by tensor type: all, less the unused experts and an untied embedding.

    Args:
        names: of these tensors alone.
    """
    sizes, out = spec.tensor_bytes(), defaultdict[str, float](float)
    for name in spec.run_tensors if names is None else names:
        out[spec.types[name]] += sizes[name] * spec.share_used(name)
    return dict(out)


def operations_by_type(spec: ModelSpec, names: Iterable[str] | None = None, *, prompt: bool) -> dict[str, float]:
    """Multiplications and additions of one token by tensor type, without attention's over the cache.

    Args:
        names: of these tensors alone.
        prompt: a token of a prompt, whose logits nobody asks for: llama.cpp computes the last one's alone, and the last
            block's FFN for that one too.
    """
    left_out = ("token_embd." if spec.tied else "output.", f"blk.{spec.layers - 1}.ffn_") if prompt else ()
    out = defaultdict[str, float](float)
    for name in spec.run_tensors if names is None else names:
        dims = spec.tensors[name]
        if len(dims) > 1 and not name.startswith(left_out):
            out[spec.types[name]] += 2 * math.prod(dims) * spec.share_used(name)
    return dict(out)


def chosen_experts(spec: ModelSpec, names: Iterable[str] | None = None) -> int:
    """Experts that one token goes through, over all layers.

    Args:
        names: of these tensors alone.
    """
    of = spec.run_tensors if names is None else names
    return spec.experts_used * sum(name.endswith("ffn_down_exps.weight") for name in of)


def _attention_operations(spec: ModelSpec, context: int) -> float:
    """Of one token of a prompt that fills the context, on average: queries times keys, and weights times values.

    Its keys are half of the context; within a window of w tokens, w but for the first ones.
    """
    total = 0.0
    for layer in spec.attention:
        seen = min(context, layer.window or context)
        total += 4 * layer.queries * (seen - seen**2 / (2 * context))
    return total


def _pass_bytes(spec: ModelSpec, names: Iterable[str]) -> float:
    """What a micro-batch of a prompt reads: every expert, since its tokens go through different ones."""
    sizes = spec.tensor_bytes()
    return sum(sizes[name] for name in names if spec.tied or name != "token_embd.weight")


def speed(spec: ModelSpec, parts: list[Part], context: int, kv_type: str) -> Speed:
    """Speed of one conversation. The low end has a full context and the low efficiency of the device, the high end
    an empty one and the high efficiency.

    Args:
        parts: who holds what; a token goes through one after the other.
    """
    cache, attention = kv_bytes(spec, context, kv_type), _attention_operations(spec, context)
    works = [_Work.of(spec, part) for part in parts]
    ends = []
    for end in (0, 1):
        full = [(1 - end) * part.share for part in parts]
        timed = [work.seconds(spec, s * cache, s * attention, end) for work, s in zip(works, full, strict=True)]
        decode, prefill = (sum(seconds) for seconds in zip(*(found[:2] for found in timed), strict=True))
        ends.append((1 / decode, 1 / prefill, *timed[0][2:]))
    (slow, slow_prompt, bound, prompt_bound), (fast, fast_prompt, *_) = ends
    return Speed(
        decode=(slow, fast),
        prefill=(slow_prompt, fast_prompt),
        bound="offload" if len(parts) > 1 else bound,
        prefill_bound="offload" if len(parts) > 1 else prompt_bound,
        load_seconds=spec.data_bytes / min(part.device.storage for part in parts),
    )


@dataclass(frozen=True)
class _Work:
    """What one token asks of a part: bytes read and operations by type, for decoding and (prompt) while a prompt is
    read; bytes of a pass over a micro-batch; layers touched."""

    part: Part
    read: Mapping[str, float]
    decode: float
    prompt: Mapping[str, float]
    pass_bytes: float
    layers: int
    experts: int

    @classmethod
    def of(cls, spec: ModelSpec, part: Part) -> _Work:
        names = list(part.of(spec))
        return cls(
            part,
            bytes_by_type(spec, names),
            sum(operations_by_type(spec, names, prompt=False).values()),
            operations_by_type(spec, names, prompt=True),
            _pass_bytes(spec, names),
            len({block_of(name) for name in names} - {-1}),
            chosen_experts(spec, names),
        )

    def seconds(self, spec: ModelSpec, cache: float, attention: float, end: int) -> tuple[float, float, str, str]:
        """Of a decoded token and of one of a prompt, each with what bounds it.

        Args:
            spec: the whole model.
            cache: bytes of it that are read.
            attention: operations over it.
            end: 0 for the slow end, 1 for the fast one.
        """
        device, weights = self.part.device, sum(self.read.values())
        bandwidth = device.bandwidth * device.efficiency[end]
        rate = device.compute * device.compute_efficiency[end]
        if device.rates:
            whole = {kind: size * (1 + cache / weights) for kind, size in self.read.items()}
            known = calibrated_seconds(device.rates, self.layers, spec.vocab, whole, self.experts)
            decode, bound = known * _CALIBRATED[1 - end], "bandwidth"
        else:
            by_bandwidth, by_compute = (weights + cache) / bandwidth, self.decode / rate
            bound = "compute" if by_bandwidth < by_compute else "bandwidth"
            decode = max(by_bandwidth, by_compute)
            decode += self.layers * _LAYER[device.kind][end] + self.part.share * _TOKEN[device.kind][end]
        if device.prompt_rates:
            slowest = min(device.prompt_rates.values())
            prompt = sum(count / device.prompt_rates.get(kind, slowest) for kind, count in self.prompt.items())
            prompt = (prompt + attention / max(device.prompt_rates.values())) * _CALIBRATED[1 - end]
        else:
            prompt = (sum(self.prompt.values()) + attention) / rate
        # a prompt's weights are read once for a micro-batch
        by_pass = self.pass_bytes / bandwidth / MICRO_BATCH
        return decode, max(prompt, by_pass), bound, "compute" if by_pass < prompt else "bandwidth"


def calibrated_seconds(
    rates: Mapping[str, float], layers: int, vocab: int, read: Mapping[str, float], experts: int = 0
) -> float:
    """Seconds of a token by a machine's own rates; a type that was not measured takes the slowest known.

    Args:
        rates: seconds of a layer (`layer`), of a vocabulary entry (`vocabulary`: choosing among them), of an expert
            that a token goes through (`expert`), and of a byte of each tensor type.
        layers: the model's.
        vocab: its vocabulary's size.
        read: bytes that a token reads by type.
        experts: see `chosen_experts`.
    """
    fixed = {"layer": layers, "vocabulary": vocab, "expert": experts}
    slowest = max(rate for key, rate in rates.items() if key not in fixed)
    by_type = sum(size * rates.get(kind, slowest) for kind, size in read.items())
    return by_type + sum(count * rates.get(key, 0.0) for key, count in fixed.items())
