"""Small models and rows that tests share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
CONFIGS = Path(__file__).parent / "configs"
"""config.json of public models."""
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


UNFINISHED = ("length", "content_filter", "error", "abort", "", None)
"""Values of `finish_reason` after which an answer is not whole."""


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


def write_recipe(folder: Path, workload: Path, teacher: dict[str, Any], student: dict[str, Any], **train: Any) -> Path:
    """A recipe for a student that learns from a tiny teacher's drawn answers, without a control."""
    path = folder / "recipe.yaml"
    recipe = {
        "name": "tiny",
        "data": {"prompts": str(workload / "train.jsonl"), "test": str(workload / "test.jsonl")}
        | {"tools": str(workload / "tools.json")},
        "chat": {"context": 128},
        "teacher": teacher,
        "generate": {"max_new_tokens": 8, "temperature": 1.0, "keep_truncated": True},
        "student": student,
        "train": {"batch_tokens": 256, "control": "none", **train},
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


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
    from potstill.components.chat.format import load_chat
    from potstill.components.training.students import from_scratch, save_model
    from potstill.core.recipe import Shape

    tokenizer = make_tokenizer(folder.with_name(folder.name + "-tokenizer"), extra_vocabulary)
    shape = Shape(architecture=architecture, layers=layers, hidden=64, ffn=96, heads=4, kv_heads=2)  # type: ignore[arg-type]
    save_model(from_scratch(shape, load_chat(tokenizer), context, seed), tokenizer, folder)
    return folder


def labelled_rows(starts: list[str]) -> list[dict[str, str]]:
    """Texts of three classes and of none."""
    words = {"light": ["lamp", "bulb", "lantern"], "music": ["song", "tune", "album"], "oos": ["stock", "poem", "tax"]}
    words["weather"] = ["rain", "snow", "wind"]
    return [
        {"text": f"{start} the {word} in the {room}", "label": label}
        for start in starts
        for label, some in words.items()
        for word in some
        for room in ROOMS
    ]


def make_encoder(folder: Path, layers: int = 4) -> Path:
    """A random BERT without a head, whose WordPiece tokenizer pads every text to 40, as some do."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel

    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = [row["text"] for row in labelled_rows(["play", "show", "what about"])] + ["jumping zebras vexed quick wolf"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    tokenizer.enable_padding(length=40)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **names}))
    import torch

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, pad_token_id=0, initializer_range=0.1,
        hidden_dropout_prob=0.02, attention_probs_dropout_prob=0.02,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder
