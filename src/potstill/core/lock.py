"""One process works in a run's directory at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from potstill.core.environment import is_first_process
from potstill.core.errors import StepError

__all__ = ["lock_run"]


@contextmanager
def lock_run(run_dir: Path) -> Iterator[None]:
    """Hold a run's directory against a second run. The lock is released with the process, also when it is killed.

    Raises:
        StepError: another process holds it.
    """
    if not is_first_process():  # the first process holds it for all
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = run_dir / ".lock"
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StepError(
                f"{run_dir}: another potstill process is working in this directory. Wait until it ends, or choose "
                "another directory with --runs."
            ) from None
        try:
            yield
        finally:
            if [path.name for path in run_dir.iterdir()] == [lock.name]:  # leave nothing behind where nothing was done
                lock.unlink()
                run_dir.rmdir()
