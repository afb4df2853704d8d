"""The models that evaluate asks, as runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from potstill.stages.evaluate.stage import EvaluateInputs

if TYPE_CHECKING:
    from potstill.components.runtimes.endpoint import EndpointRuntime
    from potstill.components.runtimes.hf import HFRuntime
    from potstill.core.recipe import Offload

__all__ = ["local_runtime", "teacher_runtime"]


def teacher_runtime(inputs: EvaluateInputs) -> HFRuntime | EndpointRuntime:
    """The teacher, loaded from its weights or behind its endpoint."""
    teacher = inputs.teacher
    if teacher.kind == "local":
        assert inputs.weights is not None
        return local_runtime(inputs, inputs.weights.path, teacher.dtype, teacher.offload)
    from potstill.components.runtimes.endpoint import EndpointRuntime

    return EndpointRuntime(teacher.base_url, teacher.model, teacher.api_key_env, teacher.max_concurrency)


def local_runtime(
    inputs: EvaluateInputs, folder: Path, dtype: str = "float32", offload: Offload | None = None
) -> HFRuntime:
    """A model from its folder."""
    from potstill.components.runtimes.hf import HFRuntime
    from potstill.components.runtimes.load import load_causal_lm, on_device

    model = on_device(load_causal_lm(folder, dtype, offload))
    return HFRuntime(model, inputs.chat.load(folder), inputs.chat.context, inputs.batch_size)
