"""Loading of a model with transformers: no code of its own, no question on the terminal, no tensor left out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from potstill.components.models.foreign import check_folder
from potstill.core.environment import is_first_process
from potstill.core.errors import PotstillError, RecipeError
from potstill.core.words import printable

__all__ = ["SAFE", "loading", "require_tensors"]

SAFE = {
    "trust_remote_code": False,  # otherwise transformers asks on a terminal whether to run code
    "use_safetensors": True,
    "output_loading_info": True,
    "ignore_mismatched_sizes": True,  # `require_tensors` names them
}
"""Arguments of every `from_pretrained`."""
_NAMED = 5


@contextmanager
def loading(folder: Path, must: str) -> Iterator[None]:
    """Around a load with transformers: any error in it is one paragraph that ends with what the model must be.

    Raises:
        RecipeError: the folder must not be loaded (see `check_folder`), or the library cannot load the model.
    """
    from transformers import dynamic_module_utils
    from transformers.utils import logging

    check_folder(folder)
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # seconds that it waits for an answer; 0: it never asks
    logging.disable_progress_bar()  # its progress bars would interrupt ours
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # tensors that are missing or left over are reported by `require_tensors`
    try:
        yield
    except (PotstillError, ModuleNotFoundError):
        raise
    except Exception as error:  # a damaged model ends in almost any type; a package for its quantization may be missing
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        reason = printable(first if first and not isinstance(error, LookupError) else f"{type(error).__name__} {first}")
        raise RecipeError(f"{folder}: transformers cannot load this model ({reason}). {must}") from None
    finally:
        logging.set_verbosity(before)


def require_tensors(folder: Path, info: Mapping[str, Any], is_new: Callable[[str], bool] | None = None) -> None:
    """Refuse weights in which tensors are missing or have another shape; transformers fills them with random numbers.

    Tensors that the model does not have, such as those of a vision tower, are counted on stderr.

    Args:
        folder: the model, for messages.
        info: what transformers says about a load.
        is_new: whether the tensor of a name is one that is trained anew.

    Raises:
        RecipeError: as above; the message names the tensors.
    """
    new = is_new or (lambda _: False)
    missing = sorted(name for name in info["missing_keys"] if not new(name))
    wrong = [(name, *shapes) for name, *shapes in sorted(info["mismatched_keys"]) if not new(name)]
    unexpected = sorted(info["unexpected_keys"])
    if missing:
        unknown = f", and have {_listed(unexpected)}, which this model does not have" if unexpected else ""
        raise RecipeError(f"{folder}: the weights lack {_listed(missing)}{unknown}. Download or save the model again.")
    if wrong:
        name, found, needed = wrong[0]
        more = f", and {len(wrong) - 1} more do not fit" if len(wrong) > 1 else ""
        raise RecipeError(
            f"{folder}: the tensor {printable(name)} has shape {tuple(found)}, but config.json implies "
            f"{tuple(needed)}{more}. The folder mixes files of two models; download or save the model again."
        )
    if unexpected and is_new is None:
        count = f"{len(unexpected)} tensor{'s' if len(unexpected) > 1 else ''}"
        _say_once(f"{folder.name}: {count} of the weights are not used ({_listed(unexpected, 1)}).")


@cache
def _say_once(text: str) -> None:
    if is_first_process():
        print(f"  {text}", file=sys.stderr)


def _listed(names: list[str], most: int = _NAMED) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return printable(", ".join(names[:most])) + more
