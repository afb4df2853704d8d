"""Which checkpoint a training continues from."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.components.training.checkpoints import newest_checkpoint
from potstill.core.errors import PotstillError


def _checkpoint(folder: Path, name: str, time: str | None = '{"seconds": 2.5}') -> Path:
    (folder / name).mkdir()
    if time is not None:
        (folder / name / "time.json").write_text(time)
    return folder / name


def test_the_newest_by_number_is_found_and_other_folders_are_not_checkpoints(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    _checkpoint(tmp_path, "checkpoint-9")
    _checkpoint(tmp_path, "checkpoint-old")
    ten = _checkpoint(tmp_path, "checkpoint-10")
    assert newest_checkpoint(tmp_path) == (ten, 10, 2.5)
    eleven = _checkpoint(tmp_path, "checkpoint-11", time=None)
    assert newest_checkpoint(tmp_path) == (eleven, 11, 0.0)


@pytest.mark.parametrize(
    "time", ['{"seconds": "x"}', '{"seconds": -1}', '{"seconds": null}', '{"seconds": 1e300}', "[1", "[]"]
)
def test_a_damaged_time_is_named(tmp_path: Path, time: str) -> None:
    _checkpoint(tmp_path, "checkpoint-3", time)
    with pytest.raises(PotstillError, match=r"checkpoint-3/time\.json"):
        newest_checkpoint(tmp_path)
