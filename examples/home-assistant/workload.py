"""Write the home-assistant workload: train, validation and test rows that share no phrasing and no open value.

    python examples/home-assistant/workload.py --out DIR --train 120000 --validation 600 --test 600 --seed 0

Phrasings are in phrasings/*.txt, words in pools.py, values in slots.py, and typing errors in noise.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grammar import SPLITS, Phrasing, Section, read_phrasings
from noise import Piece, articles, foreign, plain, typos
from slots import Fill, Filler

HERE = Path(__file__).resolve().parent
SOURCE = "home-assistant workload@1"
SHARES = {"tool_call": 0.50, "multi_call": 0.18, "clarify": 0.16, "refuse": 0.16}
# The hardest rows, several commands in a line and typing errors, are more frequent in train.
TRAIN_SHARES = {"tool_call": 0.42, "multi_call": 0.26, "clarify": 0.17, "refuse": 0.15}
TYPOS, TRAIN_TYPOS = 0.13, 0.2
TRAIN_ARTICLES = 0.2
UNSAFE_SHARE = 0.38
CANNOT = ("Sorry, I cannot do that with the tools I have.", r"(cannot|can't|can not|unable|not able|no tool)")
UNSAFE = ("Sorry, I will not do that: it could be unsafe.", r"(will not|won't|unsafe|dangerous|not safe)")
ORDER_PREFIXES = (
    "please", "can you", "could you", "could you please", "would you", "will you", "hey,", "hey, can you", "ok,", "hi,",
    "I want you to", "now", "quickly", "go ahead and", "kindly", "would you please", "hello, please", "and now",
)  # fmt: skip
OTHER_PREFIXES = ("hey,", "hi,", "ok,", "so,", "hello,", "um,", "well,", "listen,")
SUFFIXES = ("please", ", please", ", thanks", "thanks", ", thank you", "now", "right now", "if you can", ", ok")
CONNECTORS = (
    " and ", " and ", ", and ", ", then ", " and then ", ", also ", " and also ", "; ", ". Then ", ", after that ",
)  # fmt: skip
QUESTION = re.compile(r"(hey, |hi, |ok, |so, )?(can|could|would|will|what|how|is|do|does|where|who|when)\b", re.I)
FREE_END = {"text", "todo", "song", "artist"}
BARE_END = re.compile(r"\b(in|the|to|for|at|of|on|that|saying|a|be|called|named|until)$")
PREPOSITION = re.compile(r"(in|on|at) ")


@dataclass(frozen=True)
class Clause:
    """One command: its pieces of text, its calls, the values that were drawn, and its phrasing."""

    pieces: tuple[Piece, ...]
    fills: tuple[Fill, ...]
    calls: tuple[dict[str, Any], ...]
    phrasing: Phrasing

    @property
    def open_end(self) -> bool:
        """Whether the text ends with a value of free length, so that nothing may follow without punctuation."""
        return self.pieces[-1][1] and self.fills[-1].open

    @property
    def bare(self) -> bool:
        """Whether the text breaks off, without even a full stop."""
        return not self.pieces[-1][1] and bool(BARE_END.search(self.pieces[-1][0]))

    @property
    def free_end(self) -> bool:
        """Whether a word after the last value could be mistaken for a part of it."""
        return self.pieces[-1][1] and self.fills[-1].slot in FREE_END


@dataclass(frozen=True)
class Request:
    """What a user says: the text, its clauses, their section where there is only one, and the names of the noise."""

    text: str
    clauses: tuple[Clause, ...]
    section: Section | None
    noises: tuple[str, ...]


def variants(value: str | int, is_open: bool) -> list[str | int]:
    """Accepted values in addition to `value`: other upper and lower case, for copied words only."""
    if isinstance(value, int) or not is_open:
        return [value]
    return list(dict.fromkeys([value, value.lower(), value.title(), value[:1].upper() + value[1:]]))


class Writer:
    """Draw rows of one split."""

    def __init__(self, sections: list[Section], tools: dict[str, list[str]], split: str, seed: int) -> None:
        self.rng = random.Random(f"{seed}:{split}")
        self.split, self.tools, self.filler = split, tools, Filler(self.rng, split)
        self.by_kind: dict[str, list[Section]] = {}
        for section in sections:
            self.by_kind.setdefault(section.kind, []).append(section)
        self._cycles = {kind: self._cycle(kind) for kind in self.by_kind} | {"multi": self._cycle("tool")}

    def _cycle(self, kind: str) -> Iterator[Section]:
        """Sections in turn, in a new order each round, so that all have the same share."""
        while True:
            yield from self.rng.sample(self.by_kind[kind], len(self.by_kind[kind]))

    def clause(self, section: Section, phrasing: Phrasing, lower: bool) -> Clause:
        """A phrasing with filled slots; combinations of closed values that belong to test are drawn again."""
        while True:
            wording = self.rng.choice(phrasing.wordings)
            fills, pieces = [], []
            for index, part in enumerate(re.split(r"\{(\w+)\}", wording)):
                if index % 2:
                    fills.append(self.filler.fill(part, lower))
                    pieces.append((fills[-1].surface, True))
                elif part:
                    pieces.append((part, False))
            pairs = {fill.slot: fill.surface.lower() for fill in fills}
            if any(pairs.get(slot + "2") == surface for slot, surface in pairs.items()):
                continue
            calls = self._calls(section.target, phrasing, fills) if section.kind == "tool" else []
            if self.split == "test" or not any(self._held(call, fills) for call in calls):
                return Clause(tuple(pieces), tuple(fills), tuple(calls), phrasing)

    @staticmethod
    def _held(call: dict[str, Any], fills: list[Fill]) -> bool:
        free = {fill.value for fill in fills if fill.open}
        closed = sorted(f"{arg}={value}" for arg, value in call["arguments"].items() if value not in free)
        return len(closed) > 1 and zlib.crc32(f"{call['name']}:{closed}".encode()) % 100 < 8

    def _calls(self, tool: str, phrasing: Phrasing, fills: list[Fill]) -> list[dict[str, Any]]:
        first = dict(phrasing.implied) | {fill.arg: fill.value for fill in fills if not fill.slot.endswith("2")}
        second = {fill.arg: fill.value for fill in fills if fill.slot.endswith("2")}
        free = {fill.value for fill in fills if fill.open}
        calls = []
        for values in [first, first | second] if second else [first]:
            arguments = {arg: values[arg] for arg in self.tools[tool] if arg in values}
            gold = {arg: variants(value, value in free) for arg, value in arguments.items()}
            calls.append({"name": tool, "arguments": arguments, "gold": gold})
        return calls

    def _pick(self, section: Section, pairs: bool = False, first: bool = True) -> Phrasing | None:
        fits = [
            phrasing
            for phrasing in section.phrasings[self.split]
            if phrasing.pairs is pairs and (first or (phrasing.order and not PREPOSITION.match(phrasing.wordings[0])))
        ]
        return self.rng.choice(fits) if fits else None

    def _wrap(self, pieces: list[Piece], order: bool, last: Clause) -> list[Piece]:
        """Add polite words before and after, where they cannot be mistaken for a part of a value."""
        order = order and not PREPOSITION.match(pieces[0][0])
        if self.rng.random() < 0.4:
            pieces = [(self.rng.choice(ORDER_PREFIXES if order else OTHER_PREFIXES) + " ", False), *pieces]
        if not (last.free_end or last.bare) and self.rng.random() < 0.22:
            timed = any(fill.slot in ("day", "time") for fill in last.fills)
            suffix = self.rng.choice(SUFFIXES if order and not timed else SUFFIXES[:5])
            pieces = [*pieces, (suffix if suffix.startswith(",") else f" {suffix}", False)]
        return pieces

    def _text(self, pieces: list[Piece], lower: bool, may_stop: bool) -> tuple[str, list[str]]:
        """The pieces as one line after noise, and the names of the noise."""
        noises = []
        typing = TRAIN_TYPOS if self.split == "train" else TYPOS
        kinds = [("foreign@1", 0.1, foreign), ("typos@1", typing, typos)]
        if self.split == "train":
            kinds.insert(0, ("articles@1", TRAIN_ARTICLES, articles))
        for name, share, change in kinds:
            if self.rng.random() < share and (changed := change(pieces, self.rng)) != pieces:
                pieces = changed
                noises.append(name)
        if lower:
            text = "".join(text for text, _ in plain(pieces))
            return " ".join(text.split()), ["plain@1", *noises]
        text = " ".join("".join(text for text, _ in pieces).split())
        if not next(protected for words, protected in pieces if words.strip()):
            text = text[:1].upper() + text[1:]
        if may_stop and self.rng.random() < 0.6:
            text += "?" if QUESTION.match(text) else self.rng.choice("...!")
        return text, noises

    def draw(self, behaviour: str) -> Request:
        """A request of a behaviour: its text, and what it was made of."""
        lower = self.rng.random() < 0.35
        if behaviour == "multi_call":
            clauses, pieces, order, noises = self._multi(lower)
            section = None
        else:
            kind = {"tool_call": "tool", "clarify": "clarify"}.get(behaviour)
            kind = kind or ("unsafe" if self.rng.random() < UNSAFE_SHARE else "refuse")
            section = next(self._cycles[kind])
            phrasing = self._pick(section)
            assert phrasing is not None, f"{section.name} has no phrasing in {self.split}"
            clauses = [self.clause(section, phrasing, lower)]
            pieces, order, noises = list(clauses[0].pieces), phrasing.order, []
        last = clauses[-1]
        text, more = self._text(self._wrap(pieces, order, last), lower, not last.bare)
        return Request(text, tuple(clauses), section, (*noises, *more))

    def row(self, behaviour: str) -> dict[str, Any]:
        """One row of a behaviour."""
        drawn = self.draw(behaviour)
        clauses = list(drawn.clauses)
        answer, gold = self._answer(clauses) if clauses[0].calls else self._words(drawn.section)
        provenance = {"source": SOURCE, "template": "+".join(clause.phrasing.name for clause in clauses)}
        if drawn.noises:
            provenance["noise"] = ",".join(drawn.noises)
        return {
            "messages": [{"role": "user", "content": drawn.text}],
            "completion": answer,
            "behaviour": behaviour,
            "gold": gold,
            "provenance": provenance,
            "_open": [(fill.arg, str(fill.value).lower()) for c in clauses for fill in c.fills if fill.open],
        }

    def _multi(self, lower: bool) -> tuple[list[Clause], list[Piece], bool, list[str]]:
        """Several commands in one line: joined clauses of different tools, or one clause with two values."""
        if self.rng.random() < 0.15:
            while True:
                section = next(self._cycles["multi"])
                if phrasing := self._pick(section, pairs=True):
                    clause = self.clause(section, phrasing, lower)
                    return [clause], list(clause.pieces), phrasing.order, []
        count = 3 if self.rng.random() < 0.15 else 2
        run_on = self.rng.random() < 0.12
        while True:
            sections = [next(self._cycles["multi"]) for _ in range(count)]
            if len({section.target for section in sections}) < count:
                continue
            picks = [self._pick(section, first=not index) for index, section in enumerate(sections)]
            clauses = [self.clause(s, p, lower) for s, p in zip(sections, picks, strict=True) if p is not None]
            unmarked = any(c.open_end and (run_on or c.fills[-1].slot in ("text", "todo")) for c in clauses[:-1])
            if len(clauses) == count and not unmarked:
                break
        pieces = list(clauses[0].pieces)
        for clause in clauses[1:]:
            connector = " " if run_on else self.rng.choice(CONNECTORS)
            # If a semicolon or full stop were dropped later, an open value would have no end.
            if lower and not connector.strip(" ,;.").isalpha() and not run_on:
                connector = " and "
            pieces = [*pieces, (connector, False), *clause.pieces]
        return clauses, pieces, clauses[0].phrasing.order, ["run_on@1"] if run_on else []

    @staticmethod
    def _answer(clauses: list[Clause]) -> tuple[dict[str, Any], dict[str, Any]]:
        calls = [call for clause in clauses for call in clause.calls]
        functions = [{"name": c["name"], "arguments": json.dumps(c["arguments"], ensure_ascii=False)} for c in calls]
        entries = [{"type": "function", "function": function} for function in functions]
        return {"role": "assistant", "content": None, "tool_calls": entries}, {
            "calls": [{"name": call["name"], "arguments": call["gold"]} for call in calls]
        }

    @staticmethod
    def _words(section: Section | None) -> tuple[dict[str, Any], dict[str, Any]]:
        assert section is not None
        answers = {"clarify": (section.ask, section.match), "refuse": CANNOT, "unsafe": UNSAFE}
        text, match = answers[section.kind]
        return {"role": "assistant", "content": text}, {"match": match}


def text_key(text: str) -> str:
    """A text without case and punctuation; rows with the same key count as equal."""
    return " ".join(re.sub(r"[^\w%°]+", " ", text.lower()).split())


def generate(split: str, count: int, seed: int, seen: set[str]) -> list[dict[str, Any]]:
    """`count` rows in the split's shares, none with a text in `seen`; their texts are added to `seen`."""
    functions = [tool["function"] for tool in json.loads((HERE / "tools.json").read_text(encoding="utf-8"))]
    tools = {function["name"]: list(function["parameters"]["properties"]) for function in functions}
    writer = Writer(read_phrasings(HERE / "phrasings"), tools, split, seed)
    shares = TRAIN_SHARES if split == "train" else SHARES
    counts = {behaviour: round(count * share) for behaviour, share in shares.items()}
    counts["tool_call"] += count - sum(counts.values())
    plan = [behaviour for behaviour, number in counts.items() for _ in range(number)]
    writer.rng.shuffle(plan)
    rows = []
    for behaviour in plan:
        for _ in range(1000):
            row = writer.row(behaviour)
            if (key := text_key(row["messages"][0]["content"])) not in seen:
                break
        else:
            raise ValueError(f"{split}: no new {behaviour} text in 1000 draws; ask for fewer rows or add phrasings.")
        seen.add(key)
        rows.append(row)
    return rows


