"""Options that `potstill fit`, `plan` and `search` share, checked here for all of them."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from potstill.components.hardware.devices import Device, find_device, known_device
from potstill.components.hardware.fit import Serving
from potstill.components.hardware.memory import KV_TYPES
from potstill.core.errors import UsageError

__all__ = ["DEFAULT_CONTEXT", "ServingOptions", "chosen_quantizations", "require_context", "require_positive"]

DEFAULT_CONTEXT = 4096
_MAX_COUNT = 2**31 - 1
"""llama.cpp counts tokens and conversations in 32 bits."""


def require_positive(option: str, value: float | None, most: float = math.inf) -> None:
    """Raise UsageError unless a number is above 0, finite, and not above `most`; None is accepted."""
    if value is None:
        return
    if not 0 < value < math.inf:  # NaN is neither
        raise UsageError(f"{option} must be more than 0 and finite, found {value}.")
    if value > most:
        raise UsageError(f"{option} must be at most {most:,.0f}, found {value}.")


def chosen_quantizations(chosen: Collection[str], known: Collection[str], note: str = "") -> tuple[str, ...]:
    """The values of --quantization in the spelling of `known`, each once; case does not matter.

    Raises:
        UsageError: one is not known; `note` ends the message.
    """
    spelled = {name.lower(): name for name in known}
    for name in chosen:
        if name.lower() not in spelled:
            raise UsageError(f"--quantization {name!r} is not one of {', '.join(known)}{note}.")
    return tuple(dict.fromkeys(spelled[name.lower()] for name in chosen))


def require_context(context: int, most: int | None, name: str, option: str = "--context") -> None:
    """Raise UsageError for a context that is longer than the model was made for.

    Args:
        context: tokens of a conversation.
        most: the model's own maximum; None where it is not known.
        name: the model.
        option: the option or key with which the context was given.
    """
    if most is not None and context > most:
        raise UsageError(
            f"{option} {context}: {name} was made for {most:,} tokens at most. Set {most} or fewer, or choose a model "
            "with a longer context."
        )


@dataclass(frozen=True)
class ServingOptions:
    """How and where a model is served.

    devices      names of devices
    context      tokens of one conversation; None for the command's default
    kv_type      type of the KV cache; case does not matter
    parallel     conversations at once
    memory_gb    10^9 bytes that are free for the model on every device, instead of the device's usable share

    Raises:
        UsageError: the KV type is not known, or a number is not positive and finite.
    """

    devices: tuple[str, ...] = ()
    context: int | None = None
    kv_type: str = "f16"
    parallel: int = 1
    memory_gb: float | None = None

    def __post_init__(self) -> None:
        if self.kv_type.lower() not in KV_TYPES:
            raise UsageError(f"--kv-type {self.kv_type!r} is not one of {', '.join(KV_TYPES)}.")
        object.__setattr__(self, "kv_type", self.kv_type.lower())
        require_positive("--context", self.context, _MAX_COUNT)
        require_positive("--parallel", self.parallel, _MAX_COUNT)
        require_positive("--memory", self.memory_gb, 1e9)

    def serving(self, context: int) -> Serving:
        """How the model is served, with this context where none was given."""
        return Serving(context if self.context is None else self.context, self.kv_type, self.parallel)

    def all_devices(self) -> list[Device]:
        """The named devices, each once; this machine, probed quickly, where none was named.

        Raises:
            UsageError: a device is not known.
        """
        found = [find_device(name) for name in dict.fromkeys(self.devices)] or [find_device("this", quick=True)]
        return [self._sized(device) for device in {one.name: one for one in found}.values()]

    def one_device(self, target: str) -> Device | None:
        """The named device, or else the one in a recipe's `target.device`; None where that names no known device.

        Raises:
            UsageError: a device is not known, or several were named.
        """
        if self.devices:
            first, *others = self.all_devices()
            if others:
                raise UsageError("A student is made for one device: give --device once.")
            return first
        device = known_device(target)
        return self._sized(device) if device else None

    def _sized(self, device: Device) -> Device:
        return device if self.memory_gb is None else device.with_memory(self.memory_gb * 1e9)
