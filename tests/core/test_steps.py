"""A step is whole or not there; its fingerprint is of everything that counts and of nothing else."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.core.errors import StepError
from potstill.core.steps import StepResult, fingerprint, hash_folder, lock_run, run_step

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(parts=st.dictionaries(st.text(), JSON, max_size=4))
def test_fingerprint_does_not_depend_on_order(parts: dict[str, object]) -> None:
    assert fingerprint(parts) == fingerprint(dict(reversed(parts.items())))


def test_fingerprint_tells_values_apart_and_refuses_what_has_no_identity() -> None:
    assert len({fingerprint({"a": v}) for v in (1, "1", None, [1], {"b": 1}, 1.5)}) == 6
    with pytest.raises(StepError, match=r"fingerprint\.a: a object has no stable identity"):
        fingerprint({"a": object()})


def step(run: Path, build: object, value: int = 1, **upstream: StepResult) -> StepResult:
    return run_step(run, "train", {"value": value}, upstream, build)  # type: ignore[arg-type]


def test_a_step_runs_once_and_its_stamp_says_what_it_was(tmp_path: Path) -> None:
    calls: list[Path] = []
    first = step(tmp_path, calls.append)
    again = step(tmp_path, calls.append)
    assert len(calls) == 1
    assert (first.cached, again.cached) == (False, True)
    assert first.dir == again.dir
    assert again.seconds == first.seconds
    stamp = json.loads((first.dir / "step.json").read_text())
    assert stamp["fingerprint"] == first.fingerprint
    assert stamp["parts"] == {"value": 1}
    assert first.dir.name == f"train-{first.fingerprint[:12]}"
    other = step(tmp_path, calls.append, value=2)
    assert other.dir != first.dir
    downstream = step(tmp_path, calls.append, generate=first)
    assert downstream.dir != first.dir


def test_a_failed_step_is_not_done_and_resumes_in_its_directory(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "paid").write_text("for")
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        step(tmp_path, fail)
    found: list[str] = []
    done = step(tmp_path, lambda folder: found.append((folder / "paid").read_text()))
    assert found == ["for"]
    assert (done.dir / "DONE").exists()


def die(run: Path) -> None:
    run_step(run, "train", {"value": 1}, {}, lambda _: os.kill(os.getpid(), signal.SIGKILL))


def test_a_killed_step_is_not_done(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not list(tmp_path.glob("train-*/DONE"))
    assert not step(tmp_path, lambda _: None).cached


def test_two_runs_do_not_share_a_directory(tmp_path: Path) -> None:
    with lock_run(tmp_path), pytest.raises(StepError, match="another potstill process"), lock_run(tmp_path):
        pass
    with lock_run(tmp_path):  # and it is free again
        pass


def test_folder_hash_sees_names_and_contents_and_takes_a_hub_blobs_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "w.safetensors").write_text("x")
    first = hash_folder(tmp_path / "a", (".safetensors",))
    (tmp_path / "a" / "notes.txt").write_text("ignored")
    assert hash_folder(tmp_path / "a", (".safetensors",)) == first
    (tmp_path / "a" / "w.safetensors").write_text("y")
    assert hash_folder(tmp_path / "a", (".safetensors",)) != first
    blob = tmp_path / ("0" * 64)
    blob.write_text("content that is not read")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "w.safetensors").symlink_to(blob)
    linked = hash_folder(tmp_path / "b")
    blob.write_text("changed, but its name says what it is")
    assert hash_folder(tmp_path / "b") == linked
