"""tokenizer.json as a type: a BPE model, added tokens, and the steps around the model as they are in the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from potstill.components.chat.tokenizer_files import MOST_TOKENIZER_BYTES
from potstill.core.errors import StepError
from potstill.core.files import read_json_object
from potstill.core.records import first_problem

__all__ = ["AddedToken", "BPEModel", "Node", "TokenizerFile"]

Node = Mapping[str, Any]
"""A normalizer, pre-tokenizer or post-processor as it is in the file; its keys depend on its `type`."""


class AddedToken(BaseModel):
    """A token outside the model's merges."""

    id: int
    content: str
    special: bool = False
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class BPEModel(BaseModel):
    """The model: a vocabulary and its merges."""

    model_config = ConfigDict(extra="allow")

    type: str
    vocab: dict[str, int]
    merges: list[str | tuple[str, str]]
    byte_fallback: bool | None = None
    ignore_merges: bool | None = None
    unk_token: str | None = None
    dropout: float | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The merges in order, as pairs."""
        split = (merge.split(" ") if isinstance(merge, str) else merge for merge in self.merges)
        return [(left, right) for left, right in split]


class TokenizerFile(BaseModel):
    """The parts of a tokenizer.json that a conversion needs."""

    model: BPEModel
    added_tokens: list[AddedToken] = Field(default_factory=list)
    normalizer: Node | None = None
    pre_tokenizer: Node | None = None
    post_processor: Node | None = None

    @property
    def normalizer_steps(self) -> list[Node]:
        """The steps of the normalizer, in order."""
        return [] if self.normalizer is None else list(self.normalizer.get("normalizers", [self.normalizer]))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file of a checkpoint.

        Raises:
            StepError: there is no such file, it is broken, or its tokenizer cannot be exported.
        """
        if not path.is_file():
            raise StepError(
                f"{path}: no such file. Export reads the fast tokenizer: load the tokenizer with transformers' "
                "AutoTokenizer, and save it again with save_pretrained."
            )
        value = read_json_object(
            path, error=StepError, advice="Save the checkpoint again.", most_bytes=MOST_TOKENIZER_BYTES
        )
        model = value.get("model")
        kind = model.get("type") if isinstance(model, dict) else None
        if kind != "BPE":
            raise _unsupported(path, f"{kind} tokenizer")
        try:
            tokenizer = cls.model_validate(value)
        except ValidationError as error:
            raise StepError(f"{path}: {first_problem(error)}. Save the tokenizer again.") from None
        for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            if getattr(tokenizer.model, option):
                raise _unsupported(path, f"BPE tokenizer with {option}")
        if not tokenizer.model.merges:
            raise StepError(
                f"{path}: the tokenizer has no merges, and llama.cpp needs some. Train the tokenizer with merges."
            )
        return tokenizer


def _unsupported(path: Path, what: str) -> StepError:
    return StepError(f"{path}: a {what} cannot be exported. Supported: plain BPE, byte-level or SentencePiece-style.")
