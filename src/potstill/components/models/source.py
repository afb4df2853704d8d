"""Where a model's anatomy comes from: config.json, a folder, a GGUF file, the hub, or a shape on the command line."""

from __future__ import annotations

import difflib
import errno
import json
import re
import stat
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from potstill.components.models.anatomy import Anatomy
from potstill.components.models.configs import EXPERTS, from_config, rope_table, settings
from potstill.components.models.families import FAMILIES
from potstill.core.errors import UsageError

__all__ = ["load_anatomy", "load_config", "shape_words", "words_config"]

_CLASS_OF = {
    "llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen2vl": "Qwen2VLForConditionalGeneration",
    "qwen2moe": "Qwen2MoeForCausalLM", "qwen3": "Qwen3ForCausalLM", "qwen3moe": "Qwen3MoeForCausalLM",
    "gemma2": "Gemma2ForCausalLM", "gemma3": "Gemma3ForCausalLM", "phi3": "Phi3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM", "gpt-oss": "GptOssForCausalLM",
}  # fmt: skip
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
# keys of a family beside those of all
_OF_FAMILY = {
    "llama": ("experts", "used", "rope", "attention_bias", "mlp_bias"), "qwen3": ("attention_bias",),
    "qwen2moe": ("experts", "used", "expert_ffn", "shared_ffn"),
    "qwen3moe": ("experts", "used", "expert_ffn", "attention_bias"),
    "gemma2": ("window",), "gemma3": ("window",), "gpt-oss": ("experts", "used", "window"), "phi3": ("rope",),
}  # fmt: skip
_NOT_OF_EXPERTS = ("rope", "attention_bias", "mlp_bias")  # Mixtral, a llama of experts, has none
# keys that a shape must give: what transformers takes where they are not given would be a surprise
_NEEDED = ("layers", "heads", "hidden", "vocab", "ffn")
_NEEDED_OF = {
    "qwen2moe": (*_NEEDED[:-1], "experts", "used", "expert_ffn"),
    "qwen3moe": (*_NEEDED[:-1], "experts", "used", "expert_ffn"), "gpt-oss": (*_NEEDED, "experts", "used"),
}  # fmt: skip
_FLAGS: Mapping[str, Any] = {"0": False, "1": True, "false": False, "true": True}
_SECONDS = 10.0
_LARGEST = 16 * 2**20
"""Bytes of a config.json; one of 1,000 layers has some 100,000."""
_EXAMPLE = "llama:layers=16,hidden=2048,ffn=8192,heads=32,kv_heads=8,vocab=128256,tied=1"


def load_anatomy(model: str) -> Anatomy:
    """The anatomy of what a user names.

    Args:
        model: a config.json, a folder with one (or with a single GGUF), a GGUF file (of a model in several, any of
            them), a hub id, or a shape as of `words_config`.

    Raises:
        UsageError: there is no such model, or its shape cannot be read from it.
    """
    path = _find(model)
    if path is None:
        if _is_shape(model):
            return _from_words(model)
        path, name = _from_hub(model), model
    else:
        name = path.resolve().parent.name if path.name == "config.json" else path.stem
        if path.suffix == ".gguf" or _begins_as_gguf(path):
            from potstill.components.models.gguf_header import from_gguf

            return from_gguf(path)
    return _anatomy(path, _read_config(path), name)


def load_config(model: str) -> dict[str, Any]:
    """config.json of what a user names as for `load_anatomy`, but a GGUF file.

    Raises:
        UsageError: there is no such model, it is a GGUF file, or its shape cannot be read.
    """
    path = _find(model)
    if path is None:
        if _is_shape(model):
            _from_words(model)  # tells what is wrong with it
            return words_config(model)
        path = _from_hub(model)
    if path.suffix == ".gguf" or _begins_as_gguf(path):
        raise UsageError(f"{model}: students are cut from a model with a config.json, and this has none.")
    config = _read_config(path)
    _anatomy(path, config, model)  # tells what is wrong with it
    return config


