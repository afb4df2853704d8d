"""Parity: the GGUF in llama.cpp is compared with the checkpoint: tokens, template, end of answer and probabilities.

Generated answers are not compared. Where two tokens are almost equally likely, rounding decides, and the answers differ
from there on. Instead both sides read the same text, and the distributions of each next token are compared.
"""

# ruff: noqa: RUF001 (letters that look like others are intended)
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from potstill.components.chat.format import ChatFormat, Example
from potstill.components.conversion.architecture import read_hyperparameters
from potstill.components.conversion.weights import Weights, plan_tensors
from potstill.components.runtimes.gguf import GGUFRuntime, GGUFServer
from potstill.components.runtimes.hf import HFRuntime
from potstill.components.runtimes.load import load_causal_lm
from potstill.core.artifacts.exported import (
    LogProbParity,
    Parity,
    StopTokenParity,
    TemplateParity,
    TokenizationParity,
)
from potstill.core.errors import ParityError, StepError
from potstill.core.progress import progress_bar
from potstill.core.records import Message, Row

__all__ = ["TEST_TEXTS", "check_parity", "compare_log_probs"]

Array = NDArray[np.float32]

# Text on which tokenizers disagree. All of it is in Unicode's normal form C, because llama.cpp does not normalize text
# (the conversion has a note about that).
TEST_TEXTS = (
    "it's WE'RE they'LL I'D you've o'clock 'tis 'S'T",
    "1 12 123 1234 12345678901234567890 3.14159 1,000,000.00 1e-9 0x1F 21°C ½ ² ٣٤",
    " one  two   three    four     \t tab\t\ttabs\t \tmixed ",
    "line\nline\n\nline\n\n\n  indented\r\nwindows\r\n\r\nend\n",
    " \n \n\t\n  ",
    "   leading and trailing   ",
    "Grüße, naïve façade; señor Ångström œuvre ŁÓDŹ İstanbul ıI ß ẞ ﬁ",
    "中文字符，日本語のテキスト、カタカナ。한국어 문장 ไทย हिन्दी தமிழ்",
    "مرحبا بالعالم שלום עולם Привет, мир! Γειά σου Κόσμε",
    "emoji 😀👍🏽👨‍👩‍👧‍👦🏳️‍🌈🇩🇪 ❤️ ☎︎ ©®™ ➡ 𝒳𝔶 𐍈 �",
    "nbsp\u00a0thin\u2009zero\u200bwidth\u200djoin\u3000ideographic\u2028separator\u0085next\ufeffbom",
    "control \x01\x07\x1b[31m\x7f characters",
    '{"name": "set_light", "arguments": {"room": "kitchen", "on": true, "level": [0.5, -1, null, "a\\"b\\\\c\\n"]}}',
    "def f(x_1, *args, **kw) -> int:\n\treturn x_1 if not (x_1 != 0 and ~x_1 << 2) else {'a': [1, 2]}['a'][0]  # !!!",
    "https://example.org/a-b_c/d.e?f=g%20h&i=j#k user@example.org C:\\path\\file.txt ../../x $HOME `ls -l` && || ;",
    "CamelCase snake_case kebab-case SCREAMING_CASE iPhone15Pro v2.0.1-rc3+build.7 <b>bold</b> &amp; **md** __x__",
    "????!!!!....,,,,;;;;::::----____====++++****////\\\\\\\\||||~~~~^^^^%%%%$$$$####@@@@&&&&((((]]]]}}}}>>>>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" + "ab" * 40 + " " * 40 + "\n" * 9 + "é" * 20,
    "<tool_call>\n</tool_call><think></think><|im_start|>user<|im_end|><s></s>[INST] [/INST]<|endoftext|><unk><pad>",
)
_MIN_LOG_PROB = float(np.log(1e-4))  # tokens less likely than this on both sides are not compared
_SHOWN = 40  # characters of text shown before a difference


