"""Measure a package's GGUF file on this machine, with prompts as long as those of the run that made it.

Only xllamacpp and httpx are needed besides the base install, because this runs on devices.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from potstill.components.packages.entries import file_entry
from potstill.core.artifacts.manifest import Manifest
from potstill.core.artifacts.speed import MeasuredSpeed
from potstill.core.errors import MissingExtra, StepError, UsageError
from potstill.core.hashing import HashedPath
from potstill.core.machine import cpu_cores

__all__ = ["bench_package"]


def bench_package(package: Path, threads: int | None = None, requests: int | None = None) -> MeasuredSpeed:
    """Measure speed and memory of a package's file, with the context of its recipe.

    Args:
        package: the package's folder.
        threads: threads of llama.cpp; None: those of the run that made the package, but not more than there are cores.
        requests: timed requests; None: as many as the run made.

    Raises:
        UsageError: the folder is not the package of a language model.
        StepError: the file is not the one that was packaged, or llama.cpp cannot run it.
        MissingExtra: xllamacpp or httpx is not installed.
    """
    if not (package / Manifest.FILE).is_file():
        raise UsageError(
            f"{package}: this folder has no {Manifest.FILE}, so it is not a package. Give the folder `package` that a "
            "run has left."
        )
    manifest = Manifest.read_file(package / Manifest.FILE, "give the package of a language model")
    if missing := [name for name in ("xllamacpp", "httpx") if find_spec(name) is None]:
        raise MissingExtra(f"{' and '.join(missing)} cannot be found. Run: pip install 'potstill[device]'")
    from potstill.components.runtimes.latency import measure_speed

    made = manifest.speed
    return measure_speed(
        _packaged_file(package, manifest),
        made.prompt_tokens,
        context=made.context,
        threads=threads or min(made.machine.threads, cpu_cores()),
        requests=requests or made.requests,
    )


def _packaged_file(package: Path, manifest: Manifest) -> HashedPath:
    """The package's GGUF file, which must be as the manifest says: no gate can use a result for another file."""
    name = next((name for name in manifest.files if name.endswith(".gguf")), None)
    path = package / name if name else None
    if not name or not path or not path.is_file() or file_entry(path) != manifest.files[name]:
        raise StepError(
            f"{package}: its GGUF file is missing or is not the one that its manifest names. Copy the package again."
        )
    return HashedPath(path, manifest.files[name].sha256)
