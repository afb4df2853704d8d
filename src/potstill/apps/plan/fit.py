"""`potstill fit MODEL`: whether a model runs on a device, how fast, and with which context."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.apps.plan.options import DEFAULT_CONTEXT, ServingOptions, chosen_quantizations, require_context
from potstill.components.hardware.devices import find_device
from potstill.components.hardware.fit import Fit, FitVerdict, fit
from potstill.components.models.architectures import unchecked
from potstill.components.models.gguf_types import QUANTIZATIONS, usual_quantization
from potstill.components.models.source import load_spec
from potstill.components.models.spec import ModelSpec
from potstill.core.errors import UsageError
from potstill.core.format import format_size

__all__ = ["FitOptions", "FitReport", "fit_model"]

_DEFAULT_HOST = "Desktop DDR5-5600"


@dataclass(frozen=True)
class FitOptions(ServingOptions):
    """Options of `potstill fit`.

    quantizations   default: that of the publisher, or Q4_K_M; a GGUF file has its own
    host            host machine of a discrete GPU, whose memory takes what the GPU has no room for
    """

    quantizations: tuple[str, ...] = ()
    host: str | None = None


@dataclass(frozen=True)
class FitReport:
    """One model in one quantization on one device: sizes in bytes, speeds as ranges (low, high).

    `needed_bytes` must be free on the device; `total_bytes` is resident memory, with copies of reordered weights.
    `warnings` says what about the model was not checked.
    """

    weight_bytes: int
    bits_per_weight: float
    kv_bytes: int
    compute_bytes: int
    total_bytes: int
    decode_tokens_per_s: tuple[float, float]
    max_context: int
    verdict: FitVerdict
    model: str
    architecture: str
    quantization: str | None
    device: str
    backend: str
    context: int
    kv_type: str
    parallel: int
    parameters: int
    experts: int
    experts_used: int
    file_bytes: int
    copied_bytes: int
    overhead_bytes: int
    needed_bytes: int
    usable_bytes: int
    prefill_tokens_per_s: tuple[float, float]
    bound: str | None
    prefill_bound: str | None
    load_seconds: float | None
    max_context_without_offload: int
    layers: int
    layers_on_device: int
    expert_layers_on_host: int
    host: str | None
    host_bytes: int
    advice: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, found: Fit) -> FitReport:
        """The report on what `fit` found."""
        spec, held, rate = found.spec, found.memory, found.speed
        return cls(
            weight_bytes=spec.weight_bytes,
            bits_per_weight=round(spec.bits_per_weight, 4),
            kv_bytes=held.kv,
            compute_bytes=held.compute,
            total_bytes=held.total,
            decode_tokens_per_s=_rounded(rate.decode) if rate else (0.0, 0.0),
            max_context=found.max_context,
            verdict=found.verdict,
            model=spec.name,
            architecture=spec.architecture,
            quantization=spec.quantization,
            device=found.device.name,
            backend=found.device.backend,
            context=found.serving.context,
            kv_type=found.serving.kv_type,
            parallel=found.serving.parallel,
            parameters=spec.parameters,
            experts=spec.experts,
            experts_used=spec.experts_used,
            file_bytes=held.weights,
            copied_bytes=held.copies,
            overhead_bytes=held.overhead,
            needed_bytes=held.needed,
            usable_bytes=found.device.usable_bytes,
            prefill_tokens_per_s=_rounded(rate.prefill) if rate else (0.0, 0.0),
            bound=rate.bound if rate else None,
            prefill_bound=rate.prefill_bound if rate else None,
            load_seconds=round(rate.load_seconds, 3) if rate else None,
            max_context_without_offload=found.max_context_without_offload,
            layers=spec.layers,
            layers_on_device=found.layers_on_device,
            expert_layers_on_host=found.split.experts if found.split else 0,
            host=found.host.name if found.host else None,
            host_bytes=found.host_bytes,
            advice=found.advice,
            warnings=tuple(filter(None, [unchecked(spec.architecture), _separate_head(spec)])),
        )


def _separate_head(spec: ModelSpec) -> str | None:
    """The note that a publisher's files hold an output matrix that config.json ties to the embedding; else None."""
    if spec.architecture != "qwen2" or not spec.tied or spec.header_bytes is not None or not spec.quantization:
        return None
    more = spec.untied().quantized(spec.quantization).weight_bytes - spec.weight_bytes
    return (
        f"Qwen's own GGUF files of Qwen2.5 hold a separate output matrix, {format_size(more)} more in "
        f"{spec.quantization}; give such a file instead of the config to count it"
    )


def _rounded(rates: tuple[float, float]) -> tuple[float, float]:
    return round(rates[0], 3), round(rates[1], 3)


def fit_model(model: str, options: FitOptions) -> list[FitReport]:
    """A report for every device and quantization.

    Args:
        model: see `load_spec`.
        options: the default context is 4096, or the model's own maximum where that is less.

    Raises:
        UsageError: the model, a device or a quantization is not known; a quantization is given for a GGUF file, or a
            host without a discrete GPU; the model was made for a shorter context.
    """
    spec = load_spec(model)
    chosen = chosen_quantizations(options.quantizations, QUANTIZATIONS)
    if chosen and spec.types:
        raise UsageError(
            f"--quantization {chosen[0]}: {model} is a GGUF file, whose weights are {spec.quantization or 'mixed'}. "
            "Leave the option out, or give the model's config.json."
        )
    serving = options.serving(min(DEFAULT_CONTEXT, spec.context or DEFAULT_CONTEXT))
    require_context(serving.context, spec.context, spec.name)
    devices, host = options.all_devices(), find_device(options.host or _DEFAULT_HOST, option="--host")
    if options.host and not any(device.kind == "gpu" for device in devices):
        raise UsageError(
            f"--host {options.host}: a host takes what a discrete GPU has no room for, and {devices[0].name} is not "
            "one. Leave the option out, or give a GPU as --device."
        )
    chosen = (spec.quantization or "mixed",) if spec.types else chosen or (usual_quantization(spec.architecture),)
    return [FitReport.of(fit(spec, kind, device, serving, host)) for device in devices for kind in chosen]
