"""The kinds of hostile input: everything that a person can point potstill at."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from fixtures import CONFIGS, TEMPLATE, TOOLS, light_row
from fuzz.harness import SENTINEL, Kind
from fuzz.mutate import damaged_bytes, damaged_json, damaged_value
from potstill.components.chat.format import ChatFormat, load_chat
from potstill.components.chat.tool_calls import parse_answer
from potstill.components.models.folder import resolve_model
from potstill.components.models.safetensors import safetensors_format, safetensors_shapes
from potstill.components.models.source import load_spec
from potstill.components.runtimes.answer_store import AnswerStore
from potstill.components.runtimes.endpoint_reply import OddReply, finish_reason, hermes_text, read_reply
from potstill.core.artifacts.base import Artifact
from potstill.core.artifacts.generated import Generated
from potstill.core.artifacts.step import DoneRecord, StepRecord
from potstill.core.artifacts.verdict import Verdict
from potstill.core.errors import PotstillError, StepError
from potstill.core.files import file_errors
from potstill.core.recipe import load_recipe
from potstill.core.recipe.teacher import ApiTeacher
from potstill.core.records import Message, Row, read_rows
from potstill.core.tools import argument_validators, read_tools

__all__ = ["KINDS"]


def _written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


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
    path = _written(folder / "r.yaml", data)
    return lambda: load_recipe(path)


_ROW = light_row("attic", "on") | {"tools": TOOLS, "group": "g", "provenance": {"finish_reason": "stop"}}


def _rows(r: random.Random, folder: Path) -> Callable[[], object]:
    lines = [damaged_json(r, _ROW) if r.random() < 0.5 else json.dumps(_ROW).encode() for _ in range(3)]
    path = _written(folder / "rows.jsonl", r.choice([b"\n", b"\r\n", b"\n\n", b" "]).join(lines))
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
    path = _written(folder / "tools.json", damaged_json(r, tools) if r.random() < 0.8 else json.dumps(tools).encode())

    def call() -> None:
        for name, validator in argument_validators(read_tools(path), str(path)).items():
            validator.is_valid({"room": "a" * 40, "state": name})

    return call


# ---- chat templates and answers ----

_PIECES = [
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
def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {byte: index for index, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return tokenizer


_ASKED = Row(messages=(Message(role="user", content="hi"),), completion=Message(role="assistant", content="ok"))


def _template(r: random.Random, folder: Path) -> Callable[[], object]:
    if r.random() < 0.5:
        text = "".join(r.choice(_PIECES) for _ in range(r.randrange(1, 12)))
    else:
        at = r.randrange(len(TEMPLATE))
        text = TEMPLATE[:at] + r.choice(_PIECES) + TEMPLATE[at + r.choice([0, 0, 1, 10]) :]
    text = text.replace("SENTINEL", str(folder / SENTINEL))
    chat = ChatFormat(_tokenizer(), text, None, "<|im_end|>", frozenset())

    def call() -> None:
        try:
            chat.render(_ASKED.messages, tuple(TOOLS), generate=True)
            chat.example(_ASKED)
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


# ---- files of models ----


@cache
def _configs() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(CONFIGS.glob("*.json"))]


def _config(r: random.Random, folder: Path) -> Callable[[], object]:
    path = _written(folder / "config.json", damaged_json(r, r.choice(_configs())))
    return lambda: load_spec(str(path))


_TOKENIZER_CONFIG = {
    "bos_token": None,
    "eos_token": {"content": "<|im_end|>", "special": True},
    "chat_template": TEMPLATE,
    "unk_token": "x",
    "additional_special_tokens": ["<|im_start|>"],
    "model_max_length": 512,
    "tokenizer_class": "PreTrainedTokenizerFast",
}


def _tokenizer_files(r: random.Random, folder: Path) -> Callable[[], object]:
    files: dict[str, Any] = {
        "tokenizer_config.json": _TOKENIZER_CONFIG,
        "generation_config.json": {"eos_token_id": [257, 258], "temperature": 0.7},
        "tokenizer.json": json.loads(_tokenizer().to_str()),
    }
    spoilt = r.choice(list(files))
    for name, value in files.items():
        _written(folder / name, damaged_json(r, value) if name == spoilt else json.dumps(value).encode())

    def call() -> None:
        chat = load_chat(folder)
        try:
            chat.render(_ASKED.messages, tuple(TOOLS), generate=True)
        except ValueError as error:
            raise StepError(str(error)) from None

    return call


def _safetensors(r: random.Random, folder: Path) -> Callable[[], object]:
    header = {
        "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        "__metadata__": {"format": "pt"},
    }
    text = damaged_json(r, header)
    size = r.choice([len(text), len(text), len(text) + 1, 0, 2**63 - 1, 2**64 - 1, 1 << 30])
    data = struct.pack("<Q", size) + text + bytes(32)
    _written(folder / "model.safetensors", damaged_bytes(r, data) if r.random() < 0.2 else data)

    def call() -> None:
        safetensors_shapes(folder)
        safetensors_format(folder)

    return call


_FOLDER: dict[str, dict[str, Any]] = {
    "config.json": {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "text_config": {"vocab_size": 300, "vision": [{"hidden_size": 64}], "_attn_implementation": "eager"},
        "attn_implementation": {"": "sdpa", "text_config": "eager"},
        "_experts_implementation": "grouped_mm",
    },
    "tokenizer_config.json": {"tokenizer_class": "T", "eos_token": "x"},
    "generation_config.json": {"eos_token_id": 2, "custom_generate": "own"},
    "model.safetensors.index.json": {"metadata": {"total_size": 1}, "weight_map": {"a.weight": "m-1.safetensors"}},
}
_CODE: dict[str, Any] = {
    "auto_map": {"AutoConfig": "own.C", "AutoTokenizer": ["own.T", None]},
    "attn_implementation": "someone/kernels",
    "transformers_weights": "pytorch_model.bin",
    "num_layers": 2**31,
}


def _model_folder(r: random.Random, folder: Path) -> Callable[[], object]:
    files = {name: dict(value) for name, value in _FOLDER.items()}
    for key in r.sample(sorted(_CODE), r.choice([0, 0, 0, 1, 2])):
        files[r.choice(list(files))][key] = _CODE[key]
    spoilt = r.choice(list(files))
    for name, value in files.items():
        _written(folder / name, damaged_json(r, value) if name == spoilt else json.dumps(value).encode())
    header = json.dumps({"a.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    _written(folder / "m-1.safetensors", struct.pack("<Q", len(header)) + header + bytes(8))
    _written(folder / "own.py", f"open({str(folder / SENTINEL)!r}, 'w')".encode())
    if r.random() < 0.1:
        _written(folder / r.choice(["adapter_model.bin", "adapter_config.json", "pytorch_model.bin"]), b"{}")
    return lambda: resolve_model(str(folder))


_BLOCK = {
    "attn_norm": (64,),
    "attn_q": (64, 64),
    "attn_k": (64, 32),
    "attn_v": (64, 32),
    "attn_output": (64, 64),
    "ffn_norm": (64,),
    "ffn_gate": (64, 128),
    "ffn_up": (64, 128),
    "ffn_down": (128, 64),
}


@cache
def _gguf_header() -> bytes:
    keys: list[tuple[str, int, bytes]] = [
        ("general.architecture", 8, _gguf_text("llama")),
        ("general.name", 8, _gguf_text("m")),
    ]
    numbers = {
        "block_count": 2,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "context_length": 256,
        "vocab_size": 300,
    }
    keys += [(f"llama.{name}", 4, struct.pack("<I", value)) for name, value in numbers.items()]
    keys.append(("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 3) + b"".join(map(_gguf_text, "abc"))))
    tensors: list[tuple[str, tuple[int, ...]]] = [("token_embd.weight", (64, 300)), ("output_norm.weight", (64,))]
    tensors += [(f"blk.{n}.{name}.weight", shape) for n in range(2) for name, shape in _BLOCK.items()]
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    out += b"".join(_gguf_text(key) + struct.pack("<I", kind) + value for key, kind, value in keys)
    for name, shape in tensors:
        out += _gguf_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, 0)
    return out


def _gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _gguf(r: random.Random, folder: Path) -> Callable[[], object]:
    data = bytearray(damaged_bytes(r, _gguf_header()) if r.random() < 0.5 else _gguf_header())
    if r.random() < 0.7:  # one count or length is another
        at = r.randrange(4, max(len(data) - 8, 5))
        data[at : at + 8] = struct.pack("<Q", r.choice([0, 1, 2**31, 2**40, 2**63, 2**64 - 1]))
    path = _written(folder / "m.gguf", bytes(data))
    with path.open("r+b") as file:
        file.truncate(len(data) + 1_000_000)  # room for the tensors
    if r.random() < 0.2:  # a sparse file, whose size makes any length plausible
        with path.open("r+b") as file:
            file.truncate(1 << 40)
    return lambda: load_spec(str(path))


# ---- files of a run ----

_STEP = {
    "stage": "train",
    "stage_version": 1,
    "fingerprint": "0" * 64,
    "seconds": 1.0,
    "inputs": {},
    "reads": {},
    "versions": {},
    "git_commit": None,
    "argv": [],
    "host": {},
    "finished": "2026-01-01T00:00:00+00:00",
}
_GENERATED = {
    "teacher": {"kind": "local", "model": "m"},
    "splits": {"train": {"prompts": 1, "kept": 1, "rejected": {}, "completion_tokens": 1}},
}
_ARTIFACTS: list[tuple[type[Artifact], dict[str, Any]]] = [
    (DoneRecord, DoneRecord.of("0" * 64, {"a.json": "0" * 64}).model_dump()),
    (StepRecord, _STEP),
    (Verdict, {"gates": [], "confidence": 0.9, "verdict": "PASS", "notes": []}),
    (Generated, _GENERATED),
]


def _artifact(r: random.Random, folder: Path) -> Callable[[], object]:
    kind, value = r.choice(_ARTIFACTS)
    _written(folder / kind.FILE, damaged_json(r, {"format": kind.FORMAT, **value}))
    return lambda: kind.read(folder)


@cache
def _store_lines() -> bytes:
    line = {"key": "0" * 64, "check": "0" * 64, "answers": [{"text": "a", "finish_reason": "stop"}]}
    return 3 * (json.dumps(line, separators=(",", ":")).encode() + b"\n")


def _store(r: random.Random, folder: Path) -> Callable[[], object]:
    teacher = ApiTeacher(kind="api", model="m", base_url="http://localhost:1/v1")
    store = AnswerStore.for_step(folder / "runs" / "r" / "generate-0", teacher, None)
    _written(store.path, damaged_bytes(r, _store_lines()))
    return lambda: store.read(["0" * 64])


def _with_file_errors(make: Callable[[random.Random, Path], Callable[[], object]]) -> Any:
    """The command line turns file-system errors of every command into its own."""

    def made(r: random.Random, folder: Path) -> Callable[[], object]:
        call = make(r, folder)

        def guarded() -> None:
            with file_errors("the input", error=PotstillError):
                call()

        return guarded

    return made


KINDS = [
    Kind(name, _with_file_errors(make), share)
    for name, make, share in (
        ("recipe", _recipe, 1.0),
        ("rows", _rows, 2.0),
        ("tools", _tools, 1.0),
        ("template", _template, 1.0),
        ("answer", _answer, 2.0),
        ("reply", _reply, 2.0),
        ("config", _config, 2.0),
        ("tokenizer", _tokenizer_files, 1.0),
        ("folder", _model_folder, 1.0),
        ("safetensors", _safetensors, 2.0),
        ("gguf", _gguf, 2.0),
        ("artifact", _artifact, 2.0),
        ("store", _store, 1.0),
    )
]
