"""The divergences that a recipe can name are those that the losses have, with the same parameters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from potstill.components.losses import divergences
from potstill.components.losses.divergences import DIVERGENCES
from potstill.components.losses.kernels import row_kernel
from potstill.components.losses.rows import RowSpec, TorchRows
from potstill.core import recipe


def test_every_objective_of_the_recipe_has_its_losses() -> None:
    named = {name for kind in recipe.DIVERGENCES.values() for name in kind.model_validate(_minimal(kind)).losses}
    assert named == set(DIVERGENCES)


def _minimal(kind: type[recipe.Divergence]) -> dict[str, str]:
    return {"name": next(name for name, other in recipe.DIVERGENCES.items() if other is kind)}


@pytest.mark.parametrize("name", recipe.DIVERGENCES)
def test_parameters_and_their_defaults_agree(name: str) -> None:
    objective = recipe.DIVERGENCES[name].model_validate({"name": name})
    for loss in objective.losses:
        assert objective.parameters == DIVERGENCES[loss].parameters


@pytest.mark.parametrize("name", recipe.DIVERGENCES)
def test_a_value_that_the_recipe_accepts_is_one_that_the_loss_accepts(name: str) -> None:
    kind = recipe.DIVERGENCES[name]
    for parameter in kind.model_validate({"name": name}).parameters:
        for value in (0.01, 0.5, 0.99):
            objective = kind.model_validate({"name": name, parameter: value})
            for loss in objective.losses:
                assert RowSpec.of(loss, objective.parameters).objective == loss


def test_only_forward_kl_is_built_into_the_compiled_kernel() -> None:
    assert [name for name, divergence in DIVERGENCES.items() if divergence.terms is None] == ["forward_kl"]


def test_triton_has_a_case_for_each_number() -> None:
    source = (Path(divergences.__file__).parent / "triton_rows.py").read_text()
    cases = {int(number) for number in re.findall(r"OBJECTIVE == (\d)", source)}
    numbers = [divergence.triton for divergence in DIVERGENCES.values() if divergence.triton is not None]
    # one number is the last case, without a comparison
    assert len(numbers) == len(set(numbers)) and len(set(numbers) - cases) == 1


def test_a_divergence_that_triton_does_not_have_runs_in_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    other = divergences.Divergence(divergences._reverse_kl, divergences._no_mixture, divergences._reverse_kl_terms)
    monkeypatch.setitem(DIVERGENCES, "other", other)
    assert isinstance(row_kernel("triton", RowSpec.of("other"), torch.device("cpu")), TorchRows)
