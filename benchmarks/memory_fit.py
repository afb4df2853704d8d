"""What llama.cpp says itself that a GGUF file will hold in memory: its fit to the device's memory, before it loads.

    python benchmarks/memory_fit.py FILE.gguf CONTEXT

The fit reads the header alone, so the file may be sparse. It runs in a process of its own, which is ended before the
weights are read.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_END = "fitting params to free memory took"
_PARTS = re.compile(r"\| +- \S+ +\|.*= *(\d+) \+ *(\d+) \+ *(\d+) ")
"""A line of the table that llama.cpp logs: a kind of memory, and the MiB of model, context and compute buffer."""


@dataclass(frozen=True)
class Fit:
    """MiB of the weights, the KV cache and the compute buffer; llama.cpp rounds down, and this is the middle."""

    model: float
    context: float
    compute: float


def memory_fit(path: Path, context: int) -> Fit:
    """llama.cpp's fit for one conversation with a cache in F16.

    Raises:
        ValueError: llama.cpp does not open the file; the message is the end of its log.
    """
    command = [sys.executable, __file__, str(path), str(context)]
    log: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as llama:
        assert llama.stdout
        for line in llama.stdout:
            log.append(line)
            if _END in line:
                break
        llama.kill()
    rows = [tuple(map(int, found.groups())) for found in map(_PARTS.search, log) if found]
    if not rows:
        raise ValueError(f"{path}: llama.cpp has no fit: {' '.join(log[-3:])[-500:]}")
    return Fit(*(sum(size + 0.5 for size in column if size) for column in zip(*rows, strict=True)))


def main() -> None:
    """Log the fit, and go on to load the file unless the parent ends this process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("context", type=int)
    args = parser.parse_args()
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.n_parallel = args.file, args.context, 1
    parameters.fit_params, parameters.verbosity, parameters.port = True, 4, 0
    xllamacpp.Server(parameters)


if __name__ == "__main__":
    main()
