"""Messages to tokens and back: one rendering for teacher, student, training, export and evaluation.

Templates run in Jinja's immutable sandbox with the settings and helpers that Hugging Face templates are written for
(`trim_blocks`, `lstrip_blocks`, `tojson`, `raise_exception`, `strftime_now`), so no torch and no transformers are
needed.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from potstill.core.errors import RecipeError
from potstill.core.files import read_json_object
from potstill.core.hashing import HashedPath
from potstill.core.recipe import Chat, split_revision
from potstill.core.records import Message, Row

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

__all__ = ["PLAIN_TEMPLATE", "ChatFormat", "ChatSettings", "Example", "load_chat", "resolve_model"]

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
_IDENTITY_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
)
_HUB_FILES = [*_IDENTITY_FILES, "*.safetensors", "*.safetensors.index.json"]


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt and its completion; the first `n_prompt` are not supervised."""

    ids: tuple[int, ...]
    n_prompt: int
    eos_supervised: bool
    """True when the completion ends with an end-of-turn token."""

    @property
    def n_supervised(self) -> int:
        return len(self.ids) - self.n_prompt


def resolve_model(model: str, *, weights: bool = True) -> Path:
    """Folder of a model: a local folder, else a hub snapshot of ID or ID@REVISION.

    Without `weights`, its tokenizer is enough.

    Raises:
        RecipeError: it is neither a folder nor can it be had from the hub.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        needed = "config.json" if weights else "tokenizer.json"
        if not (folder / needed).is_file():
            raise RecipeError(
                f"{folder}: the folder has no {needed}, so it is not a Hugging Face model. Give a model's folder."
            )
        return folder.resolve()
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise RecipeError(
            f"{model}: no such model folder. Give a folder with config.json and safetensors, or a hub id "
            "such as Qwen/Qwen3-0.6B."
        )
    from huggingface_hub import snapshot_download

    name, revision = split_revision(model)
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES if weights else list(_IDENTITY_FILES))
        )
    except Exception as error:  # the hub client raises a dozen unrelated types; all mean the same to the user
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise RecipeError(
            f"{model}: no such folder here, and the hub did not give it ({reason}). Check the name, the "
            "network, and HF_TOKEN if the model is gated."
        ) from None


def _raise_exception(message: str) -> NoReturn:
    raise ValueError(message)


def _tojson(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)


def _compile(template: str) -> Template:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(template)


def _token_text(value: Any) -> str | None:
    """A special token in tokenizer_config.json: a string, or an object with `content`."""
    return value.get("content") if isinstance(value, dict) else value


class ChatFormat:
    """A tokenizer with its chat template.

    Args:
        tokenizer: the fast tokenizer.
        template: Jinja source.
        bos: text of the beginning-of-sequence token, or None.
        eos: text of the end-of-sequence (end-of-turn) token.
        stop_ids: every id that ends generation, `eos` among them.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: str, bos: str | None, eos: str, stop_ids: frozenset[int] = frozenset()
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.bos = bos
        self.eos = eos
        eos_id = tokenizer.token_to_id(eos)
        if eos_id is None:
            raise RecipeError(
                f"the tokenizer has no token {eos!r}, which its config names as end of sequence. Mend "
                "tokenizer_config.json."
            )
        self.eos_id: int = eos_id
        self.stop_ids = stop_ids | {eos_id}

    @cached_property
    def _compiled(self) -> Template:
        return _compile(self.template)

    @property
    def vocab_size(self) -> int:
        """Number of ids the tokenizer can produce; a model's padded vocabulary may be larger."""
        return 1 + max(self.tokenizer.get_vocab(with_added_tokens=True).values())

    @cached_property
    def tokenizer_hash(self) -> str:
        """SHA-256 of the vocabulary by id: two tokenizers with the same hash give every id the same meaning."""
        vocabulary = sorted((i, t) for t, i in self.tokenizer.get_vocab(with_added_tokens=True).items())
        return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()

    @property
    def template_hash(self) -> str:
        """SHA-256 of the chat template's source."""
        return hashlib.sha256(self.template.encode()).hexdigest()

    def render(
        self, messages: tuple[Message, ...], tools: tuple[dict[str, Any], ...] = (), *, generate: bool = False
    ) -> str:
        """Text of a conversation; with `generate`, up to where the assistant begins to speak.

        Raises:
            ValueError: the template refuses the conversation.
        """
        from jinja2 import TemplateError

        try:
            return self._compiled.render(
                messages=[m.for_template() for m in messages],
                tools=list(tools) or None,
                add_generation_prompt=generate,
                bos_token=self.bos or "",
                eos_token=self.eos,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise ValueError(f"the chat template cannot render this conversation: {error}") from None

    def encode(self, text: str) -> list[int]:
        """Ids of rendered text; nothing is added, the template has written its own special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int], after: list[int]) -> str:
        """Text that `ids` add to `after`, special tokens left out.

        Decoding `ids` alone would lose the space that a SentencePiece answer begins with.
        """
        before = self.tokenizer.decode(after, skip_special_tokens=True)
        return str(self.tokenizer.decode(after + ids, skip_special_tokens=True))[len(before) :]

    def prompt_ids(self, row: Row) -> list[int]:
        """Ids a model is given to answer this row."""
        return self.encode(self.render(row.messages, row.tools, generate=True))

    def example(self, row: Row) -> Example:
        """Ids of prompt and completion, cut after the first end-of-turn token.

        An answer that its teacher did not finish (finish_reason `length`) gets no end token: it must not teach to
        stop there.

        Raises:
            ValueError: the row cannot be trained on; the message says why.
        """
        if row.completion is None:
            raise ValueError("the row has no assistant turn")
        prompt_text = self.render(row.messages, row.tools, generate=True)
        whole_text = self.render((*row.messages, row.completion), row.tools)
        if not whole_text.startswith(prompt_text):
            raise ValueError(
                "the chat template renders the prompt differently once it is answered, so prompt and "
                "answer cannot be told apart"
            )
        prompt, whole = self.encode(prompt_text), self.encode(whole_text)
        if whole[: len(prompt)] != prompt:
            raise ValueError(
                "prompt and answer merge into one token where they meet, so the prompt seen in use is not "
                "the one trained on"
            )
        end = next((i + 1 for i in range(len(prompt), len(whole)) if whole[i] in self.stop_ids), None)
        if end is not None and row.provenance.get("finish_reason") == "length":
            return Example(tuple(whole[: end - 1]), len(prompt), eos_supervised=False)
        return Example(tuple(whole[:end]), len(prompt), eos_supervised=end is not None)


def _read_template(folder: Path, config: dict[str, Any], choice: str) -> str:
    """Template source for a recipe's `chat.template`."""
    if choice == "plain":
        return PLAIN_TEMPLATE
    if choice != "own":
        path = Path(choice)
        if not path.is_file():
            raise RecipeError(f"chat.template: {choice}: no such file. Use own, plain, or the path of a Jinja file.")
        return path.read_text(encoding="utf-8")
    file = folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    if isinstance(template, list):
        named = {t["name"]: t["template"] for t in template}
        template = named.get("tool_use") or named.get("default")
    if not isinstance(template, str):
        raise RecipeError(
            f"{folder}: the tokenizer has no chat template. Set chat.template: plain to train on text "
            "without roles, or give a Jinja file."
        )
    return template


def load_chat(folder: Path, template: str = "own") -> ChatFormat:
    """Chat format of a model's folder.

    Args:
        folder: has tokenizer.json, and tokenizer_config.json with the special tokens.
        template: `own`, `plain`, or the path of a Jinja file.

    Raises:
        RecipeError: no fast tokenizer, no template, or no end-of-sequence token.
    """
    from tokenizers import Tokenizer

    source = folder / "tokenizer.json"
    if not source.is_file():
        raise RecipeError(
            f"{folder}: no tokenizer.json. Save the model with a fast tokenizer (AutoTokenizer(..., "
            "use_fast=True).save_pretrained)."
        )
    try:
        tokenizer = Tokenizer.from_file(str(source))
    except Exception as error:  # the library raises bare Exception
        raise RecipeError(f"{source}: cannot be read as a tokenizer ({error}).") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config = read_json_object(folder / "tokenizer_config.json", missing_ok=True, error=RecipeError)
    eos = _token_text(config.get("eos_token"))
    if not eos:
        raise RecipeError(
            f"{folder / 'tokenizer_config.json'}: names no eos_token, so the student could never stop. Add it."
        )
    generation = read_json_object(folder / "generation_config.json", missing_ok=True, error=RecipeError)
    stops = generation.get("eos_token_id") or []
    stop_ids = frozenset([stops] if isinstance(stops, int) else stops)
    return ChatFormat(
        tokenizer, _read_template(folder, config, template), _token_text(config.get("bos_token")), eos, stop_ids
    )


@dataclass(frozen=True)
class ChatSettings:
    """The recipe's `chat` section as stages receive it; a template file counts by its content.

    template      `own`, `plain`, or a Jinja file
    tool_format   how tool calls are written in an answer
    context       most tokens of prompt and answer together
    """

    template: Literal["own", "plain"] | HashedPath
    tool_format: Literal["auto", "hermes", "llama3", "mistral"]
    context: int

    @classmethod
    def of(cls, chat: Chat) -> ChatSettings:
        """The settings of a recipe."""
        named: dict[str, Literal["own", "plain"]] = {"own": "own", "plain": "plain"}
        template = named.get(chat.template) or HashedPath.of_file(Path(chat.template))
        return cls(template, chat.tool_format, chat.context)

    def for_training(self) -> ChatSettings:
        """The settings without the tool format, which training does not read."""
        return replace(self, tool_format="auto")

    def load(self, folder: Path) -> ChatFormat:
        """Chat format of a model's folder; see `load_chat`."""
        return load_chat(folder, self.template if isinstance(self.template, str) else str(self.template.path))
