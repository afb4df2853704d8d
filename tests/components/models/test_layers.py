"""Even spacing of layers: known choices, and what holds for all numbers of layers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.components.models.layers import even_layers


@pytest.mark.parametrize(
    ("total", "keep", "chosen"),
    [
        (12, 6, (0, 2, 4, 7, 9, 11)),  # DistilBERT
        (7, 2, (0, 6)),
        (5, 5, (0, 1, 2, 3, 4)),
        (6, 3, (0, 2, 5)),  # a half is rounded to the even number
        (9, 1, (0,)),
        (2, 4, (0, 0, 1, 1)),
    ],
)
def test_known_choices(total: int, keep: int, chosen: tuple[int, ...]) -> None:
    assert even_layers(total, keep) == chosen


@given(total=st.integers(1, 200), keep=st.integers(2, 200))
def test_gaps_are_even_and_span_the_model(total: int, keep: int) -> None:
    chosen = even_layers(total, keep)
    assert (len(chosen), chosen[0], chosen[-1]) == (keep, 0, total - 1)
    gaps = [after - before for before, after in itertools.pairwise(chosen)]
    assert max(gaps) - min(gaps) <= 1
    assert min(gaps) >= (1 if keep <= total else 0)


@pytest.mark.parametrize(("total", "keep"), [(0, 1), (3, 0)])
def test_no_layers_are_rejected(total: int, keep: int) -> None:
    with pytest.raises(ValueError, match=f"cannot keep {keep} of {total} layers"):
        even_layers(total, keep)
