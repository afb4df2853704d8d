"""A step: a fingerprint, a directory, and the promise that it is whole or not there.

A fingerprint hashes everything that can change the step's answer. Its directory is `runs/NAME/STAGE-HASH12`; work is
done in place so that a killed step can resume from its own journal or checkpoints, and `DONE` is written last, by an
atomic rename. A directory without `DONE` is unfinished work, never a result.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potstill.core.errors import StepError
from potstill.core.recipe.sections import Section
from potstill.core.records import write_json

__all__ = [
    "RunResult",
    "StepPlan",
    "StepResult",
    "fingerprint",
    "hash_file",
    "hash_folder",
    "hash_model",
    "is_first_process",
    "lock_run",
    "run_step",
    "section_parts",
]

StepPlan = tuple[Mapping[str, Any], tuple[str, ...], Callable[[Path], None]]
"""A step to be run: the parts of its fingerprint, names of the steps it reads, and what builds it."""
_MODEL_FILES = (".safetensors", ".json", ".jinja")

_POLL_SECONDS = 0.2
_VERSIONED = ("potstill", "torch", "transformers", "tokenizers", "accelerate", "gguf", "xllamacpp", "openai")


@dataclass(frozen=True)
class StepResult:
    """Where a finished step is, how long it took when it ran, and whether this call found it done."""

    name: str
    dir: Path
    fingerprint: str
    seconds: float
    cached: bool


@dataclass
class RunResult:
    """What a run has done: each step by stage, and the verdict once the gate has spoken."""

    dir: Path
    variant: str = ""
    steps: dict[str, StepResult] = field(default_factory=dict)
    verdict: str | None = None

    def folder(self, stage: str) -> Path:
        return self.steps[stage].dir

    def page(self, name: str) -> Path:
        """`report.html` or `run.json` of this run, or of its variant."""
        stem, dot, suffix = name.partition(".")
        return self.dir / (f"{stem}.{self.variant}{dot}{suffix}" if self.variant else name)


def _stable(value: Any, where: str) -> Any:
    """JSON value with a stable identity, or StepError: a fingerprint must never depend on an address or a clock."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_stable(v, where) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _stable(v, f"{where}.{k}") for k, v in value.items()}
    raise StepError(
        f"{where}: a {type(value).__name__} has no stable identity, so it cannot be part of a fingerprint. "
        "Pass its content's hash."
    )


def fingerprint(parts: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the parts; equal parts in any order give the same hash.

    Raises:
        StepError: a part has no stable identity.
    """
    text = json.dumps(_stable(parts, "fingerprint"), sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: Path, suffixes: tuple[str, ...] = ("",)) -> str:
    """SHA-256 over names and contents of a folder's own files that end in one of `suffixes`.

    In a hub cache a large file is a link to a blob that is named by its SHA-256: that name is taken, the file is not
    read.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.name.endswith(suffixes)):
        blob = path.resolve().name
        content = blob if len(blob) == 64 and path.is_symlink() else hash_file(path)
        digest.update(f"{path.name}\0{content}\n".encode())
    return digest.hexdigest()


def hash_model(folder: Path | None) -> str | None:
    """`hash_folder` of what makes a model: weights, configuration, tokenizer, template. None without a folder."""
    return hash_folder(folder, _MODEL_FILES) if folder else None


def section_parts(section: Section, *leave_out: str) -> dict[str, Any]:
    """A recipe section's values for a fingerprint; paths are left out, their contents are hashed instead."""
    return dict(section.model_dump(mode="json", exclude={"license", *leave_out}))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git_commit() -> str | None:
    """Commit of the checkout potstill runs from, if it runs from one."""
    try:
        out = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return out.stdout.strip() or None


def is_first_process() -> bool:
    """Whether this process is the first of those that `accelerate launch` started together, or alone."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


@contextmanager
def lock_run(run_dir: Path) -> Iterator[None]:
    """Hold a run directory against a second run; the lock goes with the process, also when it is killed."""
    if not is_first_process():  # the first holds it for all
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = run_dir / ".lock"
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StepError(
                f"{run_dir}: another potstill process works in this run directory. "
                "Wait for it, or choose another with --runs."
            ) from None
        try:
            yield
        finally:
            if [path.name for path in run_dir.iterdir()] == [lock.name]:  # nothing was done here: leave nothing behind
                lock.unlink()
                run_dir.rmdir()


def run_step(
    run_dir: Path,
    name: str,
    parts: Mapping[str, Any],
    upstream: Mapping[str, StepResult],
    build: Callable[[Path], None],
    together: bool = False,
) -> StepResult:
    """Run `build(dir)` once for these parts; a finished directory is found again, an unfinished one is resumed.

    Of several processes (`accelerate launch`) the first runs it, or all do `together`; each returns when it is done.

    Args:
        run_dir: the run's directory.
        name: stage name, first half of the directory's name.
        parts: everything but the upstream steps that can change the answer.
        upstream: finished steps this one reads, by name.
        build: does the work in the directory it is given; must resume from what it finds there.
        together: all processes run it, and divide the work among them.
    """
    whole = {"step": name, "parts": dict(parts), "upstream": {k: s.fingerprint for k, s in upstream.items()}}
    mark = fingerprint(whole)
    directory = run_dir / f"{name}-{mark[:12]}"
    done = directory / "DONE"
    if not is_first_process():
        if together and not done.exists():
            directory.mkdir(parents=True, exist_ok=True)
            build(directory)
        while not done.exists():  # if the first process fails, the launcher ends this one
            time.sleep(_POLL_SECONDS)
    if done.exists():
        seconds = float(json.loads((directory / "step.json").read_text())["seconds"])
        return StepResult(name, directory, mark, seconds, cached=True)
    directory.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    try:
        build(directory)
    except BaseException:
        if not any(directory.iterdir()):
            directory.rmdir()
        raise
    seconds = round(time.monotonic() - start, 3)
    stamp = {
        "fingerprint": mark,
        **whole,
        "versions": _versions(),
        "git_commit": _git_commit(),
        "argv": sys.argv,
        "host": {"system": platform.platform(), "machine": platform.machine(), "cpus": os.cpu_count()},
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
    }
    write_json(directory / "step.json", stamp)
    temporary = directory / "DONE.tmp"
    temporary.write_text(mark + "\n")
    os.replace(temporary, done)
    return StepResult(name, directory, mark, seconds, cached=False)
