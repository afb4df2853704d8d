"""A stage's contract, and the step that runs it once: whole on disk, or not there.

A stage declares its inputs. `Stage.inputs` makes a frozen dataclass of the recipe and of the finished steps that the
stage reads; the fields of that dataclass are the step's fingerprint, and they are all that `Stage.run` receives. So a
stage cannot read what is not in its key.

A step's directory is `runs/NAME/STAGE-HASH12`. Work is done in place, so that a killed step resumes from its own
journal or checkpoints. DONE is written last, by an atomic rename; it holds the SHA-256 of every file that the step
left. A directory without DONE is unfinished work, never a result. A step whose files have changed since is reported,
moved out of the way and run again; so is one with a step.json whose DONE was deleted.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from potstill.core.artifacts.base import Artifact
from potstill.core.artifacts.step import DoneRecord, StepRecord
from potstill.core.environment import git_commit, installed_versions, is_first_process
from potstill.core.errors import StepError
from potstill.core.files import file_errors, move_into_place, replacing, set_usual_modes
from potstill.core.hashing import HashedPath, fingerprint, hash_file, hash_listing, hashed_value
from potstill.core.recipe.fields import Section
from potstill.core.words import printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Done", "Stage", "StepResult", "read_step", "run_step", "step_fingerprint"]

_POLL_SECONDS = 0.2
_PENDING = f"{DoneRecord.FILE}.tmp"

RecipeT = TypeVar("RecipeT", contravariant=True)
InputsT = TypeVar("InputsT", bound="DataclassInstance")
ArtifactT = TypeVar("ArtifactT", bound=Artifact)


@dataclass(frozen=True)
class StepResult:
    """A finished step: where it is, how many seconds it took when it ran, and whether this call found it finished.

    files     SHA-256 of every file that the step left, by its path relative to `dir`
    """

    name: str
    dir: Path
    fingerprint: str
    seconds: float
    cached: bool
    files: Mapping[str, str]

    def path(self, *parts: str) -> HashedPath:
        """A file or a folder of the step, with the hash of its content.

        Raises:
            StepError: the step left no such file.
        """
        name = "/".join(parts)
        if name in self.files:
            return HashedPath(self.dir / name, self.files[name])
        prefix = f"{name}/" if name else ""
        inside = {file.removeprefix(prefix): sha for file, sha in self.files.items() if file.startswith(prefix)}
        if not inside:
            raise StepError(f"{self.dir}: the {self.name} step left no {name}. Delete this directory to run it again.")
        return HashedPath(self.dir / name, hash_listing(inside))


class Done:
    """The finished steps that a stage declared in `reads`; asking for any other is a programming error."""

    def __init__(self, steps: Mapping[str, StepResult], reads: Iterable[str]) -> None:
        self._reads = frozenset(reads)
        self._steps = {name: step for name, step in steps.items() if name in self._reads}

    def __contains__(self, stage: str) -> bool:
        return self._declared(stage) in self._steps

    def __getitem__(self, stage: str) -> StepResult:
        return self._steps[self._declared(stage)]

    def _declared(self, stage: str) -> str:
        if stage not in self._reads:
            raise KeyError(f"the stage does not declare that it reads {stage}")
        return stage

    def folder(self, stage: str) -> Path:
        """Directory of a finished step."""
        return self[stage].dir

    def path(self, stage: str, *parts: str) -> HashedPath:
        """A file or a folder that a finished step left, with the hash of its content; see `StepResult.path`."""
        return self[stage].path(*parts)

    def optional_path(self, stage: str, *parts: str) -> HashedPath | None:
        """`path`, or None where the recipe has no such stage or the step left no such file."""
        if stage not in self:
            return None
        name = "/".join(parts)
        left = any(file == name or file.startswith(f"{name}/") for file in self[stage].files)
        return self.path(stage, *parts) if left else None

    def read(self, stage: str, kind: type[ArtifactT]) -> ArtifactT:
        """The artifact that a finished step left."""
        return kind.read(self.folder(stage))


@dataclass(frozen=True)
class Stage(Generic[RecipeT, InputsT]):
    """One stage of a pipeline.

    name       first half of the step directory's name
    reads      stages whose finished steps `inputs` may look at
    inputs     makes the stage's frozen inputs; None where a recipe has no such stage
    run        does the work in the directory it is given; it must resume from what it finds there
    version    raised when the same inputs give another answer than before
    together   all processes of `accelerate launch` run it and divide the work
    confirm    is asked in every run, also where the step is found finished, about what no fingerprint can hold, such as
               free disk space: given the step's directory and the run's, it returns warnings or raises an error
    paid       patterns of files in the step's directory that cost money or hours, such as journals of answers; where
               the step has changed on disk and runs again, those that are intact are carried over
    later      files that a command may add to the finished step, such as a signature, by their path in its directory
    """

    name: str
    reads: tuple[str, ...]
    inputs: Callable[[RecipeT, Done], InputsT | None]
    run: Callable[[InputsT, Path], None]
    version: int = 1
    together: bool = False
    confirm: Callable[[Path, Path], list[str]] | None = None
    paid: tuple[str, ...] = ()
    later: tuple[str, ...] = ()


def blanked(value: Any) -> Any:
    """Inputs as `Stage.run` receives them: sections without the fields that are not in the fingerprint."""
    if isinstance(value, Section):
        return value.blanked()
    if dataclasses.is_dataclass(value) and not isinstance(value, type | HashedPath):
        changed = {f.name: blanked(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **changed)
    if isinstance(value, tuple):
        return tuple(blanked(item) for item in value)
    return value


def step_fingerprint(stage: Stage[RecipeT, InputsT], inputs: InputsT) -> str:
    """SHA-256 (hex) of everything that can change the step's answer."""
    return fingerprint({"stage": stage.name, "version": stage.version, "inputs": hashed_value(inputs)})


