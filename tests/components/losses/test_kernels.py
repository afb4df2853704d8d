"""The other row kernels against the same oracle as plain torch: torch.compile, and Triton in its interpreter."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
from typing import Any

import pytest
import torch

from components.losses.oracle import OBJECTIVES, error, gradients, problem
from components.losses.oracle import loss as oracle_loss
from potstill.components.losses.compiled import CompiledRows
from potstill.components.losses.divergence import linear_divergence
from potstill.components.losses.kernels import row_kernel
from potstill.components.losses.rows import RowSpec, TorchRows

HAS_TRITON = importlib.util.find_spec("triton") is not None
N, V = 5, 23


def check(kernel: str, options: dict[str, Any], n: int = N) -> None:
    x = problem(n, V, pad=3)
    x["labels"][::3] = -100
    options = {"vocab_size": V, "weights_N": torch.rand(n, generator=torch.Generator().manual_seed(1))} | options
    want, want_gradients = gradients(x, lambda y: oracle_loss(y, **options))
    got, got_gradients = gradients(x, lambda y: linear_divergence(
        y["student"], y["head"], y["labels"], teacher_NG=y["teacher"], teacher_head_VG=y["teacher_head"],
        kernel=kernel, chunk_tokens=3, **options))  # type: ignore[arg-type]  # fmt: skip
    for name in ("loss", "divergence", "cross_entropy"):
        assert getattr(got, name).item() == pytest.approx(want[name].item(), rel=1e-5, abs=1e-4), name
    for name in ("student", "head"):
        assert error(got_gradients[name], want_gradients[name]) < 2e-5, name


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton on a CPU, in blocks that do not divide the vocabulary."""
    if not HAS_TRITON:
        pytest.skip("Triton is not installed: its row kernel is not tested")
    from potstill.components.losses import triton_rows

    monkeypatch.setattr(triton_rows.TritonRows.__init__, "__defaults__", (8,))


@pytest.mark.parametrize(("temperature", "hard"), [(1.0, 0.0), (2.0, 0.3)])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_triton(objective: str, temperature: float, hard: float, interpreted: None) -> None:
    check("triton", {"objective": objective, "temperature": temperature, "hard_label_weight": hard})


def test_triton_with_soft_caps_and_without_a_teacher(interpreted: None) -> None:
    check("triton", {"student_softcap": 3.0, "teacher_softcap": 4.0, "objective": "jsd", "weights_N": None})
    x = problem(N, V)
    sums, got = gradients(x, lambda y: linear_divergence(y["student"], y["head"], y["labels"], kernel="triton"))
    _, want = gradients(x, lambda y: oracle_loss(y, hard_label_weight=1.0))
    assert sums.divergence.item() == 0
    assert error(got["head"], want["head"]) < 2e-5


def test_triton_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="Triton is not installed"):
        row_kernel("triton", RowSpec(), torch.device("cpu"))


def test_auto_is_plain_torch_on_a_cpu() -> None:
    assert isinstance(row_kernel("auto", RowSpec(), torch.device("cpu")), TorchRows)


@pytest.mark.parametrize(("temperature", "hard", "cap"), [(1.0, 0.0, None), (2.0, 0.3, 3.0)])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_expression_that_is_compiled(
    objective: str, temperature: float, hard: float, cap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every objective as an expression, run by torch itself; the compiler's own work is the next test's."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(CompiledRows, "_compiled", None)
    monkeypatch.setattr(CompiledRows, "_broken", False)
    check("compile", {
        "objective": objective, "temperature": temperature, "hard_label_weight": hard, "student_softcap": cap,
        "teacher_softcap": cap,
    })  # fmt: skip


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: torch.compile is not tested")
# the compiler's own modules warn when they are first loaded
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_once_for_chunks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompiledRows, "_compiled", None)
    monkeypatch.setattr(CompiledRows, "_broken", False)
    torch._dynamo.reset()
    from torch._dynamo.utils import counters

    counters.clear()
    for n, temperature in itertools.product((5, 9), (2.0, 3.0)):
        check("compile", {"objective": "jsd", "hard_label_weight": 0.3, "temperature": temperature}, n=n)
    assert not CompiledRows._broken
    assert counters["stats"]["unique_graphs"] == 1


def test_a_compiler_that_fails_is_told_and_plain_torch_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise RuntimeError("no C++ compiler found\nand much more")

    monkeypatch.setattr(CompiledRows, "_compiled", broken)
    monkeypatch.setattr(CompiledRows, "_broken", False)
    with pytest.warns(RuntimeWarning, match=r"torch.compile failed \(no C\+\+ compiler found\).*plain torch"):
        check("compile", {"objective": "jsd"})
    check("compile", {"objective": "jsd"})  # said once
