"""What a recipe's target allows a student, against what is predicted of it."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.components.hardware.devices import known_device, near_devices
from potstill.components.hardware.fit import Serving, fit
from potstill.components.hardware.speed import Speed
from potstill.components.models.recipe_models import Models
from potstill.core.errors import RecipeError
from potstill.core.format import format_number, format_size
from potstill.core.recipe import Recipe, Target

__all__ = ["Limits", "check_device"]


@dataclass(frozen=True)
class Limits:
    """A limit that is None is not asked.

    file_bytes    of the largest file
    peak_bytes    of the most resident memory
    ttft          seconds to the first token after a prompt of `prompt` tokens
    decode        tokens a second, at least
    """

    file_bytes: float | None = None
    peak_bytes: float | None = None
    ttft: float | None = None
    decode: float | None = None
    prompt: int = 512

    @classmethod
    def of(cls, target: Target, prompt: float) -> Limits:
        """A recipe's, for prompts of so many tokens."""
        return cls(
            file_bytes=None if target.file_mb is None else target.file_mb * 1e6,
            peak_bytes=None if target.memory_mb is None else target.memory_mb * 1e6,
            ttft=None if target.ttft_ms is None else target.ttft_ms / 1000,
            decode=target.decode_tokens_per_s,
            prompt=max(1, round(prompt)),
        )

    def missed(self, file_bytes: float, peak_bytes: float, speed: Speed | None, *, best: bool = False) -> list[str]:
        """Keys of the recipe's `target` that are not met; of `speed` by its slow end, or (best) by its fast one."""
        end = 1 if best else 0
        first = speed.first_token(self.prompt)[1 - end] if speed else 0.0
        tests = {
            "file_mb": self.file_bytes is not None and file_bytes > self.file_bytes,
            "memory_mb": self.peak_bytes is not None and peak_bytes > self.peak_bytes,
            "ttft_ms": self.ttft is not None and first > self.ttft,
            "decode_tokens_per_s": bool(speed and self.decode is not None and speed.decode[end] < self.decode),
        }
        return [key for key, failed in tests.items() if failed]


def check_device(recipe: Recipe, models: Models, prompt: float, warnings: list[str]) -> None:
    """Refuse a student that its target's device cannot hold or that cannot be as fast there as is asked.

    What the device might reach is a warning. A device that devices.toml does not know is not judged, and of a trimmed
    vocabulary, whose size is known later, no more than a warning is said.

    Args:
        recipe: the recipe; `target.device` names the device.
        models: its models.
        prompt: tokens of a prompt.
        warnings: taken more of.

    Raises:
        RecipeError: the student cannot meet the target; the message says by how much, and what could.
    """
    target, device = recipe.target, known_device(recipe.target.device)
    if device is None:
        asked = [key for key in ("ttft_ms", "decode_tokens_per_s") if getattr(target, key) is not None]
        if near := near_devices(target.device):
            warnings.append(
                f"target.device: {target.device!r} is not in the list of devices, so nothing is predicted of it. Was "
                f"{' or '.join(near)} meant?"
            )
        elif asked:
            warnings.append(
                f"target.device: {target.device!r} is not in the list of devices (potstill plan --devices), so "
                f"target.{' and target.'.join(asked)} cannot be predicted, and are judged by what is measured here."
            )
        return
    quantization = recipe.export.quantization
    found = fit(models.student_spec, quantization, device, Serving(recipe.chat.context))
    advice = "potstill plan RECIPE --search lists students that can."
    said: list[str] = []
    if found.speed is None:
        said = [
            f"target.device: {device.name} has {format_size(device.usable_bytes)} for a model, and the student's "
            f"{quantization} file needs {format_size(found.memory.needed)} at a context of {recipe.chat.context}"
        ]
    else:
        limits, rate = Limits.of(target, prompt), found.speed
        ttft = " to ".join(format_number(1000 * seconds) for seconds in rate.first_token(limits.prompt))
        decode = " to ".join(map(format_number, rate.decode))
        words = {
            "ttft_ms": f"{ttft} ms to the first token after {limits.prompt} tokens "
            f"of prompt, and {target.ttft_ms or 0:g} are allowed",
            "decode_tokens_per_s": f"{decode} tokens/s, and {target.decode_tokens_per_s or 0:g} are asked",
        }
        sure = limits.missed(0, 0, rate, best=True)
        for key in limits.missed(0, 0, rate):
            sentence = f"target.{key}: on {device.name} the student's {quantization} file is predicted to reach "
            sentence += words[key]
            said += [sentence] if key in sure else []
            warnings += [] if key in sure else [f"{sentence}: it may miss that."]
    if said and recipe.student.vocabulary == "full":
        raise RecipeError(f"{said[0]}. {advice}")
    warnings += [f"{sentence}, with all of the vocabulary." for sentence in said]
