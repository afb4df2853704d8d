"""`potstill plan RECIPE`: one device for everything, costs against the endpoint, and the licence verdict."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from click.testing import CliRunner

from fixtures import light_rows, write_jsonl
from potstill.apps.plan.recipe import PlanOptions, plan_recipe
from potstill.cli.main import main
from potstill.components.hardware.devices import find_device
from potstill.components.hardware.fit import Serving, device_memory, fit
from potstill.components.models.recipe_models import load_models
from potstill.components.sizing import room
from potstill.stages.check.check import check_recipe

if TYPE_CHECKING:
    from workshop import Workshop

ON_GPU = PlanOptions(train_on="RTX 3060")
PRICES = {"input": 2.0, "output": 10.0}


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def run(*words: str) -> str:
    done = CliRunner().invoke(main, [*words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def planned(workshop: Workshop, *words: str, **changes: Any) -> dict[str, Any]:
    workshop.recipe(**changes)
    return dict(json.loads(run("plan", str(workshop.folder / "recipe.yaml"), "--json", *words)))


def test_a_device_is_the_recipes_or_the_command_lines(workshop: Workshop) -> None:
    words = planned(workshop, target={"device": "a board of ours"})
    assert words["device"] == "a board of ours"
    assert all(row["decode_tokens_per_s"] is None for row in words["quantizations"])
    own = planned(workshop, target={"device": "pi 5"})
    asked = planned(workshop, "--device", "pi5", target={"device": "a board of ours"})
    assert own["device"] == asked["device"] == "Raspberry Pi 5"
    assert own["quantizations"] == asked["quantizations"]
    chosen = next(row for row in own["quantizations"] if row["chosen"])
    recipe = workshop.recipe()
    alone = fit(load_models(recipe).student_spec, "Q8_0", find_device("pi5"), Serving(recipe.chat.context))
    assert chosen["memory_bytes"] == alone.memory.total
    assert alone.speed and chosen["decode_tokens_per_s"] == pytest.approx(alone.speed.decode, abs=1e-3)


def test_options_count_for_a_recipe_too(workshop: Workshop) -> None:
    workshop.make_model("teacher", max_position_embeddings=512, num_attention_heads=2, num_key_value_heads=1)
    small, large = planned(workshop, "--context", "256"), planned(workshop, "--context", "512", "--parallel", "2")
    assert large["kv_bytes"] == 4 * small["kv_bytes"]
    assert planned(workshop, "--context", "256", "--kv-type", "q8_0")["kv_bytes"] == small["kv_bytes"] * 17 // 32
    tight = planned(workshop, "--device", "pi5", "--memory", "0.01")
    assert all("device" in row["missed"] for row in tight["quantizations"])
    assert "--context 513: the student was made for 512 tokens at most" in refused(workshop, "--context", "513")


def test_answers_that_exist_are_not_billed(workshop: Workshop) -> None:
    """Rows with answers of their own are counted apart, and the bill is for the test rows."""
    for name in ("train", "test"):
        rows = workshop.rows(f"{name}.jsonl")
        write_jsonl(workshop.folder / f"{name}.jsonl", [row | {"completion": answer(row)} for row in rows])
    count, tests = len(workshop.rows("train.jsonl")), len(workshop.rows("test.jsonl"))
    asked = planned(workshop, prices=PRICES)["cost"]
    assert (asked["rows"], asked["own"], asked["stored"]) == (count + tests, 0, 0)
    own = planned(workshop, generate={"samples": 0}, prices=PRICES)["cost"]
    assert (own["rows"], own["own"], own["stored"]) == (tests, count, 0)
    page = run("plan", str(workshop.folder / "recipe.yaml"))
    assert f"{count} more rows with answers of their own" in page and f"{tests} rows, about" in page


def answer(row: dict[str, Any]) -> Any:
    return row.get("completion") or {"role": "assistant", "content": "Done."}


def refused(workshop: Workshop, *words: str) -> str:
    done = CliRunner().invoke(main, ["plan", str(workshop.folder / "recipe.yaml"), *words])
    assert done.exit_code == 2 and done.stdout == ""
    return done.stderr


def test_a_cache_that_the_students_heads_do_not_fill_is_reported(workshop: Workshop) -> None:
    workshop.recipe()
    assert "--kv-type q8_0: the student has heads of 16" in refused(workshop, "--kv-type", "Q8_0")


def test_costs_are_compared_with_the_endpoint(workshop: Workshop) -> None:
    prices = PRICES | {"train_hour": 2.0}
    found = planned(workshop, prices=prices, target={"device": "pi5"})["cost"]
    answer = found["answer"]
    per_row = (answer["prompt_tokens"] * 2 + answer["tokens"] * 10) / 1e6
    assert answer["api_cost_per_million"] == pytest.approx(1e6 * per_row, rel=0.01)
    assert found["teacher_price"] == pytest.approx(found["rows"] * per_row, rel=0.05)
    assert answer["once"] == pytest.approx(2 * found["training"]["hours"][1], abs=1e-3)
    gain = (answer["api_cost_per_million"] - answer["cost_per_million"]) / 1e6
    assert answer["break_even_answers"] * gain == pytest.approx(answer["once"], abs=1e-3)
    assert found["training"]["memory"]["needed"] > 0 and found["assumed"]["device_hour"] == 0.003


def test_both_commands_use_the_same_words(workshop: Workshop) -> None:
    workshop.recipe(prices=PRICES, target={"device": "pi5"})
    path = str(workshop.folder / "recipe.yaml")
    text, verdict = run("plan", path), run("licences", path)
    assert verdict.startswith("May it ship: allowed with obligations")
    assert text.endswith(verdict)
    for words in ("tokens in and", "on this machine", "per million by prices", "costs 0.003 per hour"):
        assert words in text
    assert "in the currency of the prices" in text
    assert json.loads(run("licences", path, "--json")) == planned(workshop)["licences"]


def page(workshop: Workshop, *words: str, **changes: Any) -> str:
    workshop.recipe(**changes)
    return run("plan", str(workshop.folder / "recipe.yaml"), *words)


def test_a_thing_that_costs_nothing_is_there_anyway(workshop: Workshop) -> None:
    free = page(workshop, target={"device": "pi5"})
    assert "the machine that trains is there anyway" in free and "costs 0 " not in free
    paid = page(workshop, target={"device": "pi5"}, prices={"device_hour": 0.04, "train_hour": 2.5})
    assert "the device costs 0.04 per hour in which it answers;" in paid
    assert "the machine that trains costs 2.5 per hour" in paid


def test_the_memory_of_a_run_is_compared_with_the_device_that_trains(workshop: Workshop) -> None:
    """Not with this machine, which may have more or less."""
    named, process = "and Raspberry Pi Zero 2 W has", "of memory (student "
    (small,) = (n for n in planned(workshop, "--train-on", "Raspberry Pi Zero 2 W")["notes"] if named in n)
    assert process in small
    large = planned(workshop, "--train-on", "NVIDIA H100 SXM")["notes"]
    assert not any("of memory" in note for note in large)


def test_hours_are_said_in_a_unit_of_which_there_are_some(workshop: Workshop) -> None:
    quick = page(workshop, "--train-on", "NVIDIA H100 SXM")
    assert "operations: less than a minute on NVIDIA H100 SXM" in quick
    slow = page(workshop, "--train-on", "Raspberry Pi Zero 2 W", train={"epochs": 200})
    low, high = (
        60 * hours
        for hours in planned(workshop, "--train-on", "Raspberry Pi Zero 2 W", train={"epochs": 200})["cost"][
            "training"
        ]["hours"]
    )
    assert 1 < high < 60
    assert re.search(r"operations: [\d.]+ to [\d.]+ minutes on Raspberry Pi Zero 2 W", slow)
    assert "hours" not in slow and low < high


API: dict[str, Any] = {
    "teacher": {"kind": "api", "base_url": "https://example.org/v1", "model": "great-1"},
    "student": {"init": "checkpoint", "model": "teacher", "layers": None},
    "train": {"objective": "sft", "control": "none"},
    "target": {"device": "pi5"},
}


def test_an_endpoint_without_a_listed_price_says_how_to_give_one(workshop: Workshop) -> None:
    text = page(workshop, **API)
    assert "no price is listed for this model at https://example.org/v1:" in text
    assert "set prices, as {input: 2.0, output: 8.0} for 10^6 tokens of each" in text
    # and once is enough
    assert text.count("set prices") == 1
    priced = page(workshop, **API, prices=PRICES)
    assert "at the endpoint (prices)" in priced and "no price" not in priced
    # a teacher that runs here costs nothing, and has no price that could be missing
    local = page(workshop, teacher={"kind": "local", "model": "teacher", "base_url": None}, target={"device": "pi5"})
    assert "no price is listed" not in local


def test_an_endpoint_is_paid_for_the_validation_rows_too(workshop: Workshop) -> None:
    write_jsonl(workshop.folder / "validation.jsonl", light_rows(["do "])[:5])
    changes = {**API, "prices": PRICES}
    without = planned(workshop, **changes)["cost"]
    more = planned(workshop, **changes, data={"validation": "validation.jsonl"})["cost"]
    assert more["rows"] == without["rows"] + 5
    per_row = without["teacher_price"] / without["rows"]
    assert more["teacher_price"] == pytest.approx(per_row * more["rows"], rel=1e-2)
    assert more["answer"]["once"] > without["answer"]["once"]


def test_a_trimmed_vocabulary_is_counted_and_reported(workshop: Workshop) -> None:
    trimmed = {"vocabulary": "workload"}
    assert planned(workshop)["notes"] == []
    assert planned(workshop, student=trimmed)["notes"][0].startswith("student.vocabulary: sizes and memory are given")
    # the recipe's own serving stays when a row of the table is written into it
    search = ["search", str(workshop.folder / "recipe.yaml"), "--device", "pi5", "--json"]
    found = json.loads(run(*search))
    assert 256 < found["vocabulary"] <= 384
    assert all(row["student"]["vocabulary"] == "workload" for row in found["students"])


def test_the_plan_and_the_check_count_one_file(workshop: Workshop) -> None:
    recipe = workshop.recipe()
    file = check_recipe(recipe).file
    planned = load_models(recipe).student_spec.quantized(file.quantization)
    held = device_memory(planned, find_device("pi5"), Serving(256))
    assert held.weights == pytest.approx(file.bytes, abs=32 * len(planned.tensors))  # each is padded


def test_the_teachers_own_training_is_paid_before_the_first_answer(workshop: Workshop) -> None:
    target, prices = {"device": "pi5"}, {"train_hour": 1e9, **PRICES}
    tuned = {"finetune": {"rows": "train.jsonl", "epochs": 50}}
    plain, more = (
        plan_recipe(workshop.recipe(teacher=teacher, target=target, prices=prices), ON_GPU).cost
        for teacher in ({}, tuned)
    )
    operations = more.training.operations / plain.training.operations
    assert operations > 2 and more.answer and plain.answer and more.answer.once and plain.answer.once
    hours = more.training.all_hours[1] / plain.training.all_hours[1]
    assert hours > 1 and more.answer.once / plain.answer.once == pytest.approx(hours, rel=1e-3)


def test_an_answer_takes_the_slow_end_of_prompt_and_answer(workshop: Workshop) -> None:
    # so large that rounded seconds tell its ends apart; nothing of it is made
    shape = "llama:layers=24,hidden=2048,ffn=8192,heads=16"
    teacher = {"finetune": {"rows": "train.jsonl", "shape": shape}}
    found = plan_recipe(workshop.recipe(teacher=teacher, target={"device": "pi5"}), ON_GPU)
    chosen = next(row for row in found.quantizations if row.chosen)
    answer = found.cost.answer
    assert answer and chosen.ttft_seconds and chosen.decode_tokens_per_s
    (soon, late), (slow, fast) = chosen.ttft_seconds, chosen.decode_tokens_per_s
    seconds = late + answer.tokens / slow
    assert answer.seconds == pytest.approx(seconds, rel=1e-3)
    # neither a faster end nor an answer without its prompt would pass for it
    for other in (answer.tokens / slow, soon + answer.tokens / slow, late + answer.tokens / fast):
        assert other < 0.98 * seconds


def test_without_a_known_device_an_answer_is_as_slow_as_the_target_allows(workshop: Workshop) -> None:
    limits = {"device": "a board of ours", "decode_tokens_per_s": 50, "ttft_ms": 500}
    answer = plan_recipe(workshop.recipe(target=limits)).cost.answer
    assert answer and answer.seconds == pytest.approx(0.5 + answer.tokens / 50, abs=0.002)
    del limits["ttft_ms"]
    alone = plan_recipe(workshop.recipe(target=limits)).cost.answer
    assert alone and alone.seconds == pytest.approx(answer.seconds - 0.5, abs=0.002)


def test_too_little_disk_is_a_note(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: Usage(1000, 0, 1000))
    (note,) = plan_recipe(workshop.recipe(), ON_GPU).notes
    assert "MB of disk" in note