def run_step(
    stage: Stage[RecipeT, InputsT],
    inputs: InputsT,
    run_dir: Path,
    done: Mapping[str, StepResult],
    note: Callable[[str], None] = lambda text: None,
) -> StepResult:
    """Run a stage once for these inputs; a finished step is found again, an unfinished one is resumed.

    Of several processes (`accelerate launch`) the first runs it, or all do where the stage says `together`; each
    returns when the step is finished.

    Args:
        stage: the stage.
        inputs: what its `inputs` made.
        run_dir: the run's directory.
        done: finished steps, by stage; those that the stage reads are recorded.
        note: is called with a sentence when a finished step has changed on disk and runs again.
    """
    mark = step_fingerprint(stage, inputs)
    directory = run_dir / f"{stage.name}-{mark[:12]}"
    if not is_first_process():
        if stage.together and not (directory / DoneRecord.FILE).exists():
            directory.mkdir(parents=True, exist_ok=True)
            stage.run(blanked(inputs), directory)
        while not (directory / DoneRecord.FILE).exists():  # if the first process fails, the launcher ends this one
            time.sleep(_POLL_SECONDS)
        return read_step(directory)
    if _is_finished(directory):
        problem = changed_file(directory, mark, stage.later)
        if problem is None:
            return read_step(directory)
        note(_move_aside(directory, problem, stage.paid))
    _take_carried(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / StepRecord.FILE).unlink(missing_ok=True)  # of a call that was killed before DONE
    start = time.monotonic()
    try:
        stage.run(blanked(inputs), directory)
    except BaseException:
        if not any(directory.iterdir()):
            directory.rmdir()
        raise
    record = StepRecord(
        stage=stage.name,
        stage_version=stage.version,
        fingerprint=mark,
        inputs=hashed_value(inputs),
        reads={name: done[name].dir.name for name in stage.reads if name in done},
        versions=installed_versions(),
        git_commit=git_commit(),
        argv=sys.argv,
        host={"system": platform.platform(), "machine": platform.machine(), "cpus": os.cpu_count()},
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - start, 3),
    )
    _finish(directory, record)
    return dataclasses.replace(read_step(directory), cached=False)