def _is_shape(model: str) -> bool:
    return ":" in model and ("=" in model or model.partition(":")[0] in _CLASS_OF)


def _short(model: str) -> str:
    return model if len(model) <= 200 else model[:200] + "..."


def _find(model: str) -> Path | None:
    """The file that is named, or that a named folder holds; None where there is nothing of that name.

    Raises:
        UsageError: it is neither file nor folder, cannot be looked at, or the folder has no model.
    """
    try:
        path = Path(model).expanduser()
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _in_folder(path)
    except (FileNotFoundError, NotADirectoryError, ValueError, RuntimeError):
        return None  # the latter two: a zero byte, the home folder of nobody
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise UsageError(f"{_short(model)}: cannot be read ({error.strerror}). Check its permissions.") from None
    if not stat.S_ISREG(mode):
        raise UsageError(
            f"{model}: neither a file nor a folder (a device, a pipe or a socket). Save the config.json or GGUF as a "
            "file, and give that."
        )
    return path


def _begins_as_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from None


def _in_folder(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder / "config.json"
    files = sorted(folder.glob("*.gguf"))
    parts = {re.sub(r"-\d{5}(-of-\d{5}\.gguf)$", r"\1", file.name) for file in files}
    if len(parts) == 1:  # one file, or a model in several
        return files[0]
    found = f"{len(files)} GGUF files; name one" if files else "neither config.json nor a GGUF file"
    raise UsageError(f"{folder}: the folder has {found}.")


def _read_config(path: Path) -> dict[str, Any]:
    what = "Give a model's config.json or a GGUF file."
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"{path}: not a config.json ({path.stat().st_size:,} bytes). {what}")
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not a config.json (it is not UTF-8 text). {what}") from None
    except RecursionError:
        raise UsageError(f"{path}: not a config.json (it is nested too deeply). {what}") from None
    except ValueError as error:
        raise UsageError(f"{path}: not a config.json ({error}). {what}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path}: must hold a JSON object, as a model's config.json does.")
    return value


def _anatomy(path: Path, config: Mapping[str, Any], name: str) -> Anatomy:
    try:
        return from_config(config, name)
    except ValueError as error:
        raise UsageError(f"{path}: {error}.") from None


def _from_hub(model: str) -> Path:
    """config.json of a hub model: from the hub's cache, else over the network into it.

    Raises:
        UsageError: it is no hub id, or the hub does not give it.
    """
    if model.count("/") != 1 or model.startswith((".", "/", "~")) or model.endswith((".json", ".gguf")):
        raise UsageError(
            f"{_short(model)}: no such file or folder. Give a config.json, a model's folder, a GGUF file, a hub id "
            f"(org/name), a recipe (.yaml), or a shape: {_EXAMPLE}."
        )
    from huggingface_hub import constants, get_token, hf_hub_download, try_to_load_from_cache

    # one request of our own first: without a network the hub client would try six times, for half a minute
    where = f"{constants.ENDPOINT}/{model}/resolve/main/config.json"
    try:
        cached = try_to_load_from_cache(model, "config.json")
        if isinstance(cached, str):
            return Path(cached)
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        token = get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with urllib.request.urlopen(urllib.request.Request(where, headers=headers), timeout=_SECONDS):
            pass
        return Path(hf_hub_download(model, "config.json"))
    except Exception as error:  # the hub client raises a dozen unrelated types; all mean the same to the user
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise UsageError(
            f"{_short(model)}: no such file or folder here, and the hub did not give its config.json ({reason}). Check "
            "the name, the network, and HF_TOKEN if the model is gated; or give a config.json, a GGUF file or a shape."
        ) from None


