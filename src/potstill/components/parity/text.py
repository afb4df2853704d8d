"""Text in llama.cpp and in training: token ids, and the tokens that end an answer."""

# ruff: noqa: RUF001 (letters that look like others are intended)
from __future__ import annotations

from collections.abc import Sequence

from potstill.components.chat.format import ChatFormat
from potstill.components.parity.differences import first_difference
from potstill.components.runtimes.gguf import GGUFServer
from potstill.core.artifacts.exported import StopTokenParity, TokenizationParity
from potstill.core.errors import ParityError
from potstill.core.records import Message, Row

__all__ = ["TEST_TEXTS", "compare_stops", "compare_tokens"]

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


def _texts(chat: ChatFormat, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Name and text: each row rendered whole, and each test text as a user's message."""
    out = []
    for row in rows:
        messages = (*row.messages, row.completion) if row.completion else row.messages
        out.append((row.name, chat.render(messages, row.tools)))
    for index, text in enumerate((*TEST_TEXTS, f"a{chat.eos}b{chat.bos or ''}c")):
        try:
            rendered = chat.render((Message(role="user", content=text),), generate=True)
        except ValueError:  # the template needs more than one user message
            rendered = text
        out.append((f"test text {index} ({text[:20]!r}...)", rendered))
    return out


def compare_tokens(server: GGUFServer, chat: ChatFormat, rows: Sequence[Row]) -> TokenizationParity:
    """Compare the ids of the rows' rendered texts and of `TEST_TEXTS`.

    Raises:
        ParityError: names the text and the first token that differs.
    """
    texts = _texts(chat, rows)
    for name, text in texts:
        expected, found = chat.encode(text), server.tokenize(text)
        if expected != found:
            raise ParityError(
                f"{server.model.name}: llama.cpp tokenizes text differently from the checkpoint's tokenizer. "
                f"In {name}, {first_difference(chat, expected, found)} "
                "llama.cpp does not support this tokenizer (merges, pre-tokenizer and added tokens). Choose a student "
                "with another one. If tokenizer.json was changed after the training, export the folder that was "
                "trained."
            )
    return TokenizationParity(texts=len(texts), identical=len(texts))


def compare_stops(server: GGUFServer, chat: ChatFormat) -> StopTokenParity:
    """Compare the tokens that end an answer.

    Raises:
        ParityError: llama.cpp continues after one of them.
    """
    for token in sorted(chat.stop_ids):
        if not server.ends_generation(token):
            raise ParityError(
                f"{server.model.name}: the checkpoint ends an answer with token {token} "
                f"({chat.tokenizer.id_to_token(token)!r}), but llama.cpp continues after it. A GGUF can name at most "
                "three such tokens: keep the three that matter in eos_token_id of generation_config.json, and export "
                "again."
            )
    return StopTokenParity(tokens=len(chat.stop_ids), identical=len(chat.stop_ids))