def skeletons(sections: Iterable[Section], split: str) -> set[str]:
    """All wordings of a split, with slots in braces."""
    return {w for section in sections for phrasing in section.phrasings[split] for w in phrasing.wordings}


def check(splits: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Summary of the splits.

    Raises:
        ValueError: two splits share a wording, a text or an open value.
    """
    sections = read_phrasings(HERE / "phrasings")
    for one, other in itertools.combinations(SPLITS, 2):
        texts = [{text_key(row["messages"][0]["content"]) for row in splits[split]} for split in (one, other)]
        values = [{pair for row in splits[split] for pair in row["_open"]} for split in (one, other)]
        wordings = [skeletons(sections, split) for split in (one, other)]
        for what, (left, right) in {"texts": texts, "open values": values, "wordings": wordings}.items():
            if left & right:
                shared = sorted(left & right)[:3]
                raise ValueError(f"{one} and {other} share {what}, for example {shared}; mend the phrasings or pools.")
    return {
        split: {
            "rows": len(rows),
            "behaviours": dict(Counter(row["behaviour"] for row in rows).most_common()),
            "templates": len({name for row in rows for name in row["provenance"]["template"].split("+")}),
            "wordings": len(skeletons(sections, split)),
            "open_values": len({pair for row in rows for pair in row["_open"]}),
        }
        for split, rows in splits.items()
    }


def main(argv: list[str] | None = None) -> int:
    """Write the three files and print the summary as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the three JSONL files")
    for split, default in zip(SPLITS, (120_000, 600, 600), strict=True):
        parser.add_argument(f"--{split}", type=int, default=default, help=f"rows of {split} (default {default})")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same rows (default 0)")
    args = parser.parse_args(argv)
    seen: set[str] = set()
    # Test comes first: train must not have any of its texts.
    splits = {split: generate(split, getattr(args, split), args.seed, seen) for split in reversed(SPLITS)}
    summary = check(splits)
    args.out.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = (json.dumps({k: v for k, v in row.items() if k != "_open"}, ensure_ascii=False) + "\n" for row in rows)
        (args.out / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    json.dump(summary, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