def _is_finished(directory: Path) -> bool:
    """Whether the step was finished once: it has DONE, or step.json without the `DONE.tmp` of a killed call."""
    unfinished = (directory / _PENDING).exists()
    return (directory / DoneRecord.FILE).exists() or ((directory / StepRecord.FILE).exists() and not unfinished)


def _finish(directory: Path, record: StepRecord) -> None:
    """Write step.json and DONE. `DONE.tmp` is there before step.json is, and becomes DONE.

    After an error or Ctrl-C, `DONE.tmp` stays, which says that the step is unfinished. So this is not `replacing`.
    """
    pending = directory / _PENDING
    with file_errors(pending):
        pending.touch()
        record.write(directory)
        set_usual_modes(path for path in directory.rglob("*") if path.is_file())
        done = DoneRecord.of(record.fingerprint, _hash_files(directory))
        pending.write_text(json.dumps(done.to_json(), indent=2) + "\n", encoding="utf-8")
        move_into_place(pending, directory / DoneRecord.FILE)


def read_step(directory: Path) -> StepResult:
    """A finished step from its directory.

    Raises:
        StepError: DONE or step.json is absent, broken, of an unknown format, or of another step.
    """
    record, done = StepRecord.read(directory), DoneRecord.read(directory)
    if record.fingerprint != done.fingerprint:
        raise StepError(
            f"{directory}: {StepRecord.FILE} and {DoneRecord.FILE} are of different steps. Delete this directory to "
            "run the step again."
        )
    return StepResult(record.stage, directory, record.fingerprint, record.seconds, cached=True, files=done.files)


def changed_file(directory: Path, mark: str, later: tuple[str, ...] = ()) -> str | None:
    """What is no longer as the step left it, in a few words; None where every file is."""
    if not (directory / DoneRecord.FILE).exists():
        return "DONE was deleted"
    try:
        done = DoneRecord.read(directory)
    except StepError as error:
        return str(error)
    if done.fingerprint != mark:
        return "DONE belongs to another step"
    for name, sha in done.files.items():
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        if hash_file(path) != sha:
            return f"{name} has changed"
    left = _left_files(directory).keys() - done.files - set(later)
    added = sorted(name for name in left if not Path(name).name.startswith("."))
    return f"{printable(added[0])} was added" if added else None  # file managers add hidden files


def _left_files(directory: Path) -> dict[str, Path]:
    """Every file that a step leaves, by its path in the step's directory; DONE is not among them."""
    found = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if name not in (DoneRecord.FILE, _PENDING)}


def _hash_files(directory: Path) -> dict[str, str]:
    """SHA-256 of every file that a step leaves."""
    return {name: hash_file(path) for name, path in _left_files(directory).items()}


def _move_aside(directory: Path, problem: str, paid: tuple[str, ...]) -> str:
    """Give a changed step's directory another name, so that nothing of it is lost; returns a sentence for the user.

    Files that match `paid` and are as the step left them are copied into a new directory, from which the step resumes.
    It is whole before the old one is moved, so that a kill loses none of them; see `_take_carried`.
    """
    number = 1
    while (target := directory.with_name(f"{directory.name}.changed-{number}")).exists():
        number += 1
    if paid:
        with replacing(_carried(directory)) as copies:
            copies.mkdir()
            for name, sha in _recorded_files(directory).items():
                source = directory / name
                if source.is_file() and any(source.match(pattern) for pattern in paid) and hash_file(source) == sha:
                    (copies / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source, copies / name)
    directory.rename(target)
    return f"{directory.name}: {problem} since the step finished. It is kept as {target.name}, and the step runs again."


def _carried(directory: Path) -> Path:
    """Where the files that a step's next call starts with lie until the changed directory has been moved."""
    return directory.with_name(f"{directory.name}.carried")


def _take_carried(directory: Path) -> None:
    """Begin a step with the files that were carried over; a kill may have come before this in an earlier call."""
    if _carried(directory).is_dir() and not directory.exists():
        _carried(directory).rename(directory)


def _recorded_files(directory: Path) -> Mapping[str, str]:
    """Hashes in DONE; none where DONE itself has changed."""
    try:
        return DoneRecord.read(directory).files
    except StepError:
        return {}
