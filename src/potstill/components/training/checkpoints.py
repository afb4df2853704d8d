"""What a training writes while it runs: checkpoints, each written whole, and a log with one line per step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import IO, TYPE_CHECKING

from potstill.core.artifacts.training import LogLine, log_path
from potstill.core.errors import StepError
from potstill.core.files import file_lines, move_into_place, read_json_object, write_bytes, write_json

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["BEST_WEIGHTS", "StepLog", "clear_checkpoints", "newest_checkpoint", "resume", "save_checkpoint"]

BEST_WEIGHTS = "best"
"""Folder of the best weights so far, in the folder of the model that is trained."""
_TIME = "time.json"
_MOST_SECONDS = 1e10


class StepLog:
    """`NAME.log.jsonl`: one line per step; lines from the resumed step on are dropped. Only `main` writes."""

    def __init__(self, folder: Path, name: str, resumed_step: int, main: bool = True) -> None:
        self.path = log_path(folder, name)
        self._file: IO[str] | None = None
        if main:
            lines = list(file_lines(self.path)) if self.path.exists() else []
            earlier = [line for line in lines if _step_of(line) < resumed_step]
            write_bytes(self.path, b"".join(line + b"\n" for line in earlier))
            self._file = self.path.open("a")

    def write(self, line: LogLine) -> None:
        """Append a line."""
        if self._file:
            self._file.write(json.dumps(line.model_dump(exclude_none=True)) + "\n")
            self._file.flush()

    def __enter__(self) -> StepLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()


def _step_of(line: bytes) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return 1 << 60  # a line cut off by a kill


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int, seconds: float) -> None:
    """Write `checkpoint-STEP`, whole or not at all, then delete older checkpoints.

    Args:
        accelerator: of this training.
        folder: where the model's checkpoints are.
        step: number of steps that are done.
        seconds: time that they took, over all calls.
    """
    temporary, final = folder / "checkpoint.tmp", folder / f"checkpoint-{step}"
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()  # each rank writes a part
    if accelerator.is_main_process:
        write_json(temporary / _TIME, {"seconds": seconds})
        move_into_place(temporary, final)
        for old in folder.glob("checkpoint-*"):
            if old != final:
                shutil.rmtree(old)


def resume(accelerator: Accelerator, folder: Path) -> tuple[int, float]:
    """Load the newest checkpoint, if there is one; returns the step to continue from, and the seconds up to there."""
    folder.mkdir(parents=True, exist_ok=True)
    found = newest_checkpoint(folder)
    if found is None:
        return 0, 0.0
    path, step, seconds = found
    accelerator.load_state(str(path))
    return step, seconds


def newest_checkpoint(folder: Path) -> tuple[Path, int, float] | None:
    """The newest checkpoint, its number of steps, and the seconds up to there; None where there is none.

    Raises:
        StepError: its file of seconds is damaged.
    """
    steps = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")}
    found = sorted((int(step), path) for path, step in steps.items() if step.isascii() and step.isdecimal())
    if not found:
        return None
    step, path = found[-1]
    time = read_json_object(path / _TIME, missing_ok=True)  # earlier versions of potstill saved none
    seconds = time.get("seconds", 0.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < _MOST_SECONDS:
        raise StepError(f"{path / _TIME}: seconds must be a number that is not negative. Delete {path} to go back.")
    return path, step, float(seconds)


def clear_checkpoints(folder: Path) -> None:
    """Delete what only an unfinished training of the model in this folder needs."""
    for path in (*folder.glob("checkpoint*"), folder / BEST_WEIGHTS):
        shutil.rmtree(path, ignore_errors=True)
