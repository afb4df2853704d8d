"""The generate stage drops what `generate.filters` names, with the reason, and loses no row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from endpoints import Endpoint, Script, reply
from fixtures import write_jsonl
from potstill.core.artifacts.generated import REJECTED, TOOLS, Generated, read_generated, rows_file
from potstill.core.recipe import Recipe
from potstill.core.steps import Done
from potstill.stages.generate.stage import STAGE, make_inputs

PROMPTS = (
    "what is the weather like in the city of Oslo today",
    "what is the weather like in the city of Oslo today?!",
    "who may I ask for help with my taxes",
    "my address is anna@company.org, what is yours",
    "tell me the way to the central station of Lima",
)


def answer(body: dict[str, Any]) -> tuple[int, Any]:
    taxes = "taxes" in body["messages"][-1]["content"]
    return 200, reply("Sorry, I cannot help with that." if taxes else "It is as it was.")


def test_filters_drop_rows_with_their_reason(
    endpoint: Callable[[Script], Endpoint], tiny_model: Path, tmp_path: Path
) -> None:
    for name, texts in (("train", PROMPTS), ("test", ["Tell me the way to the central station of Lima!"])):
        rows = [{"messages": [{"role": "user", "content": text}]} for text in texts]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "data": {"prompts": tmp_path / "train.jsonl", "test": tmp_path / "test.jsonl"},
            "chat": {"context": 256},
            "teacher": {"kind": "api", "model": "m", "base_url": endpoint(answer).url},
            "generate": {"filters": ["pii", "refusal", "near_duplicates", "decontamination"]},
            "student": {"init": "checkpoint", "model": str(tiny_model)},
            "train": {"objective": "sft", "control": "none"},
        }
    )
    out = tmp_path / "runs" / "r" / "generate"
    out.mkdir(parents=True)
    STAGE.run(make_inputs(recipe, Done({}, STAGE.reads)), out)
    counts = Generated.read(out).splits["train"]
    reasons = ("pii", "refusal", "near_duplicates", "decontamination")
    assert counts.rejected == dict.fromkeys(reasons, 1) and counts.kept + sum(counts.rejected.values()) == len(PROMPTS)
    (kept,) = read_generated(out / rows_file("train"), out / TOOLS)
    assert [each["filter"] for each in kept.provenance["filters"]] == [f"{name}@1" for name in reasons]
    dropped = {
        row.provenance["rejected"]: row.provenance["filters"][-1] for row in read_generated(out / REJECTED, out / TOOLS)
    }
    assert dropped["pii"] == {"filter": "pii@1", "decision": "drop", "evidence": "it has an e-mail address"}
    assert "test.jsonl:1" in dropped["decontamination"]["evidence"]
