"""All errors that potstill raises on purpose, as one tree.

    PotstillError            exit code 1: the work failed; the message says what to do next
    ├── UsageError           exit code 2: wrong usage
    │   ├── RecipeError      the recipe is not valid
    │   └── DataError        a data file or a row is not valid (file and line are named)
    ├── StepError            a step could not finish
    │   ├── ParityError      the exported file does not compute the same as the checkpoint
    │   ├── TeacherError     the teacher cannot be loaded or does not answer
    │   └── BudgetError      the recipe's budget is used up
    └── MissingExtra         exit code 1: an optional dependency is not installed

A message is one paragraph for the user: what is wrong, where (file, line, key), and what to do.
"""

from __future__ import annotations

__all__ = [
    "BudgetError",
    "DataError",
    "MissingExtra",
    "ParityError",
    "PotstillError",
    "RecipeError",
    "StepError",
    "TeacherError",
    "UsageError",
]


class PotstillError(Exception):
    """Base of all errors meant for the user."""

    exit_code = 1


class UsageError(PotstillError):
    """The command or its input is wrong: nothing was run."""

    exit_code = 2


class RecipeError(UsageError):
    """The recipe is not valid."""


class DataError(UsageError):
    """A data file or a row in it is not valid."""


class StepError(PotstillError):
    """A step started and could not finish."""


class ParityError(StepError):
    """The exported GGUF does not compute the same as the checkpoint that it was made from."""


class TeacherError(StepError):
    """The teacher cannot be loaded or does not answer."""


class BudgetError(StepError):
    """The recipe's budget is used up; all answers so far are kept."""


class MissingExtra(PotstillError):
    """An optional dependency is needed; the message names the extra that brings it."""
