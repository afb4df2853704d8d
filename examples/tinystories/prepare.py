"""Turn a JSON list of stories into rows for text continuation: the first words of each story as the prompt, and the
rest of it as the text that a person wrote, in three splits.

python examples/tinystories/prepare.py STORIES.json --out examples/tinystories/data
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

WORDS = 12
SHARES = {"train": 0.8, "validation": 0.05, "test": 0.15}


def opening(story: str) -> str:
    """The first words unchanged, including spaces and line ends."""
    found = re.match(rf"\s*(?:\S+\s+){{0,{WORDS - 1}}}\S+", story)
    return found.group() if found else story


def prepare(stories: list[str], out: Path) -> dict[str, int]:
    """Write NAME.jsonl for each split, without stories that begin like an earlier one; return the rows per split."""
    rest = {(first := opening(story)): story[len(first) :] for story in reversed(stories)}
    openings = list(dict.fromkeys(opening(story) for story in stories))
    out.mkdir(parents=True, exist_ok=True)
    counts, start = {}, 0
    for name, share in SHARES.items():
        part = openings[start : start + round(share * len(openings))]
        start += len(part)
        rows = [_row(text, rest[text]) for text in part]
        (out / f"{name}.jsonl").write_text(
            "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8"
        )
        counts[name] = len(rows)
    return counts


def _row(first: str, rest: str) -> dict[str, Any]:
    row: dict[str, Any] = {"messages": [{"role": "user", "content": first}]}
    if not rest.strip():
        return row
    return row | {"completion": {"role": "assistant", "content": rest}, "gold": {"continuation": True}}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("stories", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(json.dumps(prepare(json.loads(args.stories.read_text(encoding="utf-8")), args.out)))


if __name__ == "__main__":
    main()
