"""Write the rows that the base model learns from: general skills, and no request to the home assistant with its answer.

    python examples/home-assistant/skills.py --tokenizer teacher --out build/skills.jsonl --rows 300000 --seed 0

The skills are those that a small public base model brings along: it copies words, works with the tools of other
assistants (skills/tools.txt: it calls them, asks for what is missing, and refuses what no tool does or what is unsafe),
writes a described call and a line of a home's log (skills/reports.txt) as JSON, says a request in plainer words and
answers questions on what it names, reads numbers and times, and corrects and completes sentences. Words and values are
those of the train split only.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from echo import pieces_of
from grammar import Section, read_phrasings
from noise import articles, foreign, typos
from slots import OPEN, Filler
from workload import CANNOT, HERE, Clause, Request, Writer

SHARES = {"echo": 0.05, "other": 0.18, "clarify": 0.07, "absent": 0.03, "refuse": 0.05, "described": 0.09,
          "report": 0.11, "reword": 0.25, "ask": 0.07, "read": 0.03, "correct": 0.05, "complete": 0.02}  # fmt: skip
BEHAVIOURS = {"tool_call": 0.45, "multi_call": 0.2, "clarify": 0.18, "refuse": 0.17}
READ = ("time", "minutes", "degrees", "level", "brightness", "position", "day")
SLOT = re.compile(r"\{(\w+)\}")
SAME = {"todo": "text", "move": "position", "moved": "position", "lock": "state", "locked": "state",
        "minutes_adj": "minutes", "cover_in": "cover", "n_big": "n"}  # fmt: skip
SECOND = re.compile(r" and (the )?\{\w+2\}")
IN_THE_VERB = re.compile(r"\{(lock|move|moved|minutes_adj)\}")


class Skills:
    """Draw rows of every skill."""

    def __init__(self, pieces: list[str], seed: int) -> None:
        self.rng = random.Random(f"{seed}:skills")
        self.pieces = pieces
        self.filler = Filler(self.rng, "train")
        self.other = read_phrasings(HERE / "skills", "tools.txt")
        orders = {section.target: _arguments(section) for section in self.other if section.kind == "tool"}
        self.writer = Writer(self.other, orders, "train", seed)
        self.reports = Writer(read_phrasings(HERE / "skills", "reports.txt"), _home_tools(), "train", seed + 2)
        self.home = read_phrasings(HERE / "phrasings")
        self.home_writer = Writer(self.home, _home_tools(), "train", seed + 1)
        self.orders = orders | _home_tools()
        everywhere = self.home + self.other
        self.plain = {section.name.replace(" ", "."): _plainest(section) for section in everywhere}
        self.asked = sorted({arg for arguments in self.orders.values() for arg in arguments})

    def row(self, skill: str) -> dict[str, Any]:
        """One row of a skill."""
        draw: Callable[[], dict[str, Any]] = getattr(self, f"_{skill}")
        return draw()

    def word(self) -> str:
        """A word of train, an invented one, or a few tokens of the vocabulary."""
        if self.rng.random() < 0.5:
            return "".join(self.rng.choices(self.pieces, k=self.rng.randint(1, 3)))
        return str(self.filler.fill(self.rng.choice(OPEN), self.rng.random() < 0.5).surface)

    def _echo(self) -> dict[str, Any]:
        text = " ".join(self.word() for _ in range(self.rng.randint(2, 7)))
        return _row(f"repeat: {text}", {"content": text})

    # -- tools of other assistants --

    def _menu(self, needed: set[str], absent: bool = False) -> list[dict[str, Any]]:
        """A choice of tools as a row lists them, with the needed ones or without them: the home's, or a random one."""
        home = list(_home_tools())
        if (not absent and needed <= set(home)) or (absent and self.rng.random() < 0.3):
            return [_tool(name) for name in home]
        names = [name for name in self.orders if name not in needed]
        chosen = self.rng.sample(names, self.rng.randint(4, 14)) + ([] if absent else sorted(needed))
        self.rng.shuffle(chosen)
        return [_tool(name) for name in chosen]

    def _request(self, behaviour: str, writer: Writer | None = None) -> tuple[str, dict[str, Any], set[str]]:
        row = (writer or self.writer).row(behaviour)
        calls = row["completion"].get("tool_calls") or []
        return row["messages"][0]["content"], row["completion"], {call["function"]["name"] for call in calls}

    def _other(self) -> dict[str, Any]:
        text, answer, names = self._request("tool_call" if self.rng.random() < 0.65 else "multi_call")
        return _row(text, answer, self._menu(names))

    def _clarify(self) -> dict[str, Any]:
        row = self.writer.row("clarify")
        target = row["provenance"]["template"].split(".")[1]
        return _row(row["messages"][0]["content"], row["completion"], self._menu({target}))

    def _absent(self) -> dict[str, Any]:
        text, _, names = self._request("tool_call")
        return _row(text, {"content": CANNOT[0]}, self._menu(names, absent=True))

    def _refuse(self) -> dict[str, Any]:
        text, answer, _ = self._request("refuse")
        return _row(text, answer, self._menu(set()))

    # -- what has happened at home --

    def _report(self) -> dict[str, Any]:
        found = [self._request("tool_call", self.reports) for _ in range(self.rng.choice((1, 1, 2, 3)))]
        calls = [call for _, answer, _ in found for call in answer["tool_calls"]]
        text = self.rng.choice((" / ", "; ", ", ")).join(text for text, _, _ in found)
        return _row(
            f"log: {text}",
            {"content": None, "tool_calls": calls},
            self._menu(set().union(*(names for *_, names in found))),
        )

    # -- a call that is described name by name, of any tool --

    def _described(self) -> dict[str, Any]:
        lines, calls, names = [], [], set()
        known_tools = list(_home_tools() if self.rng.random() < 0.6 else self.orders)
        for _ in range(self.rng.choice((1, 1, 1, 2, 2, 3))):
            name = self.rng.choice(known_tools)
            known = self.orders[name]
            args = [arg for arg in known if self.rng.random() < 0.75] or known[:1]
            said = args[:]
            self.rng.shuffle(said)
            values = {arg: self._value(arg) for arg in args}
            lines.append(" ".join([name, *(f"{arg}: {values[arg][0]}" for arg in said)]))
            arguments = json.dumps({arg: values[arg][1] for arg in args}, ensure_ascii=False)
            calls.append({"type": "function", "function": {"name": name, "arguments": arguments}})
            names.add(name)
        text = self.rng.choice(("call ", "run ", "")) + self.rng.choice((" and ", ", then ", "; ")).join(lines)
        return _row(text, {"content": None, "tool_calls": calls}, self._menu(names))

    def _value(self, arg: str) -> tuple[str, str | int]:
        """What is said of an argument, and its value."""
        slots = {"text": ("text", "todo"), "position": ("position", "moved"), "state": ("state", "locked")}
        fill = self.filler.fill(self.rng.choice(slots.get(arg, (arg,))), self.rng.random() < 0.4)
        return fill.surface, fill.value

    # -- requests, in other words --

    def _spoken(self) -> Request:
        """A request of any assistant."""
        writer = self.home_writer if self.rng.random() < 0.75 else self.writer
        return writer.draw(self.rng.choices(list(BEHAVIOURS), weights=list(BEHAVIOURS.values()))[0])

    def _reword(self) -> dict[str, Any]:
        spoken = self._spoken()
        text = "; ".join(self._plainly(clause) for clause in spoken.clauses)
        return _row(f"plainly: {spoken.text}", {"content": text})

    def _plainly(self, clause: Clause) -> str:
        """The first wording of the section that names the same things, with values as numbers and plain times."""
        fills = {fill.slot: fill.value for fill in clause.fills}
        values = dict(clause.phrasing.implied) | {_named(slot): value for slot, value in fills.items()}
        second = {key[:-1]: values.pop(key) for key in list(values) if key.endswith("2") and clause.calls}
        wording = self.plain[_section_of(clause)][frozenset(values)]
        rounds = [values, values | second] if second else [values]
        return "; ".join(wording.format_map(given) for given in rounds)

    def _ask(self) -> dict[str, Any]:
        spoken = self._spoken()
        named: dict[str, list[str]] = {}
        for fill in (fill for clause in spoken.clauses for fill in clause.fills):
            named.setdefault(fill.arg, []).append(str(fill.value))
        asked = self.rng.choice(sorted(named) if named and self.rng.random() < 0.6 else self.asked)
        return _row(f"which {asked}: {spoken.text}", {"content": "; ".join(named.get(asked, ["none"]))})

    # -- numbers and times --

    def _read(self) -> dict[str, Any]:
        slot = self.rng.choice(READ)
        fill = self.filler.fill(slot, self.rng.random() < 0.4)
        before, after = (" ".join(self.word() for _ in range(self.rng.randint(0, 3))) for _ in range(2))
        text = " ".join(f"{before} {fill.surface} {after}".split())
        return _row(f"{fill.arg} in: {text}", {"content": str(fill.value)})

    # -- sentences --

    def _sentence(self) -> Clause:
        section: Section = self.rng.choice(self.home + self.other)
        lower = self.rng.random() < 0.35
        phrasing = self.rng.choice(section.phrasings["train"])
        return self.home_writer.clause(replace(section, kind="sentence"), phrasing, lower)

    def _correct(self) -> dict[str, Any]:
        pieces = list(self._sentence().pieces)
        text = "".join(words for words, _ in pieces)
        for change in (articles, typos, foreign):
            if change is typos or self.rng.random() < 0.2:
                pieces = change(pieces, self.rng)
        return _row("correct: " + "".join(words for words, _ in pieces), {"content": text})

    def _complete(self) -> dict[str, Any]:
        words = "".join(text for text, _ in self._sentence().pieces).split()
        at = self.rng.randrange(len(words))
        masked = " ".join("_" if index == at else word for index, word in enumerate(words))
        return _row(f"complete: {masked}", {"content": " ".join(words)})


