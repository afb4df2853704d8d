"""Packing: every row appears once, rows do not attend to each other, and the loss is that of rows run one by one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from potstill.components.chat.format import Example
from potstill.components.training.batches import (
    _GROUP_COST,
    _LENGTH_STEP,
    count_tokens,
    length_groups,
    pack,
    plan_steps,
    token_batches,
)

LENGTHS = st.lists(st.integers(2, 300), min_size=1, max_size=60)


def example(length: int, seed: int = 0) -> Example:
    ids = np.random.default_rng(seed).integers(3, 300, length)
    return Example(tuple(ids.tolist()), max(1, length // 2), True)


def parted(lengths: list[int]) -> Iterator[list[list[int]]]:
    """All ways to split a list into consecutive parts."""
    for cuts in itertools.product((False, True), repeat=len(lengths) - 1):
        runs = [[lengths[0]]]
        for cut, length in zip(cuts, lengths[1:], strict=True):
            runs.append([length]) if cut else runs[-1].append(length)
        yield runs


@given(lengths=st.lists(st.sampled_from([5, 16, 20, 90, 91, 300]), min_size=1, max_size=9))
def test_groups_are_the_cheapest_of_all_splits(lengths: list[int]) -> None:
    rounded = [-(-n // _LENGTH_STEP) * _LENGTH_STEP for n in sorted(lengths, reverse=True)]

    def cost(groups: Iterable[tuple[int, int]]) -> int:
        groups = list(groups)
        return sum(rows * width for rows, width in groups) - sum(rounded) + _GROUP_COST * len(groups)

    found = length_groups(sorted(lengths, reverse=True))
    assert sum(rows for rows, _ in found) == len(lengths)
    assert cost(found) == min(cost((len(run), run[0]) for run in runs) for runs in parted(rounded))


@given(lengths=LENGTHS, budget=st.integers(1, 600), shuffled=st.booleans())
def test_every_row_is_in_one_batch_under_the_budget(lengths: list[int], budget: int, shuffled: bool) -> None:
    batches = token_batches(lengths, budget, np.random.default_rng(0) if shuffled else None)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert sum(lengths[i] for i in batch) <= budget or len(batch) == 1


def few_sizes(places: int) -> int:
    """The number of which the places of a batch are a multiple."""
    return min(256, max(8, 2 ** ((places - 1).bit_length() - 5)))


@given(lengths=LENGTHS)
def test_packing_keeps_every_row_whole_and_separate(lengths: list[int]) -> None:
    examples = [example(n, seed) for seed, n in enumerate(lengths)]
    batch = pack(examples, pad_id=0)
    flat = batch.input_ids.flatten().tolist()
    assert sorted(batch.labels.tolist()) == sorted(i for e in examples for i in e.ids[e.n_prompt :])
    # the label of each supervised place is the next token
    assert [flat[p + 1] for p in batch.positions.tolist()] == batch.labels.tolist()
    # every row is contiguous, with positions from 0, in a group as wide as its longest row
    places = [w for rows, w in batch.layout.groups for _ in range(rows)]
    starts = np.cumsum([0, *places[:-1]]).tolist()
    rows = [flat[start : start + width] for start, width in zip(starts, places, strict=True)]
    assert sorted(filter(any, (tuple(i for i in row if i) for row in rows))) == sorted(e.ids for e in examples)
    assert batch.position_ids[0].tolist() == [i for width in places for i in range(width)]
    # tensors have few sizes: at most 16 up to each power of two, with little padding
    total = sum(places)
    assert total % few_sizes(total) == 0
    used = sum(width for width, row in zip(places, rows, strict=True) if any(row))
    assert total - used < max(8, used / 16)
    groups = [(rows, width) for rows, width in batch.layout.groups if rows > 1 or width % 8 == 0]
    # and the split is never worse than one group for all rows, or one per row
    cost = sum(rows * width for rows, width in groups) + 32 * len(groups)
    rounded = [-(-n // 8) * 8 for n in lengths]
    assert cost - 255 - 32 <= min(max(rounded) * len(rounded) + 32, sum(rounded) + 32 * len(rounded))


def test_plan_is_the_same_for_a_seed_and_differs_between_epochs() -> None:
    lengths = list(range(10, 60))
    plan = plan_steps(lengths, 200, 2, 2.0, seed=1)
    assert plan == plan_steps(lengths, 200, 2, 2.0, seed=1)
    assert plan != plan_steps(lengths, 200, 2, 2.0, seed=2)
    half = len(plan) // 2
    assert plan[:half] != plan[half : 2 * half]
    assert all(len(step) == 2 for step in plan[:-1])


def test_rows_that_do_not_fill_the_last_step_are_trained_on() -> None:
    plan = plan_steps([100] * 20, 128, 11, 1.0, seed=0)
    assert [len(step) for step in plan] == [11, 9]
    assert sorted(i for step in plan for batch in step for i in batch) == list(range(20))


@given(lengths=LENGTHS, per_step=st.integers(1, 7), epochs=st.integers(1, 3))
def test_every_row_is_trained_on_once_per_epoch(lengths: list[int], per_step: int, epochs: int) -> None:
    plan = plan_steps(lengths, 300, per_step, epochs, seed=3)
    assert sorted(i for step in plan for batch in step for i in batch) == sorted([*range(len(lengths))] * epochs)
    assert all(len(step) == per_step for step in plan[:-1])


def test_a_fractional_epoch_ends_early() -> None:
    lengths = [10] * 100
    assert len(plan_steps(lengths, 100, 1, 0.3, seed=0)) == 3
    assert len(plan_steps(lengths, 100, 1, 1.5, seed=0)) == 15


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_packed_rows_answer_as_they_do_alone(tmp_path: Path, architecture: str) -> None:
    from fixtures import make_model
    from potstill.components.runtimes.load import load_causal_lm
    from potstill.components.training.attention import grouped_attention
    from potstill.components.training.forward import hidden_states

    model = load_causal_lm(make_model(tmp_path, architecture=architecture)).eval()
    # in descending order of length, which is the order of packing
    examples = [example(n, seed) for seed, n in enumerate([90, 60, 58, 31, 12, 12, 7])]
    batch = pack(examples, pad_id=0)
    assert len(batch.layout.groups) < len(examples)  # some share a group
    with torch.no_grad():
        with grouped_attention(model):
            together = hidden_states(model, batch)
        alone = []
        for e in examples:
            hidden = model.base_model(torch.tensor([e.ids])).last_hidden_state[0]
            alone.append(hidden[e.n_prompt - 1 : -1])
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-5, rtol=0)


def with_prefix(length: int, seed: int, prefix: tuple[int, ...]) -> Example:
    own = example(length, seed)
    return Example(prefix + own.ids, len(prefix) + own.n_prompt, True)


@given(lengths=LENGTHS, prefix=st.lists(st.integers(3, 300), max_size=80).map(tuple))
def test_a_prefix_of_all_rows_is_stored_once(lengths: list[int], prefix: tuple[int, ...]) -> None:
    examples = [with_prefix(n, seed, prefix) for seed, n in enumerate(lengths)]
    batch = pack(examples, pad_id=0)
    flat, layout = batch.input_ids.flatten().tolist(), batch.layout
    assert sum(layout.sizes) == len(flat) == batch.position_ids.shape[1]
    assert len(flat) % few_sizes(len(flat)) == 0
    assert len(flat) <= pack(examples, pad_id=0, share_prefix=False).input_ids.shape[1]
    # if it pays off, and never with a supervised place in it
    assert layout.prefix >= len(prefix) or (len(lengths) - 1) * len(prefix) <= 32
    assert batch.positions.min() >= layout.prefix
    assert [flat[p + 1] for p in batch.positions.tolist()] == batch.labels.tolist()
    starts = np.cumsum(layout.sizes).tolist()
    found = []
    for start, (rows, width) in zip(starts, layout.groups, strict=False):
        for row in range(rows):
            at = start + row * width
            assert batch.position_ids[0, at : at + width].tolist() == list(range(layout.prefix, layout.prefix + width))
            found.append(tuple(i for i in flat[: layout.prefix] + flat[at : at + width] if i))
    assert {e.ids for e in examples} <= set(found)
    # every token once, and no padding
    assert len(batch.tokens) == count_tokens(examples) == len(set(batch.tokens.tolist()))
    rests = [i for e in examples for i in e.ids[layout.prefix :]]
    assert sorted(flat[t] for t in batch.tokens.tolist()) == sorted([*flat[: layout.prefix], *rests])


@pytest.mark.parametrize("window", [None, 24])
def test_a_shared_prefix_changes_neither_answers_nor_gradients(tmp_path: Path, window: int | None) -> None:
    from fixtures import make_model
    from potstill.components.runtimes.load import load_causal_lm
    from potstill.components.training.attention import grouped_attention
    from potstill.components.training.forward import hidden_states

    prefix = tuple(range(10, 50))
    examples = [with_prefix(n, seed, prefix) for seed, n in enumerate([90, 60, 58, 31, 12, 12, 7])]
    folder = make_model(tmp_path, architecture="qwen2")  # which passes its window to attention

    def run(dtype: torch.dtype, share: bool) -> tuple[torch.Tensor, torch.Tensor]:
        model = load_causal_lm(folder).to(dtype)
        for layer in model.base_model.layers:
            layer.self_attn.sliding_window = window
        batch = pack(examples, 0, share_prefix=share)
        assert (batch.layout.prefix > 0) is share
        with grouped_attention(model):
            hidden = hidden_states(model, batch).float()
        hidden.square().sum().backward()
        gradients = [p.grad.float().flatten() for p in model.base_model.parameters() if p.grad is not None]
        return hidden.detach(), torch.cat(gradients)

    exact = run(torch.float32, share=False)
    for shared, alone in zip(run(torch.float32, share=True), exact, strict=True):
        torch.testing.assert_close(shared, alone, atol=2e-5 * float(alone.abs().max()), rtol=0)
    # bf16 rounds as much with a shared prefix as without
    for shared, apart, alone in zip(run(torch.bfloat16, True), run(torch.bfloat16, False), exact, strict=True):
        assert (shared - alone).norm() <= 1.3 * (apart - alone).norm()
