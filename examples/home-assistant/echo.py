"""Make rows that teach a new model to copy: it repeats words of the workload and words that do not exist.

    python examples/home-assistant/echo.py --rows build/train.jsonl --tokenizer build/tokenizer --out build/echo.jsonl

A word that a model has never seen can only be copied. From the workload's own rows, in which a copied value is one of
many things to learn, a model this small learns copying late (the README of this folder has the numbers). Half of the
words are made of one to three tokens drawn evenly from the vocabulary, so that rare tokens are copied as often as
common ones. Each row begins with "repeat:", so that the model does not confuse a command that it does not understand
with a request to copy.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

ROWS = 30_000


def words_of(path: Path) -> list[str]:
    """Words of users in the first rows of a file, letters only, in alphabetical order."""
    words: set[str] = set()
    with path.open(encoding="utf-8") as file:
        for _, line in zip(range(ROWS), file, strict=False):
            said = json.loads(line)["messages"][-1]["content"]
            words.update(word for word in said.replace(",", " ").replace(".", " ").split() if word.isalpha())
    return sorted(words)


def pieces_of(folder: Path) -> list[str]:
    """Tokens of a tokenizer that are letters only, in order of id."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = (str(tokenizer.decode([token])) for token in range(len(tokenizer)))
    return [text for text in texts if text.isalpha()]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=Path, required=True, help="train.jsonl of workload.py")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of make_tokenizer.py")
    parser.add_argument("--out", type=Path, required=True, help="file for the echo rows")
    args = parser.parse_args()
    rng, words, pieces = random.Random(0), words_of(args.rows), pieces_of(args.tokenizer)

    def word() -> str:
        return rng.choice(words) if rng.random() < 0.5 else "".join(rng.choices(pieces, k=rng.randint(1, 3)))

    with args.out.open("w", encoding="utf-8") as file:
        for _ in range(ROWS):
            text = " ".join(word() for _ in range(rng.randint(2, 8)))
            messages = [{"role": "user", "content": f"repeat: {text}"}, {"role": "assistant", "content": text}]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
