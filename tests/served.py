"""A package that llama.cpp can really serve, and a server on a free port of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from finished_run import RECIPE, finished_run, made_up_example
from potstill.components.packages.entries import package_files
from potstill.core.artifacts.manifest import FileEntry, Manifest
from potstill.core.files import write_json
from potstill.stages.package.stage import STAGE
from stage_runs import run_stage

__all__ = ["NAME", "Server", "make_package", "rewrite_manifest", "serving"]

NAME = "lights"
"""Name of the package, which requests give as `model`."""


def make_package(folder: Path, gguf: Path) -> Path:
    """The folder of a package whose model is this GGUF file."""
    recipe, steps = finished_run(folder / "run", RECIPE)
    with made_up_example():
        run_stage(STAGE, recipe, steps, folder / "package-0")
    package = folder / "package-0" / "package"
    model = next(package.glob("*.gguf"))
    model.unlink()  # it is a link to the run's
    shutil.copy(gguf, model)
    rewrite_manifest(package)
    return package


def rewrite_manifest(package: Path) -> None:
    """Make the manifest that of the package's files as they are."""
    path = package / Manifest.FILE
    manifest = Manifest.read_file(path, "make it again")
    files: dict[str, FileEntry] = {n: e for n, e in package_files(package).items() if n != Manifest.FILE}
    path.unlink()
    write_json(path, manifest.model_copy(update={"files": files}).to_json())


@dataclass(frozen=True)
class Server:
    """A server that runs; `log` is what it has written on stderr so far."""

    url: str
    process: subprocess.Popen[str]
    log: Path


@contextmanager
def serving(package: Path, *options: str, keys: str = "") -> Iterator[Server]:
    """`potstill serve` on a free port, until the end of the block."""
    log = package.parent / "serve.log"
    command = [sys.executable, "-m", "potstill", "serve", str(package), "--port=0", "--threads=1", *options]
    environment = os.environ | {"POTSTILL_API_KEYS": keys, "XDG_STATE_HOME": str(package.parent / "state")}
    with (
        log.open("w") as file,
        subprocess.Popen(
            [*command, "--json"], stdout=subprocess.PIPE, stderr=file, text=True, env=environment
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            yield Server(json.loads(line)["url"], process, log)
        finally:
            process.terminate()
            process.wait(timeout=30)
