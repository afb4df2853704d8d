"""The budgets of a recipe's target, against what is predicted for a student on its device."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.components.hardware.devices import Device, known_device, near_devices
from potstill.components.hardware.fit import Serving, fit
from potstill.components.hardware.speed import Speed
from potstill.components.models.recipe_models import Models
from potstill.core.errors import RecipeError
from potstill.core.format import format_number, format_size
from potstill.core.recipe import Recipe, Target

__all__ = ["Limits", "device_warnings"]


@dataclass(frozen=True)
class Limits:
    """Limits of a student; None where there is none.

    file_bytes    largest file
    peak_bytes    largest resident memory
    ttft          longest time to the first token after a prompt of `prompt` tokens, in seconds
    decode        slowest decoding, in tokens per second
    """

    file_bytes: float | None = None
    peak_bytes: float | None = None
    ttft: float | None = None
    decode: float | None = None
    prompt: int = 512

    @classmethod
    def of(cls, target: Target, prompt: float) -> Limits:
        """The limits of a recipe, for prompts of so many tokens."""
        return cls(
            file_bytes=None if target.file_mb is None else target.file_mb * 1e6,
            peak_bytes=None if target.memory_mb is None else target.memory_mb * 1e6,
            ttft=None if target.ttft_ms is None else target.ttft_ms / 1000,
            decode=target.decode_tokens_per_s,
            prompt=max(1, round(prompt)),
        )

    def missed(self, file_bytes: float, peak_bytes: float, speed: Speed | None, *, best: bool = False) -> list[str]:
        """Keys of the recipe's `target` that are missed at the slow end of the speed's range, or (best) at the fast."""
        end = 1 if best else 0
        first = speed.first_token(self.prompt)[1 - end] if speed else 0.0
        tests = {
            "file_mb": self.file_bytes is not None and file_bytes > self.file_bytes,
            "memory_mb": self.peak_bytes is not None and peak_bytes > self.peak_bytes,
            "ttft_ms": self.ttft is not None and first > self.ttft,
            "decode_tokens_per_s": bool(speed and self.decode is not None and speed.decode[end] < self.decode),
        }
        return [key for key, failed in tests.items() if failed]


def device_warnings(recipe: Recipe, models: Models, prompt: float) -> list[str]:
    """Warnings about what the student may miss on its target's device.

    There are none for this machine, because the run measures it, and none for a device that is not in the list. With a
    trimmed vocabulary, whose size is known later, nothing is refused.

    Args:
        recipe: the recipe; `target.device` names the device.
        models: its models.
        prompt: tokens of a prompt.

    Raises:
        RecipeError: the student cannot meet the target; the message says by how much, and what to do.
    """
    if recipe.target.is_this_machine:
        return []
    device = known_device(recipe.target.device)
    if device is None:
        warning = _unknown_device(recipe.target)
        return [warning] if warning else []
    certain, possible = _missed(recipe, models, device, prompt)
    if certain and recipe.student.vocabulary == "full":
        raise RecipeError(f"{certain[0]}. `potstill search RECIPE` lists students that can.")
    return [f"{text}: it may miss that." for text in possible] + [
        f"{text}, with the whole vocabulary." for text in certain
    ]


def _unknown_device(target: Target) -> str | None:
    """A warning about a device that is not in the list, where something is predicted by it or a typo is likely."""
    if near := near_devices(target.device):
        return (
            f"target.device: {target.device!r} is not in the list of devices, so nothing is predicted for it. Did you "
            f"mean {' or '.join(near)}?"
        )
    limited = [
        f"target.{key}" for key in ("memory_mb", "ttft_ms", "decode_tokens_per_s") if getattr(target, key) is not None
    ]
    if target.measured or not limited:
        return None
    return (
        f"target.device: {target.device!r} is not in the list of devices (`potstill devices`), so "
        f"{' and '.join(limited)} cannot be predicted, and their gates stay INCONCLUSIVE until `potstill bench` has "
        "run on it. Set target.device: this machine to judge by what is measured here."
    )


def _missed(recipe: Recipe, models: Models, device: Device, prompt: float) -> tuple[list[str], list[str]]:
    """Sentences, without a final stop, about what the student misses on the device: for certain, and possibly."""
    target, quantization = recipe.target, recipe.export.quantization
    found = fit(models.student_spec, quantization, device, Serving(recipe.chat.context))
    rate = found.speed
    if rate is None:
        room, needed = format_size(device.usable_bytes), format_size(found.memory.needed)
        return [
            f"target.device: {device.name} has {room} for a model, and the student's {quantization} file needs "
            f"{needed} at a context of {recipe.chat.context}"
        ], []
    limits = Limits.of(target, prompt)
    first = [format_number(1000 * seconds) for seconds in rate.first_token(limits.prompt)]
    decoding = [format_number(tokens) for tokens in rate.decode]
    ranges = {
        "ttft_ms": f"{' to '.join(first)} ms to the first token after a prompt of {limits.prompt} tokens, and the "
        f"limit is {target.ttft_ms or 0:g}",
        "decode_tokens_per_s": f"{' to '.join(decoding)} tokens/s, and the limit is "
        f"{target.decode_tokens_per_s or 0:g}",
    }
    texts = {
        key: f"target.{key}: on {device.name} the student's {quantization} file is predicted to reach {ranges[key]}"
        for key in limits.missed(0, 0, rate)
    }
    certain = limits.missed(0, 0, rate, best=True)
    return [texts[key] for key in certain], [text for key, text in texts.items() if key not in certain]
