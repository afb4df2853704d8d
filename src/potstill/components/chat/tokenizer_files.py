"""The files of a tokenizer. Each value in them that is used has the right type, or an error names file and key."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.core.errors import PotstillError, RecipeError
from potstill.core.files import read_json_object
from potstill.core.words import printable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "MOST_TOKENIZER_BYTES",
    "encoding_errors",
    "load_tokenizer",
    "read_id_settings",
    "read_tokenizer_config",
    "token_text",
]

MOST_TOKENIZER_BYTES = 200_000_000
"""Limit of a tokenizer.json, in bytes; the largest in use, of 262,000 tokens, has 33 million."""
_MOST_IDS = 2**24
_PROBES = "a \n0.-é"
"""Characters whose runs are encoded to find a pattern that takes exponential time."""
_PROBE_LENGTH = 40  # long enough for the library to give up at 2 ** n steps, and at 1.6 ** n
_PROBE_SECONDS = 2.0  # ordinary tokenizers take a tenth of a millisecond
_ADVICE = "Save or copy the model again."


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model's folder, without the truncation and padding that its file may ask for.

    Raises:
        RecipeError: the folder has no tokenizer.json, or it cannot be loaded or used.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise RecipeError(
            f"{folder}: the folder has no tokenizer.json. "
            "Save the model with a fast tokenizer (AutoTokenizer(..., use_fast=True).save_pretrained)."
        )
    if path.stat().st_size > MOST_TOKENIZER_BYTES:
        raise RecipeError(f"{path}: larger than {MOST_TOKENIZER_BYTES:,} bytes, the limit for a tokenizer. {_ADVICE}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        ids = tokenizer.get_vocab(with_added_tokens=True).values()
        # an unknown token that is missing shows only here
        tokenizer.decode(tokenizer.encode("Hello, 1 é").ids)
        _require_fast(path, tokenizer)
    except PotstillError:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and its panics are not even that
        raise RecipeError(f"{path}: cannot be read as a tokenizer ({printable(str(error))}). {_ADVICE}") from None
    if not ids or max(ids) >= _MOST_IDS:
        found = f"an id of {max(ids):,}, more than {_MOST_IDS:,}" if ids else "no token"
        raise RecipeError(f"{path}: the tokenizer has {found}. {_ADVICE}")
    return tokenizer


def _require_fast(path: Path, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer whose patterns take exponential time on a run of one character, such as `(a+a+)+b`."""
    for character in _PROBES:
        begun = time.monotonic()
        tokenizer.encode(character * _PROBE_LENGTH + "!")
        if time.monotonic() - begun > _PROBE_SECONDS:
            raise RecipeError(
                f"{path}: {_PROBE_LENGTH} times {character!r} take more than {_PROBE_SECONDS:.0f} s to encode, so a "
                "pattern in this file is too slow. Use the tokenizer.json of the original model."
            )


@contextmanager
def encoding_errors() -> Iterator[None]:
    """Raise any failure of the tokenizers library inside the block as ValueError.

    A text can fail where others do not: the library panics at a pattern that takes ten million steps.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # see load_tokenizer
        reason = printable(str(error)) or type(error).__name__
        raise ValueError(f"the tokenizer cannot encode this text ({reason})") from None


def token_text(value: Any) -> str | None:
    """A special token of tokenizer_config.json: a string, or an object with `content`."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def read_tokenizer_config(folder: Path, *, error: type[PotstillError] = RecipeError) -> dict[str, Any]:
    """The object in a folder's tokenizer_config.json; an empty one where there is none.

    Raises:
        PotstillError: it cannot be read, or a value that is used has another type; of the type `error`.
    """
    path = folder / "tokenizer_config.json"
    config = read_json_object(path, missing_ok=True, error=error, advice=_ADVICE)
    for key, (fits, kind) in _TOKENIZER_KEYS.items():
        _require(path, config, key, fits, kind, error)
    return config


def read_id_settings(path: Path, *, error: type[PotstillError] = RecipeError) -> dict[str, Any]:
    """The object in a config.json or generation_config.json, which give token ids; an empty one where there is none.

    Raises:
        PotstillError: it cannot be read, or `bos_token_id`, `eos_token_id` or their like has another type; of the type
            `error`.
    """
    config = read_json_object(path, missing_ok=True, error=error, advice=_ADVICE)
    for key in config:
        if key.endswith("_token_id"):
            _require(path, config, key, _is_ids, "a token id or a list of token ids", error)
    return config


def _require(
    path: Path,
    config: dict[str, Any],
    key: str,
    fits: Callable[[Any], bool],
    kind: str,
    error: type[PotstillError],
) -> None:
    value = config.get(key)
    if value is not None and not fits(value):
        raise error(f"{path}: {printable(key)} must be {kind}, found {printable(repr(value), 100)}. {_ADVICE}")


def _is_token(value: Any) -> bool:
    return token_text(value) is not None


def _are_tokens(value: Any) -> bool:
    items = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list) and all(map(_is_token, items))


def _is_template(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, dict) and {"name", "template"} <= each.keys() for each in value) and all(
            isinstance(each[key], str) for each in value for key in ("name", "template")
        )
    texts = value.values() if isinstance(value, dict) else [value]
    return all(isinstance(text, str) for text in texts)


def _is_decoder(value: Any) -> bool:
    return isinstance(value, dict) and all(key.isdecimal() and _is_token(value[key]) for key in value)


def _is_ids(value: Any) -> bool:
    return all(type(index) is int for index in (value if isinstance(value, list) else [value]))


_TOKENIZER_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        (f"{role}_token" for role in ("bos", "eos", "unk", "pad", "cls", "sep", "mask")),
        (_is_token, "a text, or an object with the text in content"),
    ),
    **dict.fromkeys(
        ("extra_special_tokens", "additional_special_tokens"), (_are_tokens, "a list or an object of tokens")
    ),
    "added_tokens_decoder": (_is_decoder, "an object of tokens by their ids"),
    "chat_template": (
        _is_template,
        "a template, an object of templates, or a list of objects with name and template",
    ),
}
