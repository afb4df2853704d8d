"""A step that ends before any single file operation is whole after the next run, and pays for nothing twice."""

from __future__ import annotations

import builtins
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from potstill.core.steps import Stage, run_step

CHANGES = ("replace", "rename", "mkdir", "unlink", "rmdir", "chmod", "fsync")
JOURNAL, RESULT = Path("store/answers.jsonl"), Path("rows.jsonl")


class End:
    """Raises KeyboardInterrupt before the file operation with this number below `folder`.

    After a kill, all later operations fail too, so that no `finally` and no `except` changes the disk.
    """

    def __init__(self, folder: Path, number: int, kill: bool) -> None:
        self.folder, self.left, self.kill = str(folder), number, kill

    def wrap(self, real: Callable[..., Any], counts: Callable[..., bool]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if counts(*args, **kwargs):
                self.left -= 1
                if self.left == 0 or (self.kill and self.left < 0):
                    raise KeyboardInterrupt
            return real(*args, **kwargs)

        return counted

    def arm(self, patch: pytest.MonkeyPatch) -> None:
        def ours(*args: Any, **kwargs: Any) -> bool:
            return any(self.folder in str(arg) for arg in args)

        def written(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> bool:
            return self.folder in str(file) and any(letter in mode for letter in "wax+")

        for name in CHANGES:
            patch.setattr(os, name, self.wrap(getattr(os, name), (lambda *_: True) if name == "fsync" else ours))
        for module in (io, builtins):
            patch.setattr(module, "open", self.wrap(open, written))


@dataclass(frozen=True)
class Inputs:
    """Inputs of a made-up stage."""


def stage(bought: list[str]) -> Stage[Any, Inputs]:
    """A stage that pays for what its journal does not hold."""

    def build(inputs: Inputs, out: Path) -> None:
        journal = out / JOURNAL
        journal.parent.mkdir(exist_ok=True)
        if not journal.exists() or journal.read_text() != "answers":
            bought.append("answers")
            journal.write_text("answers")
        (out / RESULT).write_text("rows")

    return Stage("generate", (), lambda recipe, done: None, build, paid=("store/*",))


@pytest.mark.parametrize("kill", [True, False], ids=["kill", "ctrl-c"])
@pytest.mark.parametrize("changed", [False, True], ids=["new", "changed"])
def test_a_step_may_end_before_any_file_operation(tmp_path: Path, kill: bool, changed: bool) -> None:
    number, ended = 0, False
    while not ended:
        number += 1
        run, bought, notes = tmp_path / "run", list[str](), list[str]()
        if changed:
            (run_step(stage([]), Inputs(), run, {}).dir / RESULT).write_text("edited")
        with pytest.MonkeyPatch.context() as patch:
            end = End(run, number, kill)
            end.arm(patch)
            try:
                run_step(stage([]), Inputs(), run, {})
                ended = True
            except KeyboardInterrupt:
                assert end.left <= 0
        done = run_step(stage(bought), Inputs(), run, {}, notes.append)
        where = f"before operation {number}"
        left = {path.relative_to(done.dir) for path in done.dir.rglob("*") if path.is_file()}
        assert left == {JOURNAL, RESULT, Path("DONE"), Path("step.json")}, where
        assert (done.dir / JOURNAL).read_text() + (done.dir / RESULT).read_text() == "answersrows", where
        kept = [f"{done.dir.name}.changed-1"] if changed else []
        assert sorted(path.name for path in run.iterdir()) == [done.dir.name, *kept], where
        assert all("rows.jsonl has changed" in note for note in notes) and (changed or not notes), where
        assert not (changed and bought), where
        assert run_step(stage(bought), Inputs(), run, {}).cached
        shutil.rmtree(run)
    assert number > 20
