"""Messages to tokens and back: one rendering for teacher, student, training, export and evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from potstill.components.chat.forms import Form, find_form
from potstill.components.chat.template import compile_template, read_templates
from potstill.components.chat.tokenizer_files import (
    encoding_errors,
    load_tokenizer,
    read_id_settings,
    read_tokenizer_config,
    token_text,
)
from potstill.components.chat.variables import Variable, write_variables
from potstill.core.errors import RecipeError
from potstill.core.hashing import HashedPath
from potstill.core.recipe import Chat
from potstill.core.recipe.chat import DATE, Reasoning
from potstill.core.records import Message, Row, with_call_ids
from potstill.core.words import printable

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

__all__ = ["ChatFormat", "ChatSettings", "Example", "load_chat"]


_LONGEST_REASON = 400  # characters of a template's own error


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt and its completion, as they are trained on.

    n_prompt         number of ids at the beginning that are not supervised
    eos_supervised   whether the completion ends with an end-of-turn token
    """

    ids: tuple[int, ...]
    n_prompt: int
    eos_supervised: bool

    @property
    def n_supervised(self) -> int:
        """Number of ids that are supervised."""
        return len(self.ids) - self.n_prompt


class ChatFormat:
    """A tokenizer with its chat template.

    Args:
        tokenizer: the fast tokenizer.
        template: Jinja source.
        bos: text of the beginning-of-sequence token, or None.
        eos: text of the end-of-sequence (end-of-turn) token.
        stop_ids: every id that ends generation, `eos` among them.
        tool_template: Jinja source for rows with tools; None: `template` is for all rows.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str,
        bos: str | None,
        eos: str,
        stop_ids: frozenset[int] = frozenset(),
        *,
        tool_template: str | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.tool_template = tool_template
        self.bos = bos
        self.eos = eos
        eos_id = tokenizer.token_to_id(eos)
        if eos_id is None:
            raise RecipeError(
                f"the tokenizer has no token {printable(repr(eos))}, which its configuration names as end of sequence. "
                "Fix tokenizer_config.json."
            )
        self.eos_id: int = eos_id
        self.stop_ids = stop_ids | {eos_id}

    @cached_property
    def _compiled(self) -> Template:
        return compile_template(self.template)

    @cached_property
    def _compiled_for_tools(self) -> Template:
        return self._compiled if self.tool_template is None else compile_template(self.tool_template)

    @property
    def vocab_size(self) -> int:
        """Number of ids that the tokenizer can produce; a model's padded vocabulary may be larger."""
        return 1 + max(self.tokenizer.get_vocab(with_added_tokens=True).values())

    @cached_property
    def tokenizer_hash(self) -> str:
        """SHA-256 of what turns text into ids: two tokenizers with the same hash give every text the same ids.

        Vocabulary, merges, normalizer, pre-tokenizer and added tokens count. What only decoding or padding uses does
        not, nor whether a token is called special.
        """
        whole = json.loads(self.tokenizer.to_str())
        parts = {name: whole[name] for name in ("model", "normalizer", "pre_tokenizer")}
        added = [{key: value for key, value in token.items() if key != "special"} for token in whole["added_tokens"]]
        return hashlib.sha256(json.dumps([parts, added], sort_keys=True).encode()).hexdigest()

    @property
    def template_hash(self) -> str:
        """SHA-256 of the chat template's source, with its variables."""
        return hashlib.sha256("\0".join(filter(None, (self.template, self.tool_template))).encode()).hexdigest()

    def render(
        self, messages: tuple[Message, ...], tools: tuple[dict[str, Any], ...] = (), *, generate: bool = False
    ) -> str:
        """The text of a conversation; with `generate`, up to the place where the assistant begins to answer.

        Raises:
            ValueError: the template refuses the conversation.
        """
        try:
            template = self._compiled_for_tools if tools else self._compiled
            return self._render(template, self._form(messages, bool(tools)).messages(messages), list(tools), generate)
        except Exception as error:  # a template is a program from outside, and may fail in any way
            reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
            raise ValueError(f"the chat template cannot render this conversation: {reason}") from None

    def _render(
        self, template: Template, messages: list[dict[str, Any]], tools: list[dict[str, Any]], generate: bool
    ) -> str:
        return template.render(
            messages=messages,
            tools=tools or None,
            add_generation_prompt=generate,
            bos_token=self.bos or "",
            eos_token=self.eos,
        )

    def with_ids(self, row: Row) -> tuple[Message, ...]:
        """The messages of a row with the ids of calls as they are rendered; a server must be given the same."""
        return with_call_ids(row.messages, self._form(row.messages, bool(row.tools)).ids)

    def _form(self, messages: Sequence[Message], tools: bool) -> Form:
        """The form in which the template wants this conversation."""
        if not any(m.tool_calls or m.role == "tool" for m in messages):
            return Form()
        return self._form_with_tools if tools else self._form_without_tools

    @cached_property
    def _form_with_tools(self) -> Form:
        return find_form(lambda messages, tools: self._render(self._compiled_for_tools, messages, tools, False))

    @cached_property
    def _form_without_tools(self) -> Form:
        return find_form(lambda messages, tools: self._render(self._compiled, messages, [], False))

    def encode(self, text: str) -> list[int]:
        """Ids of rendered text. Nothing is added, because the template writes the special tokens.

        Raises:
            ValueError: the tokenizer fails at this text.
        """
        with encoding_errors():
            return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int], after: list[int]) -> str:
        """The text that `ids` add to `after`, without the end-of-turn tokens at its end.

        Other special tokens stay, because they are part of what was said: many models mark tool calls with them.
        Decoding `ids` alone would lose the space at the beginning of a SentencePiece answer.
        """
        said = list(ids)
        while said and said[-1] in self.stop_ids:
            said.pop()
        before = self.tokenizer.decode(after, skip_special_tokens=False)
        return str(self.tokenizer.decode(after + said, skip_special_tokens=False))[len(before) :]

    def prompt_ids(self, row: Row) -> list[int]:
        """Ids that a model is given to answer a row."""
        return self.encode(self.render(row.messages, row.tools, generate=True))

    def example(self, row: Row) -> Example:
        """Ids of prompt and completion, cut after the first end-of-turn token.

        An answer that the teacher did not finish gets no end token, because the student must not learn to stop there.

        Raises:
            ValueError: the row cannot be trained on; the message says why.
        """
        if row.completion is None:
            raise ValueError("the row has no assistant turn")
        prompt_text = self.render(row.messages, row.tools, generate=True)
        whole_text = self.render((*row.messages, row.completion), row.tools)
        if not whole_text.startswith(prompt_text):
            raise ValueError(
                "the chat template renders the prompt differently once it is answered, "
                "so prompt and answer cannot be separated"
            )
        prompt, whole = self.encode(prompt_text), self.encode(whole_text)
        if whole[: len(prompt)] != prompt:
            raise ValueError(
                "prompt and answer merge into one token where they meet, "
                "so the prompt that is seen in use is not the one that was trained on"
            )
        end = next((i + 1 for i in range(len(prompt), len(whole)) if whole[i] in self.stop_ids), None)
        if end is not None and row.unfinished:
            return Example(tuple(whole[: end - 1]), len(prompt), eos_supervised=False)
        return Example(tuple(whole[:end]), len(prompt), eos_supervised=end is not None)