def _arguments(section: Section) -> list[str]:
    """Arguments of a tool, in the order in which its phrasings name them."""
    wordings = (phrasing.wordings[0] for phrasing in section.phrasings["train"])
    return list(dict.fromkeys(slot.removesuffix("2") for wording in wordings for slot in SLOT.findall(wording)))


def _named(slot: str) -> str:
    """What a slot names: its argument, or its own name; a second value keeps its number."""
    base = slot.removesuffix("2")
    return SAME.get(base, base) + slot.removeprefix(base)


def _section_of(clause: Clause) -> str:
    return clause.phrasing.name.split("/")[0]


def _plainest(section: Section) -> dict[frozenset[str], str]:
    """For each set of things that a section's phrasings name, the first wording that names just these."""
    plain: dict[frozenset[str], str] = {}
    # one that spells everything out comes before one whose verb says a part, and one value before two
    for phrasing in sorted(section.phrasings["train"], key=lambda each: (each.pairs, len(each.implied))):
        for wording in sorted(phrasing.wordings, key=lambda wording: bool(IN_THE_VERB.search(wording))):
            one = SECOND.sub("", wording) if section.kind == "tool" else wording
            named = SLOT.sub(lambda match: f"{{{_named(match[1])}}}", one)
            plain.setdefault(frozenset(SLOT.findall(named)) | {arg for arg, _ in phrasing.implied}, named)
    return plain


@cache
def _home_tools() -> dict[str, list[str]]:
    functions = [tool["function"] for tool in json.loads((HERE / "tools.json").read_text(encoding="utf-8"))]
    return {function["name"]: list(function["parameters"]["properties"]) for function in functions}


def _tool(name: str) -> dict[str, Any]:
    """A tool without its schema, which the chat template does not print."""
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


def _row(text: str, answer: dict[str, Any], tools: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": None} | answer]
    return {"messages": messages} | ({"tools": tools} if tools else {})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of make_tokenizer.py")
    parser.add_argument("--out", type=Path, required=True, help="file for the rows")
    parser.add_argument("--rows", type=int, default=300_000, help="number of rows (default 300000)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same rows (default 0)")
    args = parser.parse_args()
    skills = Skills(pieces_of(args.tokenizer), args.seed)
    kinds = skills.rng.choices(list(SHARES), weights=list(SHARES.values()), k=args.rows)
    with args.out.open("w", encoding="utf-8") as file:
        for kind in kinds:
            file.write(json.dumps(skills.row(kind), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
