"""A step is whole or not there; its fingerprint is its inputs, and a changed file is noticed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.core.artifacts.step import DoneRecord, StepRecord
from potstill.core.errors import StepError
from potstill.core.files import unfinished
from potstill.core.hashing import HashedPath, fingerprint, hash_file, hash_model, hashed_value
from potstill.core.steps import Done, Stage, StepResult, run_step

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(parts=st.dictionaries(st.text(), JSON, max_size=4))
def test_fingerprint_does_not_depend_on_order(parts: dict[str, object]) -> None:
    assert fingerprint(parts) == fingerprint(dict(reversed(parts.items())))


def test_hashed_value_keeps_values_apart_and_rejects_what_has_no_identity(tmp_path: Path) -> None:
    values = (1, "1", None, [1], {"b": 1}, 1.5)
    assert len({fingerprint({"a": hashed_value(v)}) for v in values}) == len(values)
    with pytest.raises(StepError, match=r"inputs\.a: a object has no stable identity"):
        hashed_value({"a": object()})
    with pytest.raises(StepError, match="Hand over a HashedPath instead"):
        hashed_value(tmp_path)


@dataclass(frozen=True)
class Inputs:
    """Inputs of a made-up stage."""

    value: int = 1
    file: HashedPath | None = None


def step(run: Path, build: Callable[[Path], Any], inputs: Inputs | None = None, **more: Any) -> StepResult:
    stage: Stage[Any, Inputs] = Stage("train", (), lambda recipe, done: None, lambda inputs, out: build(out))
    return run_step(stage, inputs or Inputs(), run, {}, **more)


def test_a_step_runs_once_and_its_record_says_how_it_was_made(tmp_path: Path) -> None:
    calls: list[Path] = []
    first = step(tmp_path, calls.append)
    again = step(tmp_path, calls.append)
    assert len(calls) == 1
    assert (first.cached, again.cached) == (False, True)
    assert (first.dir, first.seconds) == (again.dir, again.seconds)
    record = StepRecord.read(first.dir)
    assert record.fingerprint == first.fingerprint
    assert record.inputs == {"value": 1, "file": None}
    assert first.dir.name == f"train-{first.fingerprint[:12]}"
    assert step(tmp_path, calls.append, Inputs(2)).dir != first.dir


def test_a_file_counts_by_its_content_and_not_by_its_path(tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("a", "b", "c")]
    for path, text in zip(names, ("x", "x", "y"), strict=True):
        path.write_text(text)
    dirs = [step(tmp_path / "run", lambda out: None, Inputs(file=HashedPath.of_file(path))).dir for path in names]
    assert dirs[0] == dirs[1] != dirs[2]


def test_a_failed_step_is_not_done_and_resumes_in_its_directory(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "paid").write_text("for")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        step(tmp_path, fail)
    found: list[str] = []
    done = step(tmp_path, lambda folder: found.append((folder / "paid").read_text()))
    assert found == ["for"]
    assert not done.cached

    def fail_at_once(folder: Path) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        step(tmp_path / "other", fail_at_once)
    assert not list((tmp_path / "other").glob("train-*"))


def _kill_self(run: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("written")
        os.kill(os.getpid(), signal.SIGKILL)

    step(run, build)


def test_a_killed_step_is_not_done(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_kill_self, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not list(tmp_path.rglob("DONE"))
    assert not step(tmp_path, lambda folder: None).cached


@pytest.mark.parametrize("spoil", ["change", "truncate", "delete", "record", "done"])
def test_a_step_whose_files_changed_is_reported_and_not_used(tmp_path: Path, spoil: str) -> None:
    def build(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text("learnt")

    first = step(tmp_path, build)
    victim = first.dir / {"record": "step.json", "done": "DONE"}.get(spoil, "model/weights")
    if spoil == "delete":
        victim.unlink()
    else:
        victim.write_text("" if spoil == "truncate" else victim.read_text().replace("e", "3"))
    notes: list[str] = []
    again = step(tmp_path, build, note=notes.append)
    assert not again.cached
    assert (again.dir / "model" / "weights").read_text() == "learnt"
    assert len(notes) == 1
    assert first.dir.name in notes[0]
    assert (tmp_path / f"{first.dir.name}.changed-1").is_dir()
    if spoil not in ("done",):
        assert victim.relative_to(first.dir).as_posix() in notes[0]
    assert step(tmp_path, build, note=notes.append).cached
    assert len(notes) == 1


def _small(folder: Path) -> None:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "weights").write_text("my weights")
    (folder / "model" / "DONE").write_text("a file of my model")
    (folder / "rows.jsonl").write_text("my rows")


@pytest.mark.parametrize("name", ["model/weights", "model/DONE", "rows.jsonl", "step.json", "DONE"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "delete", "swap"])
def test_no_damage_to_any_file_passes_for_the_step(tmp_path: Path, name: str, damage: str) -> None:
    first, other = step(tmp_path, _small), step(tmp_path, _small, Inputs(2))
    (other.dir / name).write_bytes((other.dir / name).read_bytes().replace(b"my ", b"your "))
    victim = first.dir / name
    whole = victim.read_bytes()
    if damage == "delete":
        victim.unlink()
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        swapped = (other.dir / name).read_bytes()
        victim.write_bytes({"flip": flipped, "truncate": whole[:-2], "empty": b"", "swap": swapped}[damage])
    notes: list[str] = []
    again = step(tmp_path, _small, note=notes.append)
    assert (again.cached, len(notes)) == (False, 1)
    assert step(tmp_path, _small).cached


def test_a_file_that_was_added_or_left_out_of_the_list_is_named(tmp_path: Path) -> None:
    done = step(tmp_path, _small)
    (done.dir / ".DS_Store").write_text("a file manager's")
    assert step(tmp_path, _small).cached
    (done.dir / "model" / "more").write_text("added")
    notes: list[str] = []
    assert not step(tmp_path, _small, note=notes.append).cached
    assert "model/more was added" in notes[0]
    record = json.loads((done.dir / "DONE").read_text())
    del record["files"]["rows.jsonl"]
    (done.dir / "DONE").write_text(json.dumps(record))
    (done.dir / "rows.jsonl").unlink()
    assert not step(tmp_path, _small, note=notes.append).cached
    assert "its list of files has changed" in notes[1]


def test_a_step_that_was_killed_before_done_resumes_in_its_directory(tmp_path: Path) -> None:
    """step.json alone means that DONE was deleted; with the unfinished DONE.tmp, that the call was killed."""
    done = step(tmp_path, _small)
    (done.dir / "DONE").rename(done.dir / "DONE.tmp")
    notes: list[str] = []
    assert not step(tmp_path, _small, note=notes.append).cached
    assert not notes
    assert step(tmp_path, _small).cached


def _kill_at_rename(folder: Path, number: int) -> None:
    """Run a step in a process that is killed just before its rename of that number, or just after its last one."""
    real, left = os.replace, [number]

    def replace(source: Any, target: Any) -> None:
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        real(source, target)

    os.replace = replace  # type: ignore[assignment]
    step(folder, _small)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("number", range(3))
def test_a_step_that_was_killed_while_it_ended_is_whole_after_the_next_run(tmp_path: Path, number: int) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_kill_at_rename, args=(tmp_path, number))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    notes: list[str] = []
    assert step(tmp_path, _small, note=notes.append).cached == (number == 2)
    assert step(tmp_path, _small, note=notes.append).cached
    left = [path.name for path in tmp_path.rglob("*")]
    assert not notes and not any(name.endswith((".tmp", unfinished(tmp_path).suffix)) for name in left)


def test_what_was_paid_for_is_carried_over_when_a_step_has_changed(tmp_path: Path) -> None:
    bought: list[str] = []

    def build(inputs: Inputs, out: Path) -> None:
        journal = out / "answers.journal.jsonl"
        if not journal.exists():
            bought.append("answers")
            journal.write_text("answers")
        (out / "rows.jsonl").write_text(journal.read_text())

    stage: Stage[Any, Inputs] = Stage("generate", (), lambda recipe, done: None, build, paid=("*.journal.jsonl",))
    first = run_step(stage, Inputs(), tmp_path, {})
    (first.dir / "rows.jsonl").write_text("edited")
    again = run_step(stage, Inputs(), tmp_path, {})
    assert (again.dir / "rows.jsonl").read_text() == "answers"
    assert bought == ["answers"]
    (again.dir / "answers.journal.jsonl").write_text("edited")
    last = run_step(stage, Inputs(), tmp_path, {})
    assert (last.dir / "rows.jsonl").read_text() == "answers"
    assert bought == ["answers", "answers"]  # a journal that has changed is not trusted


def test_an_unknown_format_is_an_error_that_names_both(tmp_path: Path) -> None:
    done = step(tmp_path, lambda folder: None)
    path = done.dir / "DONE"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 7}))
    with pytest.raises(StepError, match=r"format 7, and this version of potstill reads format 2 of DoneRecord"):
        DoneRecord.read(done.dir)


def test_done_hands_over_files_and_folders_with_their_hashes(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "student").mkdir()
        (folder / "student" / "weights").write_text("w")
        (folder / "student.log").write_text("l")

    result = step(tmp_path, build)
    done = Done({"train": result}, ("train", "targets"))
    file, folder = done.path("train", "student.log"), done.path("train", "student")
    assert file == HashedPath(result.dir / "student.log", hash_file(result.dir / "student.log"))
    assert folder.path == result.dir / "student"
    assert folder.sha256 == hash_model(result.dir / "student", ("",))
    assert "targets" not in done
    assert done.optional_path("targets", "store") is None
    assert done.optional_path("train", "control") is None
    with pytest.raises(StepError, match="left no control"):
        done.path("train", "control")
    with pytest.raises(KeyError, match="does not declare that it reads generate"):
        done.path("generate", "train.jsonl")


def test_a_models_hash_sees_names_and_contents_and_takes_a_hub_blobs_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "w.safetensors").write_text("x")
    first = hash_model(tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("ignored")
    assert hash_model(tmp_path / "a") == first
    (tmp_path / "a" / "w.safetensors").write_text("yy")
    assert hash_model(tmp_path / "a") != first
    changed = hash_model(tmp_path / "a")
    (tmp_path / "a" / "additional_chat_templates").mkdir()
    (tmp_path / "a" / "additional_chat_templates" / "tool_use.jinja").write_text("t")
    assert hash_model(tmp_path / "a") != changed
    blob = tmp_path / ("0" * 64)
    blob.write_text("content that is not read")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "w.safetensors").symlink_to(blob)
    linked = hash_model(tmp_path / "b")
    blob.write_text("changed, but its name says what it is")
    assert hash_model(tmp_path / "b") == linked
