"""What `potstill fit` plans where nothing is chosen, and what it says about a publisher's own files."""

from __future__ import annotations

import pytest

from fixtures import CONFIGS
from potstill.apps.plan.fit import FitOptions, FitReport, fit_model


def report(name: str, *quantizations: str) -> FitReport:
    (one,) = fit_model(str(CONFIGS / f"{name}.json"), FitOptions(devices=("RTX 4090",), quantizations=quantizations))
    return one


def test_gpt_oss_is_planned_in_the_type_of_its_publisher() -> None:
    """The published files have 12.1 GB (github.com/AlexsJones/llmfit, pull request 1059)."""
    planned = report("gpt-oss-20b")
    assert planned.quantization == "MXFP4_MOE"
    assert planned.file_bytes == pytest.approx(12.1e9, rel=0.005)
    assert report("gpt-oss-20b", "Q4_K_M").quantization == "Q4_K_M"
    assert report("qwen3-30b-a3b").quantization == "Q4_K_M"


@pytest.mark.parametrize(("quantization", "published"), [("Q8_0", 1_894_532_128), ("Q4_K_M", 1_117_320_736)])
def test_the_output_matrix_in_qwens_own_files_is_named(quantization: str, published: int) -> None:
    """Sizes of the files in Qwen/Qwen2.5-1.5B-Instruct-GGUF; its config.json ties the matrix to the embedding."""
    planned = report("qwen2.5-1.5b", quantization)
    more = {"Q8_0": 248.0, "Q4_K_M": 131.3}[quantization]
    (warning,) = planned.warnings
    assert f"hold a separate output matrix, {more} MB more in {quantization}" in warning
    assert planned.file_bytes + more * 1e6 == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize("name", ["qwen2.5-7b", "qwen3-4b"])
def test_a_model_whose_files_are_as_its_config_says_has_no_warning(name: str) -> None:
    assert report(name).warnings == ()
