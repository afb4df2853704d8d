"""Runs hostile inputs in child processes with limits, and names what comes of each.

An input is made of a seed, so that one that fails can be run again: `python -m fuzz --kind recipe --seed 17`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from potstill.cli.group import MESSAGE_CHARACTERS
from potstill.core.errors import PotstillError
from potstill.core.words import escaped

__all__ = ["SENTINEL", "Kind", "Make", "Result", "run_inputs"]

SENTINEL = "EXECUTED"
"""Name of the file that hostile inputs try to make in the folder they are given."""

_SECONDS = 10.0
_GROWTH = 1 << 30  # bytes
_ADDRESS_SPACE = 6 << 30

Make = Callable[[random.Random, Path], Callable[[], object]]


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    name   what is attacked
    make   makes an input from a random stream, with a folder for its files, and returns the call that reads it
    share  relative number of inputs of this kind
    waits  how many times ten seconds an input may take, where it is limited by processor time on a busy machine
    """

    name: str
    make: Make
    share: float = 1.0
    waits: int = 1


@dataclass(frozen=True)
class Result:
    """What came of an input.

    outcome   accepted; refused (one of potstill's errors, in one paragraph); or a fault: message (the error is not one
              short paragraph), traceback, hang, memory, crash, network, executed
    """

    kind: str
    seed: int
    outcome: str
    detail: str

    @property
    def is_fault(self) -> bool:
        """Whether a user would have met a fault of potstill."""
        return self.outcome not in ("accepted", "refused")


class _Hang(BaseException):
    pass


def run_inputs(kind: Kind, seeds: Iterable[int], batch: int = 200) -> Iterator[Result]:
    """Run the inputs of these seeds; after a hang, a crash or a large growth in memory, in a new child process."""
    waiting = list(seeds)
    while waiting:
        done = 0
        for result in _run_batch(kind, waiting[:batch]):
            done += 1
            yield result
        waiting = waiting[done:]


def _run_batch(kind: Kind, seeds: list[int]) -> Iterator[Result]:
    read, write = os.pipe()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        child = os.fork()
        if child == 0:
            os.close(read)
            _child(kind, seeds, Path(folder), write)
        os.close(write)
        left = list(seeds)
        try:
            for line in _lines(read, 2 * _SECONDS * kind.waits):
                yield Result(kind.name, left.pop(0), *json.loads(line))
        except TimeoutError:
            yield Result(kind.name, left.pop(0), "hang", "it did not return, and a signal did not end it")
            left = []
        finally:
            os.close(read)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
    if left and os.WIFSIGNALED(status):
        yield Result(kind.name, left[0], "crash", f"signal {os.WTERMSIG(status)}")


def _lines(handle: int, timeout: float) -> Iterator[bytes]:
    """Lines from a pipe.

    Raises:
        TimeoutError: none came for `timeout` seconds.
    """
    rest = b""
    while True:
        if not select.select([handle], [], [], timeout)[0]:
            raise TimeoutError
        data = os.read(handle, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _child(kind: Kind, seeds: list[int], folder: Path, write: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()  # its report of a crash is no use here
    tried: list[str] = []
    _close_network(tried)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(nowhere, handle)
    signal.signal(signal.SIGALRM, _raise_hang)
    for seed in seeds:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        tried.clear()
        before = _peak_memory()
        outcome, detail = _outcome(kind, seed, folder)
        grown = _peak_memory() - before
        if grown > _GROWTH:
            outcome, detail = "memory", f"it took {grown >> 20} MB; {outcome}: {detail}"
        if tried:
            outcome, detail = "network", f"{tried[0]}; {outcome}: {detail}"
        if (folder / SENTINEL).exists():
            outcome = "executed"
        os.write(write, json.dumps([outcome, detail[:500]]).encode() + b"\n")
        if outcome in ("hang", "memory"):
            break
    os._exit(0)


def _peak_memory() -> int:
    """Bytes of this process, or of the largest that it started."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024


def _outcome(kind: Kind, seed: int, folder: Path) -> tuple[str, str]:
    call = kind.make(random.Random(f"{kind.name} {seed}"), folder)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS * kind.waits)
    begun = time.monotonic()
    try:
        call()
        return "accepted", ""
    except _Hang as hang:
        return "hang", f"after {time.monotonic() - begun:.0f} s in {_place(hang)}"
    except (PotstillError, click.ClickException) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        text = escaped(text, MESSAGE_CHARACTERS)  # as the command line prints it
        return "message" if "\n" in text.strip() or not text.strip() else "refused", text
    except MemoryError as error:
        return "memory", _place(error)
    except BaseException as error:  # all others are faults
        return "traceback", f"{type(error).__name__}: {str(error)[:200]} in {_place(error)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _raise_hang(number: int, frame: object) -> None:
    raise _Hang


def _place(error: BaseException) -> str:
    """The innermost line of potstill in an error's traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "potstill" in frame.filename and "site-packages" not in frame.filename]
    last = (ours or frames)[-1]
    return f"{last.filename.rpartition('/potstill/')[2]}:{last.lineno}"


def _close_network(tried: list[str]) -> None:
    """Let no connection leave this machine, and note what was tried."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            tried.append(f"connect to {address}")
            raise OSError("the fuzzer lets no connection leave this machine")
        connect(self, address)

    socket.socket.connect = guarded  # type: ignore[method-assign]
    sys.stdin = open(os.devnull)  # noqa: SIM115  # a question to the user would wait for ever
