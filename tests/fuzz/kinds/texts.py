"""Hostile texts: recipes, rows, tools, chat templates, answers, and replies of an endpoint."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from fixtures import TEMPLATE, TOOLS, light_row
from fuzz.harness import SENTINEL, Make
from fuzz.mutate import damaged_bytes, damaged_json, damaged_value, written
from potstill.components.chat.format import ChatFormat
from potstill.components.chat.tool_calls import parse_answer
from potstill.components.runtimes.endpoint_reply import OddReply, finish_reason, hermes_text, read_reply
from potstill.core.errors import StepError
from potstill.core.recipe import load_recipe
from potstill.core.records import Message, Row, read_rows
from potstill.core.tools import argument_validators, read_tools

__all__ = ["ASKED", "PIECES", "TEXT_KINDS", "byte_tokenizer"]


# ---- recipes, rows and tools ----

_RECIPE: dict[str, Any] = {
    "name": "r",
    "data": {"prompts": "p.jsonl", "validation": "v.jsonl", "test": "t.jsonl", "limit": {"prompts": 5}},
    "chat": {"context": 256, "template": "own", "template_kwargs": {"enable_thinking": False}},
    "teacher": {"kind": "api", "model": "m", "base_url": "http://localhost:1/v1", "api_key_env": "KEY"},
    "student": {"init": "checkpoint", "model": "someone/small"},
    "generate": {"max_new_tokens": 48, "temperature": 0.5, "top_p": 0.9},
    "train": {"objective": "sft", "epochs": 2, "learning_rate": 1e-3, "control": "none"},
    "gates": {"exact": 0.5, "alpha": 0.05},
    "export": {"quantization": "Q8_0"},
    "licenses": {"package": "apache-2.0"},
    "seed": 3,
}
_YAML = [
    "a: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c]\n",
    "x: &x {a: 1}\ny: {<<: *x, <<: *x}\n",
    f"name: !!python/object/apply:os.system ['touch {SENTINEL}']\n",
    "name: r\nname: s\n",
    "? [a, b]\n: c\n",
    "name: 2001-99-99\n",
    "seed: 0o99\n",
    "- 1\n- 2\n",
    "{" * 3000,
    "[" * 3000,
    "name: !!binary x\n",
    "name: 'a\n",
    "\tname: r\n",
    "%YAML 9.9\n---\n",
    "--- a\n--- b\n",
    "seed: 1" + "0" * 5000 + "\n",
    "name: \x1b[2J\n",
    "\ufeffname: r\n",
    "name: \ud800\n",
    "a: " * 2000,
    "name: .nan\n",
    "seed: 1:30:99\n",
    "",
]


def _recipe(r: random.Random, folder: Path) -> Callable[[], object]:
    change, text = r.randrange(4), yaml.safe_dump(_RECIPE)
    if change == 0:
        data = damaged_bytes(r, text.encode())
    elif change == 1:
        at = r.randrange(len(text))
        data = (text[:at] + r.choice(_YAML) + text[at:]).encode(errors="surrogatepass")
    elif change == 2:
        data = r.choice(_YAML).encode(errors="surrogatepass") + text.encode()
    else:
        try:
            data = yaml.safe_dump(damaged_value(r, _RECIPE), allow_unicode=True).encode(errors="surrogatepass")
        except (yaml.YAMLError, TypeError):
            data = damaged_json(r, _RECIPE)
    path = written(folder / "r.yaml", data)
    return lambda: load_recipe(path)


_ROW = light_row("attic", "on") | {"tools": TOOLS, "group": "g", "provenance": {"finish_reason": "stop"}}


def _rows(r: random.Random, folder: Path) -> Callable[[], object]:
    lines = [damaged_json(r, _ROW) if r.random() < 0.5 else json.dumps(_ROW).encode() for _ in range(3)]
    path = written(folder / "rows.jsonl", r.choice([b"\n", b"\r\n", b"\n\n", b" "]).join(lines))
    need = r.random() < 0.5

    def call() -> None:
        for row in read_rows(path, need_completion=need):
            argument_validators(row.tools, row.name)

    return call


_PATTERNS = ["(", "(a+)+$", "[", "\\p{L}", "(?<!a*)b", "a{99999}{99999}", "\\", "(?P<n>a)(?P=n)", "^" * 2000]


def _tools(r: random.Random, folder: Path) -> Callable[[], object]:
    tools = json.loads(json.dumps(TOOLS))
    tools[0]["function"]["parameters"]["properties"]["room"] |= (
        {"pattern": r.choice(_PATTERNS)} if r.random() < 0.3 else {}
    )
    if r.random() < 0.2:
        tools[0]["function"]["parameters"]["$ref"] = r.choice(
            ["#", "http://h/x.json", "file:///etc/passwd", "#/$defs/a"]
        )
    path = written(folder / "tools.json", damaged_json(r, tools) if r.random() < 0.8 else json.dumps(tools).encode())

    def call() -> None:
        for name, validator in argument_validators(read_tools(path), str(path)).items():
            validator.is_valid({"room": "a" * 40, "state": name})

    return call


# ---- chat templates and answers ----

PIECES = [
    "{{ messages[0].content }}",
    "{% for m in messages %}",
    "{% endfor %}",
    "{{ m.content }}",
    "{{ eos_token }}",
    "{% if tools %}",
    "{% endif %}",
    "{{ tools|tojson }}",
    "{% else %}",
    "{{ 1/0 }}",
    "{{ x.__class__ }}",
    "{% break %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "{{ 'a' * 10**9 }}",
    "{{ 10**10**7 }}",
    "{% macro a(n) %}{{ a(n+1) }}{% endmacro %}{{ a(0) }}",
    "{{ 'x'|center(10**10) }}",
    "{{ '%999999999d' % 1 }}",
    "{{ messages|tojson(indent=10**9) }}",
    "{{ raise_exception('no') }}",
    "{{ strftime_now('%Y' * 100000) }}",
    "{% set %}",
    "{{ range(10**30)|length }}",
    "{{ nothing.x.y }}",
    "{{ messages + 1 }}",
    "{% include '/etc/passwd' %}",
    "{{",
    "{%",
    "{#",
    "{{ cycler.__init__.__globals__.os.system('touch SENTINEL') }}",
    "{{ ''|attr('__class__') }}",
    "\0",
    "\x1b[31m",
    "{{ '{0.__class__}'.format('') }}",
    "{{ messages.append(1) }}",
    "{{ ('<' * 100000)|striptags }}",
    "{% generation %}",
    "{{ " + "(" * 900 + "1" + ")" * 900 + " }}",
    "{% if 1 %}" * 120 + "{% endif %}" * 120,
    "{{ " + "-" * 3000 + "1 }}",
    "{{ range(99999)|join('a' * 10**6) }}",
    "{{ [0] * 10**10 }}",
    "{% set ns = namespace(a='a') %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
    "{{ messages|map('center', 10**9)|list }}",
    "{{ lipsum(n=10**7) }}",
]


@cache
def byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {byte: index for index, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return tokenizer


ASKED = Row(messages=(Message(role="user", content="hi"),), completion=Message(role="assistant", content="ok"))


def _template(r: random.Random, folder: Path) -> Callable[[], object]:
    if r.random() < 0.5:
        text = "".join(r.choice(PIECES) for _ in range(r.randrange(1, 12)))
    else:
        at = r.randrange(len(TEMPLATE))
        text = TEMPLATE[:at] + r.choice(PIECES) + TEMPLATE[at + r.choice([0, 0, 1, 10]) :]
    text = text.replace("SENTINEL", str(folder / SENTINEL))
    chat = ChatFormat(byte_tokenizer(), text, None, "<|im_end|>", frozenset())

    def call() -> None:
        try:
            chat.render(ASKED.messages, tuple(TOOLS), generate=True)
            chat.example(ASKED)
        except ValueError as error:  # how a template's refusal is reported; the stages name the row
            raise StepError(str(error)) from None

    return call


_MARKUP = [
    "<tool_call>",
    "</tool_call>",
    '{"name": "set_light", "arguments": {"room": "attic"}}',
    "<think>",
    "</think>",
    "{",
    "}",
    "[TOOL_CALLS]",
    "[",
    "]",
    "<function=f>",
    "</function>",
    "<parameter=a>",
    "</parameter>",
    '"',
    "\\",
    "\\u12",
    "<|python|>",
    "```json\n",
    "```",
    "functools[",
    "null",
    "1e999",
    "9" * 500,
    "\ud83d",
    "\0",
    "é",
    "[" * 2000,
    '{"a":' * 500,
    " " * 1000,
    "<\uff5ctool\u2581calls\u2581begin\uff5c>",
    "<|tool_call|>",
    "call:",
    "f(a=1)",
    "<invoke name=",
    "\n",
]


def _answer(r: random.Random, folder: Path) -> Callable[[], object]:
    text = "".join(r.choice(_MARKUP) for _ in range(r.randrange(1, 30)))
    return lambda: parse_answer(text)


_REPLY: dict[str, Any] = {
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {
                "role": "assistant",
                "content": "fine",
                "reasoning_content": "hm",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            "logprobs": {"content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}]},
        }
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 5},
}


def _reply(r: random.Random, folder: Path) -> Callable[[], object]:
    body = damaged_json(r, _REPLY)

    def call() -> None:
        try:
            reply = read_reply(body)
        except OddReply as error:
            raise StepError(str(error)) from None
        choice = reply.choices[0]
        hermes_text(choice.message, thinking=True).encode()
        finish_reason(choice.finish_reason)
        assert reply.tokens("prompt_tokens") >= 0

    return call


TEXT_KINDS: list[tuple[str, Make, float]] = [
    ("recipe", _recipe, 1.0),
    ("rows", _rows, 2.0),
    ("tools", _tools, 1.0),
    ("template", _template, 1.0),
    ("answer", _answer, 2.0),
    ("reply", _reply, 2.0),
]
