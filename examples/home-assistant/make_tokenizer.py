"""Train the teacher's tokenizer, byte-level BPE with 960 tokens, on the rows of `workload.py`.

    python examples/home-assistant/make_tokenizer.py --rows DIR/train.jsonl --out teacher

The folder holds what `transformers.AutoTokenizer` reads, including the chat template.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CALLS = ("<tool_call>", "</tool_call>")
# Qwen2's split, so that llama.cpp's `qwen2` pre-tokenizer reads the text in the same way.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The split on which merges are learned. It differs from the one above in that the space before a word stands alone. No
# token therefore joins a space to letters, and a word has the same tokens after a space (in the user's text) and after
# a quote (in the call that copies it).
LEARNED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[,_]\p{L}+|\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
VOCABULARY = 960
MARKS = re.compile("|".join(map(re.escape, (PAD, START, END, *CALLS))))


def render(row: dict[str, Any]) -> str:
    """User text and answer as the chat template writes them, without the system message, which all rows share."""
    completion = row["completion"]
    blocks = []
    for call in completion.get("tool_calls", ()):
        function = call["function"]
        blocks.append(f'{CALLS[0]}\n{{"name": "{function["name"]}", "arguments": {function["arguments"]}}}\n{CALLS[1]}')
    answer = "\n".join(filter(None, [completion["content"], *blocks]))
    return f"{START}user\n{row['messages'][0]['content']}{END}\n{START}assistant\n{answer}{END}\n"


def texts(path: Path, limit: int) -> Iterator[str]:
    """Training text, with the system message in every hundredth row, so that tool names do not dominate the merges."""
    names = ",".join(tool["function"]["name"] for tool in json.loads((HERE / "tools.json").read_text(encoding="utf-8")))
    with path.open(encoding="utf-8") as file:
        for index, line in enumerate(file):
            if index >= limit:
                break
            if index % 100 == 0:
                yield f"{START}system\nTools:{names}{END}\n"
            yield render(json.loads(line))


def make_tokenizer(rows: Path, out: Path, *, size: int = VOCABULARY, limit: int = 40_000) -> Any:
    """Train on the first `limit` rows and write tokenizer.json, tokenizer_config.json and chat_template.jinja to `out`.

    Returns the `transformers.PreTrainedTokenizerFast`.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    def split(pattern: str) -> Any:
        pieces = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        return pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split(LEARNED)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, START, END, *CALLS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((piece for text in texts(rows, limit) for piece in between_marks(text)), trainer)
    tokenizer.pre_tokenizer = split(PATTERN)
    # The trainer marks all five tokens as special, but the two of tool calls must stay in decoded text.
    state = json.loads(tokenizer.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] not in CALLS
        token["normalized"] = False
    tokenizer = Tokenizer.from_str(json.dumps(state))
    fast: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = (HERE / "chat_template.jinja").read_text(encoding="utf-8").strip()
    out.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(str(out))
    return fast


def between_marks(text: str) -> list[str]:
    """The pieces of a text between marks, which is what BPE sees when the tokenizer is used."""
    return [piece for piece in MARKS.split(text) if piece]


def main(argv: list[str] | None = None) -> int:
    """Train, write, and print what was written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=Path, required=True, help="train.jsonl of workload.py")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tokenizer's files")
    args = parser.parse_args(argv)
    tokenizer = make_tokenizer(args.rows, args.out)
    ids = {"eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    print(json.dumps({"out": args.out.name, "tokens": len(tokenizer)} | ids))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