def check_parity(
    gguf_file: Path, checkpoint: Path, chat: ChatFormat, rows: Sequence[Row], *, tolerance: float, context: int
) -> Parity:
    """Compare a GGUF (F16 or F32) in llama.cpp with the checkpoint it was made from.

    Four things are compared: token ids of the rows' rendered texts and of `TEST_TEXTS`; token ids of prompts from the
    file's own chat template, if it has one; the tokens that end an answer; and, for each completion token, the whole
    distribution of log-probabilities (nats) given all tokens before it, over tokens likelier than 1e-4 on either side.
    The likeliest token must be the same, or within `tolerance` of the checkpoint's.

    Args:
        gguf_file: the file.
        checkpoint: Hugging Face folder.
        chat: the checkpoint's tokenizer, with the template that the student was trained with.
        rows: rows with completions.
        tolerance: largest accepted difference of log-probability, in nats.
        context: maximum length of a text in tokens; longer rows are cut.

    Raises:
        ParityError: names the difference, its place, both values, and what to do.
        StepError: llama.cpp does not load the file.
    """
    examples = _examples(chat, rows, context)
    threads = max(1, (os.cpu_count() or 2) // 2)
    with GGUFServer(gguf_file, context=context, threads=threads, exact=True) as server:
        tokenization = _compare_tokens(server, chat, rows)
        template = _compare_template(server, chat, rows) if _has_template(gguf_file) else None
        stop_tokens = _compare_stops(server, chat)
        tested = GGUFRuntime(server, chat, context)
        trusted = HFRuntime(load_causal_lm(checkpoint), chat, context)
        try:
            log_probs = compare_log_probs(tested, trusted, examples, tolerance)
        except ParityError as error:
            raise ParityError(f"{gguf_file.name}: {error} {_explain(gguf_file, checkpoint)}") from None
    return Parity(
        tokenization=tokenization, template=template, stop_tokens=stop_tokens, log_probs=log_probs, tolerance=tolerance
    )


def _name(row: Row) -> str:
    return row.where or f"row {row.row_id}"


def _examples(chat: ChatFormat, rows: Sequence[Row], context: int) -> list[tuple[Row, Example]]:
    """The rows' token ids, cut to the context; rows without a completion in it are left out."""
    out = []
    for row in rows:
        if row.completion is None:
            continue
        try:
            example = chat.example(row)
        except ValueError:  # the row cannot be trained on, so it was not trained on
            continue
        if example.n_prompt < min(context, len(example.ids)):
            out.append((row, Example(example.ids[:context], example.n_prompt, example.eos_supervised)))
    if not out:
        raise ParityError(
            f"None of {len(rows)} rows has a completion within {context} tokens, so the exported file cannot be "
            "compared with the checkpoint. Raise chat.context, or give rows with shorter prompts."
        )
    return out


# ---- text to tokens ----


def _texts(chat: ChatFormat, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Name and text: each row rendered whole, and each test text as a user's message."""
    out = []
    for row in rows:
        messages = (*row.messages, row.completion) if row.completion else row.messages
        out.append((_name(row), chat.render(messages, row.tools)))
    for index, text in enumerate((*TEST_TEXTS, f"a{chat.eos}b{chat.bos or ''}c")):
        try:
            rendered = chat.render((Message(role="user", content=text),), generate=True)
        except ValueError:  # the template needs more than one user message
            rendered = text
        out.append((f"test text {index} ({text[:20]!r}...)", rendered))
    return out


def _compare_tokens(server: GGUFServer, chat: ChatFormat, rows: Sequence[Row]) -> TokenizationParity:
    texts = _texts(chat, rows)
    for name, text in texts:
        expected, found = chat.encode(text), server.tokenize(text)
        if expected != found:
            raise ParityError(
                f"{server.model.name}: llama.cpp tokenizes text differently from the checkpoint's tokenizer. "
                f"In {name}, {_first_difference(chat, expected, found)} "
                "The file's merges, pre-tokenizer or added tokens are not those of the checkpoint's tokenizer.json: "
                "export again from the folder that was trained. "
                "If the difference remains, llama.cpp has no such tokenizer, and the student needs another one."
            )
    return TokenizationParity(texts=len(texts), identical=len(texts))


def _first_difference(chat: ChatFormat, expected: Sequence[int], found: Sequence[int]) -> str:
    """A sentence about the first position where two sequences differ."""

    def shown(ids: Sequence[int]) -> str:
        return f"{ids[at]} ({chat.tokenizer.id_to_token(ids[at])!r})" if at < len(ids) else "the end"

    both = zip(expected, found, strict=False)
    at = next((i for i, (a, b) in enumerate(both) if a != b), min(len(expected), len(found)))
    before = chat.tokenizer.decode(list(expected[:at]), skip_special_tokens=False)[-_SHOWN:]
    return f"at token {at}, after {before!r}, llama.cpp has {shown(found)}, the checkpoint {shown(expected)}."


# ---- chat template ----


def _has_template(gguf_file: Path) -> bool:
    return "tokenizer.chat_template" in gguf.GGUFReader(gguf_file).fields


def _compare_template(server: GGUFServer, chat: ChatFormat, rows: Sequence[Row]) -> TemplateParity:
    """Compare prompts that llama.cpp renders from messages and tools, BOS token included, with the student's."""
    for row in rows:
        text = chat.render(row.messages, row.tools, generate=True)
        # for a template without tools, llama.cpp adds a tool prompt of its own that the student has never seen
        tools = row.tools if text != chat.render(row.messages, generate=True) else ()
        try:
            rendered = server.apply_template(row.messages, tools)
        except StepError as error:
            raise ParityError(
                f"{server.model.name}: llama.cpp cannot run the chat template on {_name(row)}. {error} Simplify the "
                "template (chat.template names a Jinja file) and train with it."
            ) from None
        expected, found = chat.prompt_ids(row), server.tokenize(rendered, add_special=True)
        if expected != found:
            raise ParityError(
                f"{server.model.name}: llama.cpp renders another prompt for {_name(row)} than the student was trained "
                f"on: {_first_difference(chat, expected, found)} The file has another chat template, or llama.cpp "
                "runs it differently (numbers such as 1.0, dates, tojson). Export again with the template that was "
                "trained. If the difference remains, put a simpler template into chat.template and train with it."
            )
    return TemplateParity(rows=len(rows), identical=len(rows))


def _compare_stops(server: GGUFServer, chat: ChatFormat) -> StopTokenParity:
    for token in sorted(chat.stop_ids):
        if not server.ends_generation(token):
            raise ParityError(
                f"{server.model.name}: the checkpoint ends an answer with token {token} "
                f"({chat.tokenizer.id_to_token(token)!r}), but llama.cpp continues after it. A GGUF can name at most "
                "three such tokens: keep the three that matter in eos_token_id of generation_config.json, and export "
                "again."
            )
    return StopTokenParity(tokens=len(chat.stop_ids), identical=len(chat.stop_ids))


# ---- probabilities ----


def compare_log_probs(
    tested: GGUFRuntime, trusted: HFRuntime, examples: Sequence[tuple[Row, Example]], tolerance: float
) -> LogProbParity:
    """Compare the distributions of each completion token.

    Raises:
        ParityError: a difference is larger than `tolerance`, in nats.
    """
    tokens = agreed = 0
    largest = 0.0
    with progress_bar("parity", len(examples)) as ticker:
        for row, example in examples:
            found_SV = tested.log_probs(example.ids, example.n_prompt)
            expected_SV: Array = trusted.log_probs(example.ids, example.n_prompt).numpy()
            difference_SV = _difference(expected_SV, found_SV)
            at, token = (int(i) for i in np.unravel_index(difference_SV.argmax(), difference_SV.shape))
            if difference_SV[at, token] > tolerance:
                raise _too_different(tested.chat, row, example, at, token, expected_SV, found_SV, tolerance)
            top_S, other_S = expected_SV.argmax(1), found_SV.argmax(1)
            every_S = np.arange(len(top_S))
            gap_S = expected_SV[every_S, top_S] - expected_SV[every_S, other_S]
            if gap_S.max() > tolerance:
                at = int(gap_S.argmax())
                raise _too_different(tested.chat, row, example, at, int(other_S[at]), expected_SV, found_SV, tolerance)
            tokens += len(top_S)
            agreed += int((top_S == other_S).sum())
            largest = max(largest, float(difference_SV.max()))
            ticker.advance()
    return LogProbParity(
        rows=len(examples),
        tokens=tokens,
        max_difference=largest,
        argmax_agreement=agreed / tokens,
        near_ties=tokens - agreed,
    )


def _difference(expected_SV: Array, found_SV: Array) -> Array:
    """Absolute difference of tokens that either side finds likely enough; infinite where one side is not a number."""
    counted_SV = np.maximum(expected_SV, found_SV) > _MIN_LOG_PROB
    difference_SV = np.nan_to_num(np.abs(expected_SV - found_SV), nan=np.inf)
    return np.where(counted_SV | np.isinf(difference_SV), difference_SV, np.float32(0))


def _too_different(
    chat: ChatFormat,
    row: Row,
    example: Example,
    at: int,
    token: int,
    expected_SV: Array,
    found_SV: Array,
    tolerance: float,
) -> ParityError:
    position = example.n_prompt + at
    before = chat.tokenizer.decode(list(example.ids[:position]), skip_special_tokens=False)[-_SHOWN:]
    return ParityError(
        f"llama.cpp does not answer like the checkpoint. In {_name(row)}, at token {position} (after {before!r}), the "
        f"log-probability of {chat.tokenizer.id_to_token(token)!r} is {found_SV[at, token]:.4f} in llama.cpp and "
        f"{expected_SV[at, token]:.4f} in the checkpoint, where the likeliest token has {expected_SV[at].max():.4f}; "
        f"export.parity_tolerance is {tolerance}."
    )


def _explain(gguf_file: Path, checkpoint: Path) -> str:
    """Sentences that name the tensors that differ from the checkpoint's, and say what to do."""
    weights = Weights(checkpoint)
    tensors = plan_tensors(weights, read_hyperparameters(checkpoint, tied="lm_head.weight" not in weights.shapes))
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(gguf_file).tensors}
    odd = []
    for tensor in tensors:
        if tensor.name not in stored:
            odd.append(f"{tensor.name} is missing")
            continue
        expected = np.concatenate(list(weights.read(tensor)))
        found = gguf.dequantize(stored[tensor.name].data, stored[tensor.name].tensor_type)
        close = 0.01 * float(np.abs(expected).max())
        if found.shape != expected.shape:
            odd.append(f"{tensor.name} has shape {found.shape}, not {expected.shape}")
        elif not np.allclose(found, expected, rtol=0.01, atol=close):
            reordered = np.allclose(np.sort(found, None), np.sort(expected, None), rtol=0.01, atol=close)
            odd.append(f"{tensor.name} holds {'the same values in another order' if reordered else 'other values'}")
    if odd:
        more = f" and {len(odd) - 1} more tensors differ" if len(odd) > 1 else ""
        return f"The file was not made from this checkpoint: {odd[0]}{more}. Export it again."
    return (
        "The file holds the checkpoint's weights, so the arithmetic differs: by rounding, if the difference is small "
        "(then raise export.parity_tolerance), or because llama.cpp computes a part of the model differently."
    )
