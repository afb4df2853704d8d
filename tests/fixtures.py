"""Small models and rows that tests share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"

TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools:{% for tool in tools %} {{ tool.function.name }}{% endfor %}"
    "<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}"
    '<tool_call>\n{"name": "{{ call.function.name }}", '
    '"arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "set_light",
            "description": "Switch a light",
            "parameters": {
                "type": "object",
                "properties": {"room": {"type": "string"}, "state": {"enum": ["on", "off"]}},
                "required": ["room", "state"],
                "additionalProperties": False,
            },
        },
    }
]

ROOMS = ["kitchen", "hall", "attic", "bath", "garage", "office"]


def light_row(room: str, state: str, polite: str = "") -> dict[str, Any]:
    """One gold row: switch a light."""
    arguments = json.dumps({"room": room, "state": state})
    return {
        "messages": [{"role": "user", "content": f"{polite}{state} in the {room}"}],
        "completion": {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "function": {"name": "set_light", "arguments": arguments}}],
        },
        "behaviour": "tool_call",
        "gold": {"calls": [{"name": "set_light", "arguments": {"room": [room], "state": [state]}}]},
    }


def light_rows(polites: list[str]) -> list[dict[str, Any]]:
    return [light_row(r, s, p) for p in polites for r in ROOMS for s in ("on", "off")]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def read_log(folder: Path, name: str = "student") -> list[dict[str, float]]:
    """A training's log, a mapping a step, without how fast it was: no two runs agree on that."""
    lines = [json.loads(line) for line in (folder / f"{name}.log.jsonl").read_text().splitlines()]
    for line in lines:
        assert line.pop("tokens_per_s") > 0 and line.pop("mfu") > 0
    return lines


def make_tokenizer(folder: Path, extra_vocabulary: int = 0) -> Path:
    """A byte-level BPE tokenizer with a ChatML template, learnt from the rows above."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360 + extra_vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    texts = [json.dumps(r) for r in light_rows(["", "please ", "now "])]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in ("<tool_call>", "</tool_call>")])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 128,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def make_model(
    folder: Path,
    *,
    layers: int = 4,
    seed: int = 0,
    architecture: str = "llama",
    context: int = 128,
    extra_vocabulary: int = 0,
) -> Path:
    """A random model of the given architecture beside its tokenizer."""
    from potstill.chat import load_chat
    from potstill.recipe import Shape
    from potstill.train.students import from_scratch, save_model

    tokenizer = make_tokenizer(folder.with_name(folder.name + "-tokenizer"), extra_vocabulary)
    shape = Shape(architecture=architecture, layers=layers, hidden=64, ffn=96, heads=4, kv_heads=2)  # type: ignore[arg-type]
    save_model(from_scratch(shape, load_chat(tokenizer), context, seed), tokenizer, folder)
    return folder