def load_chat(
    folder: Path,
    template: str | Path = "own",
    kwargs: Mapping[str, Variable] | None = None,
    date: str = DATE,
) -> ChatFormat:
    """The chat format of a model's folder.

    Args:
        folder: has tokenizer.json, and tokenizer_config.json with the special tokens.
        template: `own`, `plain`, or the path of a Jinja file.
        kwargs: variables of the template.
        date: the date that the template is given, as YYYY-MM-DD.

    Raises:
        RecipeError: no fast tokenizer, no template, or no end-of-sequence token.
    """
    tokenizer = load_tokenizer(folder)
    config = read_tokenizer_config(folder)
    named = (key for key in config if key.endswith("_token") and key.isidentifier())
    tokens = {key: text for key in named if (text := token_text(config[key]))}
    bos, eos = tokens.pop("bos_token", None), tokens.pop("eos_token", None)
    if not eos:
        raise RecipeError(
            f"{folder / 'tokenizer_config.json'}: names no eos_token, so the student could never stop. Add it."
        )
    if bos is None:
        tokens["bos_token"] = ""  # llama.cpp gives templates one even where the tokenizer has none
    default, tool_use = (
        None if text is None else write_variables(text, kwargs or {}, tokens, date)
        for text in read_templates(folder, template)
    )
    assert default is not None
    return ChatFormat(tokenizer, default, bos, eos, _stop_ids(folder), tool_template=tool_use)


def _stop_ids(folder: Path) -> frozenset[int]:
    """Ids at which the model stops, from generation_config.json.

    Raises:
        RecipeError: the file cannot be read, or they are no ids.
    """
    found = read_id_settings(folder / "generation_config.json").get("eos_token_id")
    ids = [] if found is None else found if isinstance(found, list) else [found]
    return frozenset(ids)


@dataclass(frozen=True)
class ChatSettings:
    """The recipe's `chat` section as stages receive it; a template file counts by its content.

    template          `own`, `plain`, or a Jinja file
    context           maximum length of prompt and answer together, in tokens
    template_kwargs   variables of the template
    date              the date that the template is given
    reasoning         whether the thinking in answers is learnt
    """

    template: Literal["own", "plain"] | HashedPath
    context: int
    template_kwargs: Mapping[str, Variable] = field(default_factory=dict)
    date: str = DATE
    reasoning: Reasoning = "learn"

    @classmethod
    def of(cls, chat: Chat) -> ChatSettings:
        """The settings of a recipe."""
        named: dict[str, Literal["own", "plain"]] = {"own": "own", "plain": "plain"}
        template = named.get(chat.template) or HashedPath.of_file(Path(chat.template))
        return cls(template, chat.context, chat.template_kwargs, chat.date, chat.reasoning)

    def load(self, folder: Path) -> ChatFormat:
        """The chat format of a model's folder; see `load_chat`."""
        template = self.template.path if isinstance(self.template, HashedPath) else self.template
        return load_chat(folder, template, self.template_kwargs, self.date)
