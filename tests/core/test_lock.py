"""One process works in a run's directory at a time, also where others come and go at the same moment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from potstill.core.errors import StepError
from potstill.core.lock import lock_run

_WORKER = """
import os, sys
from pathlib import Path
from potstill.core.errors import StepError
from potstill.core.lock import lock_run
run, marker, held = Path(sys.argv[1]), sys.argv[2], 0
while held < 400:
    try:
        with lock_run(run):
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))  # fails where a second process is inside
            os.unlink(marker)
            held += 1
    except StepError:
        pass
"""


def test_two_runs_do_not_share_a_directory(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with lock_run(run), pytest.raises(StepError, match="another potstill process"), lock_run(run):
        pass
    with lock_run(run):  # and it is free again
        pass
    assert not run.exists()  # nothing was done in it


def test_several_processes_never_hold_the_same_directory(tmp_path: Path) -> None:
    """Each process removes the directory as it leaves, while others make it, open its lock file and wait."""
    command = [sys.executable, "-c", _WORKER, str(tmp_path / "run"), str(tmp_path / "marker")]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [worker.communicate(timeout=60)[1] for worker in workers] == [""] * 4


def test_a_directory_with_work_in_it_stays_and_one_that_the_user_removed_is_no_error(tmp_path: Path) -> None:
    with lock_run(tmp_path / "run"):
        (tmp_path / "run" / "work").write_text("done")
    assert (tmp_path / "run" / "work").read_text() == "done"
    with lock_run(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file", "a file of this name is in the way"),
        ("file/run", "a part of the path is not a folder"),
        ("n" * 300, "the name is too long"),
        ("link", "a file of this name is in the way"),
    ],
)
def test_a_directory_that_cannot_be_made_is_one_paragraph(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "else")
    with pytest.raises(StepError, match=reason) as error, lock_run(tmp_path / name):
        pass
    assert "\n" not in str(error.value)
    assert (tmp_path / "file").read_text() == "mine"
