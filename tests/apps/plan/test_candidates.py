"""Candidates for a student: consistent with `fit` on the same shape, and monotone in memory."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import CONFIGS
from potstill.apps.plan.candidates import (
    BANDS,
    Goal,
    cuts,
    fastest_of_each_size,
    teacher_quantizations,
)
from potstill.apps.plan.candidates import feasible_candidates as search
from potstill.components.hardware.devices import find_device
from potstill.components.hardware.fit import FITS, Serving, fit
from potstill.components.models.shapes import shape_of, shape_to_config
from potstill.components.models.source import load_config, load_spec
from potstill.components.sizing.limits import Limits
from potstill.core.errors import UsageError

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
    goal = Goal(device(where), Serving(2048), Limits(decode=10.0))
    found = search(teacher(name), goal)
    assert found
    shown = fastest_of_each_size(found)
    assert shown[0] == found[0]
    for one in shown:
        planned = fit(load_spec(one.shape), one.spec.quantization or "", goal.device, goal.serving)
        assert planned.verdict == FITS
        assert planned.memory == one.memory
        assert planned.speed == one.speed
        assert one.speed.decode[0] >= 10
        assert 0 < one.kept <= 1
    rates = [one.speed.decode[0] for one in shown]
    assert all(after >= 1.1 * before for before, after in itertools.pairwise(rates))
    assert [one.value for one in shown] == sorted((one.value for one in shown), reverse=True)


def test_a_card_takes_the_whole_teacher_and_a_small_board_does_not() -> None:
    config = teacher("qwen3-4b")
    card, board = (Goal(device(name), Serving(2048)) for name in ("RTX 3060", "Raspberry Pi 5"))
    assert teacher_quantizations(config, card) == ["Q8_0", "Q6_K", "Q4_K_M"]
    assert teacher_quantizations(config, board) == []
    # the teacher is no student of itself
    found = search(config, card)
    assert 0.8 < max(one.kept for one in found) < 1
    assert not any(one.student == {"init": "teacher_layers", "layers": 36} for one in found)
    on_board = search(config, board)[0]
    assert on_board.kept < 0.5
    assert on_board.memory.needed <= 1e9


@settings(max_examples=15, deadline=None)
@given(gigabytes=st.floats(0.3, 6), more=st.floats(1, 4), vocabulary=st.sampled_from([None, 8000]))
def test_more_memory_never_removes_a_student(gigabytes: float, more: float, vocabulary: int | None) -> None:
    def students(memory: float) -> set[tuple[str, str | None]]:
        goal = Goal(find_device("Raspberry Pi 5").with_memory(memory * 1e9), Serving(1024))
        found = search(teacher("qwen3-0.6b"), goal, vocabulary=vocabulary)
        return {(one.shape, one.spec.quantization) for one in found}

    assert students(gigabytes) <= students(gigabytes * more)


def test_cuts_are_shapes_a_recipe_can_ask_for() -> None:
    config = teacher("qwen3-4b")
    made = list(cuts(config, vocabulary=20_000))
    assert len({shape_of(one) for one, _ in made}) == len(made) > 100
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
        assert shape_of(shape_to_config(shape_of(one))) == shape_of(one)


def test_a_trimmed_vocabulary_lets_a_larger_student_in_and_is_written() -> None:
    goal = Goal(find_device("Raspberry Pi 5").with_memory(0.4e9), Serving(512))
    config = teacher("qwen3-0.6b")
    full, trimmed = (
        [one for one in search(config, goal, vocabulary=size) if one.origin == "teacher"] for size in (None, 8000)
    )
    assert max(one.kept for one in trimmed) > max((one.kept for one in full), default=0.0)
    assert {one.student["vocabulary"] for one in trimmed} == {"workload"}
    assert not any("vocabulary" in one.student for one in full)


def test_a_whole_teacher_of_fewer_tokens_is_a_student() -> None:
    goal = Goal(find_device("Raspberry Pi 5"), Serving(512))
    largest = search(teacher("qwen3-0.6b"), goal, vocabulary=8000)[0]
    assert (largest.kept, largest.id) == (1, "layers=28/Q8_0")
    # a known model is not given tokens that it has not
    small = search(teacher("qwen3-4b"), goal, vocabulary=100_000)
    assert {one.spec.vocab for one in small if "SmolLM2" in one.origin} == {49152}
    assert {one.spec.vocab for one in small if "SmolLM2" not in one.origin} == {100_000}


def test_only_models_of_the_same_tokenizer_can_be_compared_with_their_teacher() -> None:
    goal = Goal(device("RTX 3060"), Serving(2048))
    # Qwen3 and Qwen2.5 have vocabularies of one size, and cut text differently
    families = {"qwen2.5-72b": "Qwen/Qwen2.5", "qwen3-4b": "Qwen/Qwen3", "llama-3.1-8b": "meta-llama/"}
    for name, family in families.items():
        known = {one.origin for one in search(teacher(name), goal, same_tokenizer=True)} - {"teacher"}
        assert known and all(origin.startswith(family) for origin in known)
        assert {one.origin for one in search(teacher(name), goal)} > known
    # of a tokenizer that nothing is known of, none is the same
    own = {**teacher("llama-3.1-8b"), "vocab_size": 32000}
    assert {one.origin for one in search(own, goal, same_tokenizer=True)} == {"teacher"}
    # its licence goes with it, so that the verdict on the written recipe is not "unknown"
    assert all(one.student["license"] for one in search(teacher("qwen3-4b"), goal) if one.origin != "teacher")


def test_a_mixture_of_experts_is_reported() -> None:
    with pytest.raises(UsageError, match="cannot be cut from Qwen3MoeForCausalLM"):
        search(teacher("qwen3-30b-a3b"), Goal(find_device("RTX 3060")))


# ---- what to expect ----


def test_more_parameters_never_lower_the_band() -> None:
    goal = Goal(find_device("NVIDIA A100 80GB"), Serving(512))
    for name in TEACHERS:
        found = search(teacher(name), goal, quantizations=("Q4_0",))
        for kind in (True, False):
            mine = sorted(
                (one for one in found if (one.origin == "teacher") is kind), key=lambda one: one.spec.block_parameters
            )
            ranks = [BANDS.index(one.band) for one in mine]
            assert ranks == sorted(ranks, reverse=True)
            assert len(set(ranks)) > 1
        # and best comes first, whatever it was made of
        ranks = [BANDS.index(one.band) for one in found]
        assert ranks == sorted(ranks)


def test_a_model_that_was_trained_stands_above_a_cut_that_has_lost_most() -> None:
    goal = Goal(find_device("RTX 3060"), Serving(512))
    found = {one.id: one for one in search(teacher("llama-3.1-8b"), goal)}
    half, eighth = found["layers=16/Q4_K_M"], found["layers=4/Q4_K_M"]
    trained = found["Qwen/Qwen2.5-0.5B-Instruct/Q4_K_M"]
    assert eighth.spec.block_parameters > 2 * trained.spec.block_parameters
    assert eighth.value < trained.value
    # what keeps half of its teacher counts in full
    assert half.value == half.spec.block_parameters


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen3-1.7B", "HuggingFaceTB/SmolLM2-1.7B-Instruct"]
)
def test_a_known_model_of_1_5_billion_is_no_less_for_a_large_teacher(name: str) -> None:
    found = search(teacher("qwen2.5-72b"), Goal(find_device("RTX 3060"), Serving(512)))
    assert {BANDS.index(one.band) for one in found if one.origin == name} == {1}


# ---- what is asked ----


def test_no_student_has_a_longer_context_than_it_was_made_for() -> None:
    config, card = teacher("llama-3.1-8b"), find_device("NVIDIA A100 80GB")
    origins = {
        context: {one.origin for one in search(config, Goal(card, Serving(context)), quantizations=("Q4_K_M",))}
        for context in (8192, 8193, 40960, 40961)
    }
    small, qwen3, llama = "HuggingFaceTB/SmolLM2-135M-Instruct", "Qwen/Qwen3-0.6B", "meta-llama/Llama-3.2-1B-Instruct"
    assert {small, qwen3, llama, "teacher"} <= origins[8192]
    assert small not in origins[8193] and qwen3 in origins[40960]
    assert qwen3 not in origins[40961] and {llama, "teacher"} <= origins[40961]
    with pytest.raises(UsageError, match="the teacher was made for 131,072 tokens at most"):
        search(config, Goal(card, Serving(131_073)))


def test_a_cache_that_no_head_fills_leaves_a_student_out() -> None:
    odd = shape_to_config("llama:layers=8,hidden=1536,ffn=4096,heads=32,kv_heads=8,vocab=49152,tied=1,context=4096")
    goal = Goal(find_device("RTX 3060"), Serving(512, "q8_0"))  # heads of 48
    found = search(odd, goal)
    assert found and all(one.origin != "teacher" for one in found)
    assert "teacher" in {one.origin for one in search(odd, replace(goal, serving=Serving(512)))}
    assert teacher_quantizations(odd, goal) == []


def test_only_the_quantizations_that_are_asked_are_looked_at() -> None:
    goal = Goal(find_device("RTX 3060"), Serving(512))
    asked = {one.spec.quantization for one in search(teacher("qwen3-4b"), goal, quantizations=("Q5_K_M", "F16"))}
    assert asked == {"Q5_K_M", "F16"}
    assert {one.spec.quantization for one in search(teacher("qwen3-4b"), goal)} == {
        "Q8_0",
        "Q6_K",
        "Q4_K_M",
    }


def test_an_id_is_one_students_own() -> None:
    found = search(teacher("llama-3.1-8b"), Goal(find_device("RTX 3060"), Serving(512)))
    assert len({one.id for one in found}) == len(found) > 500
    assert all(re.fullmatch(r"[A-Za-z0-9=,./_-]{5,60}", one.id) for one in found)
    everything = fastest_of_each_size(found, 1.0)
    assert len(everything) > 2 * len(fastest_of_each_size(found)) > 20
    # nobody of more worth is faster
    for one in everything:
        assert all(better.speed.decode[0] < one.speed.decode[0] for better in found[: found.index(one)])
