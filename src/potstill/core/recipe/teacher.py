"""The recipe's section on the teacher: a local model, or one behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from potstill.core.recipe.fields import (
    COSMETIC,
    ELSEWHERE,
    Count,
    LocalPath,
    ModelName,
    OneLine,
    Section,
)
from potstill.core.recipe.schedule import LoraOptimization
from potstill.core.recipe.shape import ShapeText

__all__ = ["ApiTeacher", "Finetune", "LocalTeacher", "Offload"]

Offload = Literal["cpu", "disk"]


class Finetune(LoraOptimization):
    """Training of the teacher itself, before it answers, on rows that carry the right answer."""

    rows: LocalPath
    """Path of the JSONL rows with an answer each; required."""
    shape: ShapeText | None = None
    """Shape of a teacher that starts from random weights, such as llama:layers=4,hidden=256,ffn=704,heads=4, with the
    tokenizer of `teacher.model`; default: start from the weights of `teacher.model`."""
    shallow_layers: Count | None = None
    """Number of evenly spaced layers that are trained alone in every other step, so that a student of as many layers
    starts well; default: none."""

    @model_validator(mode="after")
    def _fits_shape(self) -> Self:
        if self.shape and self.lora_rank:
            raise ValueError("lora_rank leaves all other weights as they are, and with shape those are random")
        if self.shape and self.shallow_layers and self.shallow_layers >= self.shape.layers:
            raise ValueError(
                f"shallow_layers: {self.shallow_layers} is not less than shape.layers: {self.shape.layers}"
            )
        return self


class LocalTeacher(Section):
    """A model that transformers runs on this machine."""

    kind: Literal["local"] = "local"
    """Kind of teacher: `local`, `api` or `several`; default: several where there are `teachers`, or else local."""
    model: ModelName
    """Model folder, or hub id with an optional revision (ID@COMMIT, tag or branch); required."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Number format of the weights in memory; `int8` is for the layers (bitsandbytes), with the other weights in
    bfloat16; default: float32."""
    offload: Annotated[Offload | None, COSMETIC] = None
    """Where the layers wait until they run: `cpu` (host memory, for a GPU) or `disk`; slower, with memory for one
    layer only; default: all weights stay in memory."""
    finetune: Annotated[Finetune | None, ELSEWHERE] = None
    """Fine-tuning of the teacher before it answers; default: none."""

    base_url: ClassVar[None] = None

    @property
    def saved_dtype(self) -> Literal["float32", "bfloat16"]:
        """Number format in which a fine-tuned teacher is saved; 8 bits would lose what the training changed."""
        return "float32" if self.dtype == "float32" else "bfloat16"

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.offload and self.dtype == "int8":
            raise ValueError("dtype int8 cannot be offloaded: set dtype: bfloat16, or leave offload out")
        return self


def _plain_address(address: str) -> str:
    """An address without secrets; it is written into every row, so what is refused is not repeated in the message."""
    try:
        parts = urlsplit(address)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("not an address; an example is http://localhost:11434/v1") from None
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ValueError(
            "holds a user name or a password, which would be written into every row. Put the key into the environment "
            "variable that teacher.api_key_env names"
        )
    if parts.query or parts.fragment:
        raise ValueError(
            "holds a query or a fragment, which may be a key and would be written into every row. Put the key into the "
            "environment variable that teacher.api_key_env names"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not has_port or not _is_one_word(address):
        raise ValueError("not an http or https address; an example is http://localhost:11434/v1")
    return address


def _is_one_word(text: str) -> bool:
    return text.isprintable() and " " not in text


_KEY_PREFIX = re.compile(r"(ghp|gho|ghs|github_pat|gsk|hf|nvapi|pk|pplx|r8|sk|tgp|xai)_(?=.*[A-Z0-9])")
"""How keys of known services begin; what follows has upper-case letters or digits, unlike in the name `hf_token`."""
_LONG_NAME = 20  # characters


def _variable_name(name: str) -> str:
    """A name of a variable, and not the key itself, which is not repeated in the message."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name) or _looks_secret(name):
        raise ValueError(
            "must be the name of an environment variable, such as OPENAI_API_KEY; the key itself belongs into that "
            "variable, because a recipe is shipped with the student"
        )
    return name


def _looks_secret(name: str) -> bool:
    """Whether a text that could be a variable's name is more likely a key."""
    mixed = all(re.search(kind, name) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    words = name.split("_")
    long_word = any(len(word) > _LONG_NAME and not (word.isalpha() and word.isupper()) for word in words)
    return bool(_KEY_PREFIX.match(name)) or (mixed and len(name) > _LONG_NAME) or long_word


class ApiTeacher(Section):
    """A model behind an OpenAI-compatible endpoint."""

    kind: Literal["api"]
    """Kind of teacher: `local`, `api` or `several`; default: several where there are `teachers`, or else local."""
    model: OneLine
    """Name by which the endpoint knows the model; required."""
    base_url: Annotated[str, AfterValidator(_plain_address)]
    """Address of the endpoint, for example http://localhost:11434/v1; required."""
    api_key_env: Annotated[str, AfterValidator(_variable_name), COSMETIC] = "OPENAI_API_KEY"
    """Name of the environment variable that holds the API key; default: OPENAI_API_KEY."""
    max_concurrency: Annotated[Count, COSMETIC] = 8
    """Maximum number of requests in flight, which falls by itself while the endpoint has too much to do; default: 8."""
    offline: Annotated[bool, COSMETIC, Field(exclude=True)] = False
    """Whether nothing is sent, so that every answer must be in the journal of earlier runs, and no key is needed;
    default: no."""

    offload: ClassVar[None] = None
    finetune: ClassVar[None] = None
