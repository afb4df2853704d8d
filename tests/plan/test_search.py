"""Which student a device can run: consistent with `plan` on the same shape, monotone in memory, quick."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.cli import main
from potstill.errors import UsageError
from potstill.plan.devices import find_device
from potstill.plan.fit import FITS, Wish, fit
from potstill.plan.limits import Limits
from potstill.plan.search import Goal, cuts, frontier, search
from potstill.plan.source import load_anatomy, load_config, shape_words, words_config

CONFIGS = Path(__file__).parent / "configs"
TEACHERS = ("qwen3-4b", "llama-3.1-8b", "qwen2.5-72b")
DEVICES = {"Raspberry Pi 5": 1.0, "Phone LPDDR4X 4GB": None, "RTX 3060": None}


def teacher(name: str) -> dict[str, Any]:
    return load_config(str(CONFIGS / f"{name}.json"))


def device(name: str) -> Any:
    memory = DEVICES[name]
    found = find_device(name)
    return found.with_memory(memory * 1e9) if memory else found


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("name", TEACHERS)
def test_what_is_found_is_what_plan_says_of_its_shape(name: str, where: str) -> None:
    goal = Goal(device(where), Wish(2048), Limits(decode=10.0))
    begun = time.process_time()
    found = search(teacher(name), goal)
    assert time.process_time() - begun < 2  # of the processor: a busy machine would make a clock unjust
    assert found
    shown = frontier(found)
    assert shown[0] == found[0]
    for one in shown:
        planned = fit(load_anatomy(one.shape), one.anatomy.quantization or "", goal.device, goal.wish)
        assert planned.verdict == FITS
        # Llama 3's table of rope divisors is not in a shape's words: a quarter of a kilobyte
        assert planned.memory.needed == pytest.approx(one.memory.needed, rel=1e-6)
        assert planned.speed is not None
        assert planned.speed.decode == pytest.approx(one.speed.decode, rel=1e-5)
        assert one.speed.decode[0] >= 10
        assert 0 < one.kept <= 1
    rates = [one.speed.decode[0] for one in shown]
    assert all(after >= 1.1 * before for before, after in itertools.pairwise(rates))
    assert [one.kept for one in shown] == sorted((one.kept for one in shown), reverse=True)


def test_a_card_takes_the_whole_teacher_and_a_small_board_does_not() -> None:
    on_card = search(teacher("qwen3-4b"), Goal(device("RTX 3060"), Wish(2048)))[0]
    assert on_card.kept == 1
    on_board = search(teacher("qwen3-4b"), Goal(device("Raspberry Pi 5"), Wish(2048)))[0]
    assert on_board.kept < 0.5
    assert on_board.memory.needed <= 1e9


@settings(max_examples=15, deadline=None)
@given(gigabytes=st.floats(0.3, 6), more=st.floats(1, 4), vocabulary=st.sampled_from([None, 8000]))
def test_more_memory_never_removes_a_student(gigabytes: float, more: float, vocabulary: int | None) -> None:
    def students(memory: float) -> set[tuple[str, str | None]]:
        goal = Goal(find_device("Raspberry Pi 5").with_memory(memory * 1e9), Wish(1024))
        found = search(teacher("qwen3-0.6b"), goal, vocabulary=vocabulary)
        return {(one.shape, one.anatomy.quantization) for one in found}

    assert students(gigabytes) <= students(gigabytes * more)


def test_cuts_are_shapes_a_recipe_can_ask_for() -> None:
    config = teacher("qwen3-4b")
    made = list(cuts(config, vocabulary=20_000))
    assert len({shape_words(one) for one, _ in made}) == len(made) > 100
    for one, student in made:
        assert one["hidden_size"] % 256 == 0
        assert one["intermediate_size"] % 256 == 0
        # the ratio of query to key-value heads is the teacher's
        assert one["num_attention_heads"] * config["num_key_value_heads"] == (
            one["num_key_value_heads"] * config["num_attention_heads"]
        )
        assert set(student) <= {"init", "layers", "ffn", "hidden", "kv_heads"}
        assert len(student) > 1
        assert one["vocab_size"] == 20_000
        assert shape_words(words_config(shape_words(one))) == shape_words(one)


def test_a_trimmed_vocabulary_lets_a_larger_student_in_and_is_written() -> None:
    goal = Goal(find_device("Raspberry Pi 5").with_memory(0.4e9), Wish(512))
    config = teacher("qwen3-0.6b")
    full, trimmed = (
        [one for one in search(config, goal, vocabulary=size) if one.origin == "teacher"] for size in (None, 8000)
    )
    assert max(one.kept for one in trimmed) > max((one.kept for one in full), default=0.0)
    assert {one.student["vocabulary"] for one in trimmed} == {"workload"}
    assert not any("vocabulary" in one.student for one in full)


def test_only_models_of_the_same_tokenizer_can_be_compared_with_their_teacher() -> None:
    goal = Goal(device("RTX 3060"), Wish(2048))
    for name, family in (("qwen2.5-72b", "Qwen/"), ("llama-3.1-8b", "meta-llama/")):
        known = {one.origin for one in search(teacher(name), goal, same_tokenizer=True)} - {"teacher"}
        assert known and all(origin.startswith(family) for origin in known)
        assert {one.origin for one in search(teacher(name), goal)} > known
    # its licence goes with it, so that the verdict on the written recipe is not "unknown"
    assert all(one.student["license"] for one in search(teacher("qwen3-4b"), goal) if one.origin != "teacher")


def test_a_mixture_of_experts_is_told() -> None:
    with pytest.raises(UsageError, match="cannot be cut from Qwen3MoeForCausalLM"):
        search(teacher("qwen3-30b-a3b"), Goal(find_device("RTX 3060")))


def run(*words: str) -> Any:
    return CliRunner().invoke(main, ["plan", *words])


def test_nothing_that_fits_is_refused_with_what_was_asked() -> None:
    model = str(CONFIGS / "qwen3-4b.json")
    done = run(model, "--search", "--device", "Raspberry Pi 5", "--decode", "5000")
    assert done.exit_code == 2
    assert "5000 tokens/s" in done.output
    assert "--memory" in done.output


def test_the_table_and_its_json_agree() -> None:
    words = [str(CONFIGS / "llama-3.1-8b.json"), "--search", "--device", "Raspberry Pi 5", "--context", "2048"]
    found = json.loads(run(*words, "--json").output)
    table = run(*words).output
    assert len(found["students"]) <= 12
    assert f"{found['feasible']} students would do" in table
    assert found["students"][0]["quantization"] in table


def test_write_puts_a_row_into_the_recipe_and_leaves_the_rest(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
    recipe = tmp_path / "recipe.yaml"
    text = source.read_text().replace("../examples", str(source.parents[1] / "examples"))
    recipe.write_text(text)
    words = [str(recipe), "--search", "--device", "Raspberry Pi 5"]
    rows = json.loads(run(*words, "--json").output)["students"]
    done = run(*words, "--write", "2")
    assert done.exit_code == 0, done.output
    after = yaml.safe_load(recipe.read_text())
    assert after["student"] == rows[1]["student"]
    assert after["export"]["quantization"] == rows[1]["quantization"]
    before = yaml.safe_load(text)
    assert {k: v for k, v in after.items() if k not in ("student", "export")} == {
        k: v for k, v in before.items() if k not in ("student", "export")
    }
    assert text.splitlines()[0] in recipe.read_text()
    assert run(*words, "--write", "99").exit_code == 2
