"""How many of a teacher's wrong answers the checkers of `generate.verify` find, and how many right ones they reject.

    python benchmarks/verification.py [--json FILE] [--rows N] [--share S] [--seed N]

The teacher answers training rows of the home assistant and errs on purpose (examples/home-assistant/erring.py). Shares
are of its answers of each kind. Answers that say themselves that they are cut off are rejected before any checker.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from potstill.components.runtimes.endpoint_reply import Message as Reply
from potstill.components.runtimes.endpoint_reply import hermes_text
from potstill.core.recipe.generate import AnswerChecker, UnknownAnswers
from potstill.core.records import Message, Row, read_rows
from potstill.stages.generate.verified import verify_rows

HOME = Path(__file__).resolve().parents[1] / "examples" / "home-assistant"
sys.path.insert(0, str(HOME))
from erring import KINDS, ErringTeacher  # noqa: E402

Checkers = dict[AnswerChecker, UnknownAnswers]
BARE: Checkers = {"calls": "keep", "values": "keep"}
CASES: tuple[tuple[Checkers, int, bool], ...] = (
    ({"calls": "keep"}, 1, False),
    ({"calls": "keep", "gold": "keep"}, 1, True),
    (BARE, 1, False),
    ({**BARE, "agreement": "keep"}, 3, False),
    ({**BARE, "agreement": "reject"}, 3, False),
    ({**BARE, "agreement": "keep"}, 5, False),
    ({**BARE, "agreement": "reject"}, 5, False),
)
"""Checkers, answers per row, and whether the rows have golds."""


def answered(row: Row, teacher: ErringTeacher, sample: int) -> Row:
    """The row with an answer of the teacher, and the kind of its error in the provenance."""
    said = teacher.answer(row.messages[-1].content or "", sample)
    try:
        completion = Message.model_validate(said.message)
    except ValueError:  # arguments that break off
        completion = Message(role="assistant", content=hermes_text(Reply.model_validate(said.message)))
    provenance = {"finish_reason": said.finish_reason, "kind": said.kind or "right"}
    return row.model_copy(update={"completion": completion, "provenance": provenance})


def rejected(rows: list[Row], teacher: ErringTeacher, checkers: Checkers, samples: int) -> dict[str, float]:
    """Share of rejected answers by kind; `wrong` are all kinds of errors together."""
    answers = [answered(row, teacher, sample) for row in rows for sample in range(samples)]
    kept = verify_rows([row for row in answers if not row.unfinished], checkers).kept
    total, left = (Counter(row.provenance["kind"] for row in each) for each in (answers, kept))
    total["wrong"], left["wrong"] = (sum(counts[kind] for kind in KINDS) for counts in (total, left))
    return {kind: 1 - left[kind] / total[kind] for kind in (*KINDS, "wrong", "right")}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--share", type=float, default=0.15, help="of wrong answers")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    source, tools = HOME / "data" / "train.jsonl", HOME / "tools.json"
    with source.open(encoding="utf-8") as file:
        raw = [json.loads(line) for line, _ in zip(file, range(args.rows), strict=False)]
    teacher = ErringTeacher(raw, json.loads(tools.read_text(encoding="utf-8")), args.share, args.seed)
    rows = read_rows(source, tools=tools, limit=args.rows)
    bare = [row.model_copy(update={"gold": None, "behaviour": "answer"}) for row in rows]
    table: list[dict[str, Any]] = []
    for checkers, samples, has_golds in CASES:
        found = rejected(rows if has_golds else bare, teacher, checkers, samples)
        variant = ", ".join(name if after == "keep" else f"{name}: {after}" for name, after in checkers.items())
        shares = "  ".join(f"{kind} {share:6.1%}" for kind, share in found.items())
        print(f"{variant:<34} {samples} per row  {shares}", flush=True)
        table.append({"case": f"{samples} per row", "variant": variant, "golds": has_golds, **found})
    if args.json:
        machine = {"machine": platform.processor() or platform.machine(), "rows": args.rows, "share": args.share}
        args.json.write_text(json.dumps([row | machine for row in table], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
