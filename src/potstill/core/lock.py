"""One process works in a run's directory at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from potstill.core.environment import is_first_process
from potstill.core.errors import StepError
from potstill.core.files import file_errors

__all__ = ["lock_run"]

_TRIES = 1000  # each is lost only where another process ends its work in the same microseconds


@contextmanager
def lock_run(run_dir: Path) -> Iterator[None]:
    """Hold a run's directory against a second run. The lock is released with the process, also when it is killed.

    Raises:
        StepError: another process holds it, or the directory cannot be made or written to.
    """
    if not is_first_process():  # the first process holds it for all
        yield
        return
    with file_errors(run_dir):
        file = _locked_file(run_dir)
    with file:
        try:
            yield
        finally:
            _leave(run_dir)


def _lock_path(run_dir: Path) -> Path:
    return run_dir / ".lock"


def _locked_file(run_dir: Path) -> IO[str]:
    """The run's lock file, open and locked.

    A process that ends may remove the directory at any moment between the calls below. So a lock counts only where the
    file that was locked is still the one of that name.
    """
    lock = _lock_path(run_dir)
    for left in reversed(range(_TRIES)):
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            file = lock.open("a")
        except (FileNotFoundError, FileExistsError):  # removed before the file was opened, or while mkdir looked
            if not left:
                raise
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                    return file
        except BlockingIOError:
            file.close()
            break
        except BaseException:
            file.close()
            raise
        file.close()
    raise StepError(
        f"{run_dir}: another potstill process is working in this directory. Wait until it ends, or choose another "
        "directory with --runs."
    )


def _leave(run_dir: Path) -> None:
    """Remove a directory in which nothing was done; the lock must still be held."""
    with suppress(OSError):  # the user has removed it, or another process has just made its lock file in it
        if [path.name for path in run_dir.iterdir()] == [_lock_path(run_dir).name]:
            _lock_path(run_dir).unlink()
            run_dir.rmdir()
