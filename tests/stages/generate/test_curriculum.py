"""From a task in words and 30 examples of a public data set to rows that meet every quota."""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from endpoints import Endpoint, Script, reply
from fixtures import ROOT, write_jsonl
from potstill.cli.main import main
from potstill.core.artifacts.coverage import Coverage
from potstill.core.artifacts.generated import TOOLS, Generated, read_generated, rows_file
from potstill.core.recipe import Recipe, load_recipe
from potstill.core.steps import Done
from potstill.stages.generate.stage import STAGE, make_inputs

CLINC = ROOT.parent / "shared" / "data" / "clinc150" / "data_full.json"
BASE = ROOT / "examples" / "home-assistant" / "base"
INTENTS = ("balance", "transfer", "freeze_account", "pay_bill", "exchange_rate")
TASK = "Say which of a bank's services a customer's message asks for. Answer with its name only."
needs_data = pytest.mark.skipif(not CLINC.is_file(), reason="no clinc150 data set beside the checkout")


class Bank:
    """A teacher that writes messages from the data set, and names their intent; every eighth answer is wrong."""

    def __init__(self) -> None:
        pairs = [pair for pair in json.loads(CLINC.read_text())["train"] if pair[1] in INTENTS]
        self.intents = dict(pairs)
        self.messages = {name: [text for text, intent in pairs if intent == name][30:] for name in INTENTS}
        self.requests = Counter[str]()

    def examples(self) -> list[list[str]]:
        texts = {name: [text for text, intent in self.intents.items() if intent == name] for name in INTENTS}
        return [[text, name] for name in INTENTS for text in texts[name][:6]]

    def __call__(self, body: dict[str, Any]) -> tuple[int, Any]:
        said = body["messages"][-1]["content"]
        self.requests[json.dumps(body)] += 1
        chance = zlib.crc32(said.encode())
        if wanted := re.search("The right answer to the message is: (.*)", said):
            messages = self.messages[wanted[1]]
            return 200, reply(messages[chance % len(messages)])
        if reworded := re.search(r"(?s)as it is\.\n\n(.*)\n\nWrite only", said):
            return 200, reply(f"so, {reworded[1]} thank you")
        return 200, reply("no idea" if chance % 8 == 0 else self._intent(said))

    def _intent(self, text: str) -> str:
        words = set(re.findall(r"\w+", text.lower()))
        return self.intents[max(self.intents, key=lambda known: len(words & set(known.split())) / len(known.split()))]


def started(folder: Path, bank: Bank, url: str) -> Recipe:
    """The recipe that init writes from a task and 30 examples, with smaller quotas."""
    (folder / "task.txt").write_text(TASK)
    write_jsonl(folder / "examples.jsonl", [{"text": text, "intent": intent} for text, intent in bank.examples()])
    sources = [str(folder / "task.txt"), str(folder / "examples.jsonl")]
    models = ["--teacher", "m", "--endpoint", url, "--student", str(BASE)]
    made = CliRunner().invoke(main, ["init", str(folder / "new"), "--from", *sources, *models])
    assert made.exit_code == 0, made.output
    path = folder / "new" / "curriculum.yaml"
    value = yaml.safe_load(path.read_text())
    assert set(value["axes"]["label"]) == set(INTENTS) and value["task"] == TASK
    value["axes"]["label"] = dict.fromkeys(INTENTS, 12)
    for noise, rows in {"clean": 20, "typos": 6, "list": 5, "pasted_log": 5, "mixed_language": 5}.items():
        value["axes"]["noise"][noise]["rows"] = rows
    path.write_text(yaml.safe_dump(value))
    recipe = load_recipe(folder / "new" / "recipe.yaml")
    assert isinstance(recipe, Recipe)
    return recipe


@needs_data
def test_a_task_and_thirty_examples_meet_the_quotas(endpoint: Callable[[Script], Endpoint], tmp_path: Path) -> None:
    bank = Bank()
    recipe = started(tmp_path, bank, endpoint(bank).url)
    outs = [tmp_path / "runs" / "new" / name for name in ("generate-1", "generate-2")]
    for out in outs:
        out.mkdir(parents=True)
        STAGE.run(make_inputs(recipe, Done({}, STAGE.reads)), out)
    covered = Coverage.read(outs[0])
    assert covered.unmet == () and len(covered.cells) == 10
    kept = read_generated(outs[0] / rows_file("train"), outs[0] / TOOLS)
    counts = Generated.read(outs[0]).splits["train"]
    assert counts.prompts == counts.kept + sum(counts.rejected.values()) == 21 + covered.written
    for row in kept:
        assert row.completion is not None and row.gold is not None
        assert row.completion.content == row.gold.equals[0]
    assert counts.rejected["gold"] >= 0.05 * counts.prompts
    assert Counter(row.gold.equals[0] for row in kept if row.gold).most_common()[-1][1] >= 12
    # the second run asked nothing again
    assert (
        max(bank.requests.values()) == 1
        and (outs[0] / rows_file("train")).read_bytes() == (outs[1] / rows_file("train")).read_bytes()
    )
