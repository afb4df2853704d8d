"""What a command line asks of a device, alike for a model, a recipe and a search."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.errors import UsageError
from potstill.plan.devices import Device, find_device, known_device
from potstill.plan.fit import Wish
from potstill.plan.memory import KV_TYPES

__all__ = ["Ask"]


@dataclass(frozen=True)
class Ask:
    """Options of `potstill plan`.

    context      tokens of one conversation; None leaves it to what is planned
    memory_gb    10^9 bytes that are free for the model on every device, instead of the device's usable share

    Raises:
        UsageError: the KV type is not known, or a number is not positive.
    """

    devices: tuple[str, ...] = ()
    context: int | None = None
    kv_type: str = "f16"
    parallel: int = 1
    memory_gb: float | None = None

    def __post_init__(self) -> None:
        if self.kv_type not in KV_TYPES:
            raise UsageError(f"--kv-type {self.kv_type!r} is not one of {', '.join(KV_TYPES)}.")
        numbers = {"--context": self.context, "--parallel": self.parallel, "--memory": self.memory_gb}
        for option, value in numbers.items():
            if value is not None and value <= 0:
                raise UsageError(f"{option} must be more than 0, found {value}.")

    def wish(self, context: int) -> Wish:
        """With this context where none is asked."""
        return Wish(self.context or context, self.kv_type, self.parallel)

    def all_devices(self) -> list[Device]:
        """Those that are named; this machine, probed quickly, where none is.

        Raises:
            UsageError: a device is not known.
        """
        found = [find_device(name) for name in self.devices] or [find_device("this", quick=True)]
        return [device.with_memory(self.memory_gb * 1e9) if self.memory_gb else device for device in found]

    def one_device(self, target: str) -> Device | None:
        """The device that is named here, or else by a recipe's `target.device`; None where those are just words.

        Raises:
            UsageError: a device is not known, or several are named.
        """
        if len(self.devices) > 1:
            raise UsageError("A student is made for one device: give --device once.")
        if self.devices:
            return self.all_devices()[0]
        device = known_device(target)
        return device.with_memory(self.memory_gb * 1e9) if device and self.memory_gb else device
