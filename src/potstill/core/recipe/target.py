"""The recipe's section on the device: its budgets."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from potstill.core.recipe.fields import LocalPath, OneLine, Positive, Section

__all__ = ["Target"]

_THIS_MACHINE = ("unnamed", "this", "this machine")


class Target(Section):
    """The device that the student runs on, and its budgets."""

    device: OneLine = "unnamed"
    """Name of the device (`potstill devices` lists the known ones), or `this machine`. For a named device, memory and
    speed are predicted until `measured` is given; default: none, and this machine is judged."""
    measured: LocalPath | None = None
    """File that `potstill bench` wrote on the device, by which memory and speed are judged; default: none."""
    file_mb: Positive | None = None
    """Maximum size of the file, in MB (10^6 bytes); default: no limit."""
    memory_mb: Positive | None = None
    """Maximum peak resident memory, in MB (10^6 bytes); default: no limit."""
    ttft_ms: Positive | None = None
    """Maximum median time to the first token, in milliseconds; default: no limit."""
    decode_tokens_per_s: Positive | None = None
    """Minimum median speed of decoding, in tokens per second; default: no limit."""

    @field_validator("measured")
    @classmethod
    def _measured_exists(cls, path: Path | None) -> Path | None:
        if path and not path.is_file():
            raise ValueError(
                f"there is no file {path}. Run `potstill bench PACKAGE --json FILE` on the device and copy FILE "
                "here, or leave the key out"
            )
        return path

    @property
    def is_this_machine(self) -> bool:
        """Whether the device is the machine that potstill runs on."""
        return self.device.strip().lower() in _THIS_MACHINE
