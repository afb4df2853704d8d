"""Turn CLINC150's data_full.json into rows of {"text", "label"}, in its own splits, with their out-of-scope rows.

python examples/clinc150/make_rows.py data_full.json --out examples/clinc150/data
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SPLITS = {"train": "train", "validation": "val", "test": "test"}


def prepare(data: dict[str, list[list[str]]], out: Path) -> dict[str, int]:
    """Write NAME.jsonl for each split, and return the number of rows per split."""
    out.mkdir(parents=True, exist_ok=True)
    counts = {}
    for name, split in SPLITS.items():
        rows = [{"text": text, "label": label} for text, label in data[split] + data[f"oos_{split}"]]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        counts[name] = len(rows)
    return counts


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(json.dumps(prepare(json.loads(args.data.read_text(encoding="utf-8")), args.out)))


if __name__ == "__main__":
    main()
