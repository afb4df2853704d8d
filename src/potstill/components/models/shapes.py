"""A model's shape as one line of text: FAMILY:KEY=NUMBER,KEY=NUMBER and so on, for the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from potstill.components.models.architectures import ARCHITECTURES
from potstill.components.models.configs import EXPERTS, from_config, rope_table, settings
from potstill.components.models.spec import ModelSpec
from potstill.core.errors import UsageError

__all__ = ["SHAPE_EXAMPLE", "is_shape", "shape_of", "shape_spec", "shape_to_config"]

SHAPE_EXAMPLE = "llama:layers=16,hidden=2048,ffn=8192,heads=32,kv_heads=8,vocab=128256,tied=1"
_KEYS = {
    "layers": "num_hidden_layers", "hidden": "hidden_size", "ffn": "intermediate_size", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "head_dim": "head_dim", "vocab": "vocab_size", "tied": "tie_word_embeddings",
    "context": "max_position_embeddings",
}  # fmt: skip
_MORE_KEYS = {
    "experts": "num_local_experts", "used": "num_experts_per_tok", "expert_ffn": "moe_intermediate_size",
    "shared_ffn": "shared_expert_intermediate_size", "window": "sliding_window", "rope": "rope_scaling",
    "attention_bias": "attention_bias", "mlp_bias": "mlp_bias",
}  # fmt: skip
# family -> its keys in addition to those of every family
_FAMILY_KEYS: dict[str, tuple[str, ...]] = {
    "llama": ("experts", "used", "rope", "attention_bias", "mlp_bias"), "qwen2": (), "qwen2vl": (),
    "qwen2moe": ("experts", "used", "expert_ffn", "shared_ffn"), "qwen3": ("attention_bias",),
    "qwen3moe": ("experts", "used", "expert_ffn", "attention_bias"), "gemma2": ("window",), "gemma3": ("window",),
    "phi3": ("rope",), "smollm3": (), "gpt-oss": ("experts", "used", "window"),
}  # fmt: skip
_CLASS_OF = {entry.name: kind for kind, entry in reversed(ARCHITECTURES.items()) if entry.name in _FAMILY_KEYS}
_NOT_OF_EXPERTS = ("rope", "attention_bias", "mlp_bias")  # Mixtral, a llama with experts, has none of these
# keys that a shape must have: the defaults of transformers would be a surprise
_NEEDED = ("layers", "heads", "hidden", "vocab", "ffn")
_NEEDED_OF = {
    "qwen2moe": (*_NEEDED[:-1], "experts", "used", "expert_ffn"),
    "qwen3moe": (*_NEEDED[:-1], "experts", "used", "expert_ffn"), "gpt-oss": (*_NEEDED, "experts", "used"),
}  # fmt: skip
_FLAGS: Mapping[str, Any] = {"0": False, "1": True, "false": False, "true": True}


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."


def is_shape(text: str) -> bool:
    """Whether a text is meant as a shape, rather than as a path or a hub id."""
    return ":" in text and ("=" in text or text.partition(":")[0] in _FAMILY_KEYS)


def shape_to_config(text: str) -> dict[str, Any]:
    """A shape as a config.json.

    Every family has the keys layers, hidden, ffn, heads, kv_heads (default: as many as heads), head_dim, vocab, tied
    (0 or 1) and context. Some also have experts, used (experts that a token is routed to), expert_ffn, shared_ffn,
    window (tokens that sliding layers look back on), attention_bias and mlp_bias (0 or 1), and rope=llama3 (Llama 3's
    scaled rotary embedding, for which the file holds one more tensor).

    Raises:
        UsageError: the family or a key is not known, a key is missing or given twice, or a value is of the wrong type.
    """
    family, _, rest = text.partition(":")
    if family not in _FAMILY_KEYS:
        raise _wrong_shape(text, f"{family!r} is not one of {', '.join(_FAMILY_KEYS)}{_nearest(family, _FAMILY_KEYS)}")
    given: dict[str, str] = {}
    known = (*_KEYS, *_FAMILY_KEYS[family])
    for pair in filter(None, (pair.strip() for pair in rest.split(","))):
        key, equals, value = pair.partition("=")
        if not equals:
            raise _wrong_shape(text, f"{_short(pair)!r} is not KEY=NUMBER")
        if key not in known:
            near = _nearest(key, known)
            raise _wrong_shape(text, f"{_short(key)!r} is not a key of {family}{near}; its keys are {', '.join(known)}")
        if key in given:
            raise _wrong_shape(text, f"{key} is given twice")
        given[key] = value
    kind = "MixtralForCausalLM" if family == "llama" and "experts" in given else _CLASS_OF[family]
    if kind == "MixtralForCausalLM" and (odd := [key for key in _NOT_OF_EXPERTS if key in given]):
        raise _wrong_shape(text, f"{odd[0]} does not go with experts")
    needed = _NEEDED_OF.get(family, _NEEDED) + (("experts", "used") if {"experts", "used"} & given.keys() else ())
    missing = next((key for key in needed if key not in given), None)
    if missing:
        raise _wrong_shape(text, f"{missing} is missing")
    config = {(_KEYS | _MORE_KEYS)[key]: _value(text, kind, key, value) for key, value in given.items()}
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    if family == "qwen2moe":
        config.setdefault("shared_expert_intermediate_size", 0)
    return config | {"architectures": [kind]}


def _value(text: str, kind: str, key: str, value: str) -> Any:
    rope = ARCHITECTURES[kind].rope
    choices: dict[str, Mapping[str, Any]] = {"rope": {"none": None, str(rope): {"rope_type": rope}}}
    choices |= dict.fromkeys(("tied", "attention_bias", "mlp_bias"), _FLAGS)
    if key in choices:
        if value not in choices[key]:
            raise _wrong_shape(text, f"{key} must be {' or '.join(choices[key])}, found {_short(value)!r}")
        return choices[key][value]
    if not (value.isascii() and value.isdigit() and len(value) < 16):
        raise _wrong_shape(text, f"{key} must be a positive number, found {_short(value)!r}")
    return int(value)


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _wrong_shape(text: str, what: str) -> UsageError:
    return UsageError(f"shape {_short(text)!r}: {what}. Example: {SHAPE_EXAMPLE}.")


def shape_of(config: Mapping[str, Any]) -> str:
    """A config.json as a shape that gives the same spec.

    A shape cannot hold an unusual order of sliding layers, dense layers among expert layers, or Phi's partial rotary
    table; these are lost.

    Raises:
        ValueError: the architecture has no shapes, or the config is not complete.
    """
    family, values = settings(config)
    if family.name not in _FAMILY_KEYS:
        raise ValueError(f"{family.name} cannot be written as a shape; these can: {', '.join(_FAMILY_KEYS)}")
    values["rope_scaling"] = rope_table(family, values)
    usually_tied = (ARCHITECTURES[_CLASS_OF[family.name]].defaults or {}).get("tie_word_embeddings")
    values |= {
        "num_key_value_heads": values.get("num_key_value_heads") or values["num_attention_heads"],
        "num_local_experts": next((values[key] for key in EXPERTS if values.get(key)), 0) if family.experts else 0,
    }
    given = {}
    unused = () if family.more_biases else ("attention_bias", "mlp_bias")
    for key in (*_KEYS, *_FAMILY_KEYS[family.name]):
        value = None if key in unused else values.get((_KEYS | _MORE_KEYS)[key])
        if value or (key == "tied" and usually_tied):
            if not isinstance(value, int | str | None):
                raise ValueError(f"{key} must be a number, found {_short(repr(value))}")
            given[key] = value if key == "rope" else int(value or 0)
    if not family.experts:
        given.pop("used", None)
    return f"{family.name}:" + ",".join(f"{key}={value}" for key, value in given.items())


def shape_spec(text: str) -> ModelSpec:
    """The spec of a shape.

    Raises:
        UsageError: as for `shape_to_config`, or the sizes contradict each other.
    """
    config = shape_to_config(text)
    try:
        return from_config(config, text)
    except ValueError as error:
        what = str(error)
        for word, key in (_KEYS | _MORE_KEYS).items():
            what = re.sub(rf"\b{key}\b", word, what)
        raise _wrong_shape(text, what) from None
