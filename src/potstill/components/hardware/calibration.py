"""This machine's measured rates, as `potstill calibrate-device` stores them."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from potstill.core.errors import UsageError
from potstill.core.files import read_json_object, write_json

__all__ = ["Calibration", "Measured", "calibration_file", "machine_name", "read_calibration"]


class Measured(BaseModel):
    """Tokens per second of one model: measured, and by the fitted rates."""

    model_config = ConfigDict(frozen=True)

    model: str
    measured: float
    fitted: float


class Calibration(BaseModel):
    """What was measured on a machine.

    rates          see `speed.calibrated_seconds`
    prompt_rates   operations per second by tensor type, while a prompt is read
    threads        llama.cpp's threads; the rates hold for this number
    """

    model_config = ConfigDict(frozen=True)

    machine: str | None = None
    rates: dict[str, float]
    prompt_rates: dict[str, float] = {}
    threads: int
    samples: tuple[Measured, ...] = ()

    def store(self) -> Path:
        """Keep the calibration for later plans; returns the file."""
        path = calibration_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.model_dump(mode="json"))
        return path


def calibration_file() -> Path:
    """Where the calibration is kept."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "potstill" / "device.json"


def machine_name() -> str:
    """A name that distinguishes this machine from others that share a home folder."""
    return f"{platform.node()} {platform.machine()} {os.cpu_count()}"


def read_calibration() -> Calibration | None:
    """The calibration of this machine; None where it has not been calibrated.

    Raises:
        UsageError: the file is damaged.
    """
    path = calibration_file()
    if not path.is_file():
        return None
    advice = "Run `potstill calibrate-device` again, or delete the file."
    value = read_json_object(path, error=UsageError, advice=advice)
    try:
        found = Calibration.model_validate(value)
    except ValidationError:
        raise UsageError(f"{path}: not a calibration. {advice}") from None
    return found if found.machine in (None, machine_name()) else None
