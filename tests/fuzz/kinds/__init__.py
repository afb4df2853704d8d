"""The kinds of hostile input: everything that a person can point potstill at."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from fuzz.harness import Kind, Make
from fuzz.kinds.models import MODEL_KINDS
from fuzz.kinds.runs import RUN_KINDS
from fuzz.kinds.served import SERVED_KINDS
from fuzz.kinds.sources import SOURCE_KINDS
from fuzz.kinds.texts import TEXT_KINDS
from potstill.core.errors import PotstillError
from potstill.core.files import file_errors

__all__ = ["KINDS"]


def _with_file_errors(make: Callable[[random.Random, Path], Callable[[], object]]) -> Make:
    """The command line turns file-system errors of every command into its own."""

    def made(r: random.Random, folder: Path) -> Callable[[], object]:
        call = make(r, folder)

        def guarded() -> None:
            with file_errors("the input", error=PotstillError):
                call()

        return guarded

    return made


KINDS = [
    Kind(name, _with_file_errors(make), share, waits=6 if name == "llama" else 1)
    for name, make, share in TEXT_KINDS + SOURCE_KINDS + SERVED_KINDS + MODEL_KINDS + RUN_KINDS
]
