"""What a training writes while it runs: checkpoints, each written whole, and a log with one line per step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import IO, TYPE_CHECKING

from potstill.core.artifacts.training import LogLine, log_path
from potstill.core.files import file_lines, move_into_place, read_json_object, write_bytes, write_json

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["BEST_WEIGHTS", "StepLog", "clear_checkpoints", "resume", "save_checkpoint"]

BEST_WEIGHTS = "best"
"""Folder of the best weights so far, in the folder of the model that is trained."""
_TIME = "time.json"


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
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    if not found:
        return 0, 0.0
    accelerator.load_state(str(found[-1]))
    time = read_json_object(found[-1] / _TIME, missing_ok=True)  # earlier versions of potstill saved none
    return int(found[-1].name.split("-")[1]), float(time.get("seconds", 0.0))


def clear_checkpoints(folder: Path) -> None:
    """Delete what only an unfinished training of the model in this folder needs."""
    for path in (*folder.glob("checkpoint*"), folder / BEST_WEIGHTS):
        shutil.rmtree(path, ignore_errors=True)