def words_config(text: str) -> dict[str, Any]:
    """A shape on the command line as a config.json: FAMILY:KEY=NUMBER,KEY=NUMBER and so on.

    Of every family layers, hidden, ffn, heads, kv_heads (as many as heads where it is not given), head_dim, vocab, tied
    (0 or 1) and context; of some experts, used (experts that a token goes through), expert_ffn, shared_ffn, window
    (tokens that sliding layers look back on), attention_bias and mlp_bias (0 or 1), and rope=llama3: Llama 3's scaled
    rotary frequencies, for which the file holds one more tensor.

    Raises:
        UsageError: the family or a key is not known, a key is missing or given twice, or a value is not of its kind.
    """
    family, _, rest = text.partition(":")
    if family not in _CLASS_OF:
        raise _wrong_shape(text, f"{family!r} is not one of {', '.join(_CLASS_OF)}{_nearest(family, _CLASS_OF)}")
    words: dict[str, str] = {}
    known = (*_KEYS, *_OF_FAMILY.get(family, ()))
    for pair in filter(None, (pair.strip() for pair in rest.split(","))):
        key, equals, value = pair.partition("=")
        if not equals:
            raise _wrong_shape(text, f"{_short(pair)!r} is not KEY=NUMBER")
        if key not in known:
            near = _nearest(key, known)
            raise _wrong_shape(text, f"{_short(key)!r} is no key of {family}{near}; its keys are {', '.join(known)}")
        if key in words:
            raise _wrong_shape(text, f"{key} is given twice")
        words[key] = value
    kind = "MixtralForCausalLM" if family == "llama" and "experts" in words else _CLASS_OF[family]
    if kind == "MixtralForCausalLM" and (odd := [key for key in _NOT_OF_EXPERTS if key in words]):
        raise _wrong_shape(text, f"{odd[0]} is for a llama without experts")
    needed = _NEEDED_OF.get(family, _NEEDED) + (("experts", "used") if {"experts", "used"} & words.keys() else ())
    missing = next((key for key in needed if key not in words), None)
    if missing:
        raise _wrong_shape(text, f"{missing} is missing")
    config = {(_KEYS | _MORE_KEYS)[key]: _value(text, kind, key, value) for key, value in words.items()}
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    if family == "qwen2moe":
        config.setdefault("shared_expert_intermediate_size", 0)
    return config | {"architectures": [kind]}


def _value(text: str, kind: str, key: str, value: str) -> Any:
    rope = FAMILIES[kind].rope
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
    return UsageError(f"shape {_short(text)!r}: {what}. Example: {_EXAMPLE}.")


def shape_words(config: Mapping[str, Any]) -> str:
    """A config.json as a shape on the command line, of which `load_anatomy` makes the same anatomy.

    What no word tells is lost: layers of an alternating model in another order than its family's, dense layers among
    those of experts, Phi's partial rotary table.

    Raises:
        ValueError: the architecture has no words, or the config does not say what it is.
    """
    family, values = settings(config)
    if family.name not in _CLASS_OF:
        raise ValueError(f"{family.name} cannot be told as a shape; these can: {', '.join(_CLASS_OF)}")
    values["rope_scaling"] = rope_table(family, values)
    usually_tied = (FAMILIES[_CLASS_OF[family.name]].defaults or {}).get("tie_word_embeddings")
    values |= {
        "num_key_value_heads": values.get("num_key_value_heads") or values["num_attention_heads"],
        "num_local_experts": next((values[key] for key in EXPERTS if values.get(key)), 0) if family.experts else 0,
    }
    given = {}
    unused = () if family.more_biases else ("attention_bias", "mlp_bias")
    for word in (*_KEYS, *_OF_FAMILY.get(family.name, ())):
        value = None if word in unused else values.get((_KEYS | _MORE_KEYS)[word])
        if value or (word == "tied" and usually_tied):
            if not isinstance(value, int | str | None):
                raise ValueError(f"{word} must be a number, found {_short(repr(value))}")
            given[word] = value if word == "rope" else int(value or 0)
    if not family.experts:
        given.pop("used", None)
    return f"{family.name}:" + ",".join(f"{word}={value}" for word, value in given.items())


def _from_words(text: str) -> Anatomy:
    config = words_config(text)
    try:
        return from_config(config, text)
    except ValueError as error:
        what = str(error)
        for word, key in (_KEYS | _MORE_KEYS).items():
            what = re.sub(rf"\b{key}\b", word, what)
        raise _wrong_shape(text, what) from None
