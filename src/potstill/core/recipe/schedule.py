"""How models are optimised: what a training has for itself, and what all trainings of a run share."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from potstill.core.recipe.fields import COSMETIC, Count, NotNegative, Positive, Section, Share

__all__ = ["LoraOptimization", "Optimization", "Schedule", "Trainer"]


_FROM_WEIGHTS, _FROM_SCRATCH = 1e-4, 1e-3
"""Default learning rates; docs/decisions.md has the measurements behind them."""


class _Passes(Section):
    """How often rows are seen, and in what portions."""

    epochs: Positive = 3.0
    """Number of passes over the rows, where a fraction ends the last pass early; default: 3."""
    batch_tokens: Count = 8192
    """Maximum size of one micro-batch on one device, in tokens; few rows need a smaller one for enough optimizer steps;
    default: 8192."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Optimizer; `muon` is for the matrices of the layers, and all other weights use AdamW; default: adamw."""
    min_lr_ratio: Share = 0.1
    """Learning rate at the end of the cosine decay, as a fraction of the peak; default: 0.1."""


class Optimization(_Passes):
    """The settings that `train` and `teacher.finetune` each have for themselves."""

    learning_rate: Positive | None = None
    """Peak learning rate, reached after the warm-up; default: 0.001 for a model that starts from random weights, and
    0.0001 for any other."""


class LoraOptimization(Optimization):
    """The settings that `train` and `teacher.finetune` each have for themselves."""

    lora_rank: Count | None = None
    """Rank of LoRA adapters on the layers' matrices, merged into the weights at the end; default: train all weights."""


class Trainer(Section):
    """The settings that all trainings of a run share: of the teacher, of the student and of its control."""

    gradient_accumulation: Count = 1
    """Number of micro-batches per optimizer step, over all processes together; default: 1."""
    warmup_ratio: Share = 0.05
    """Length of the linear warm-up, as a fraction of the optimizer steps; default: 0.05."""
    weight_decay: NotNegative = 0.01
    """Decoupled weight decay per step, as a multiple of the learning rate; default: 0.01."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """Number format of the forward pass; `bf16` is autocast, with weights and optimizer in fp32; `auto` is bf16 on a
    device that multiplies matrices faster in it, otherwise fp32; default: fp32."""
    activation_checkpointing: bool = False
    """Whether the backward pass runs each layer again from its input, which takes less memory and more time; default:
    no."""
    kernel: Literal["auto", "torch", "compile", "triton"] = "auto"
    """Implementation of the loss: `torch`, `compile` (torch.compile; needs a C++ compiler on a CPU) or `triton` (GPU
    only); `auto` is Triton where it is installed and there is a GPU, otherwise torch; default: auto."""
    checkpoint_every: Annotated[Count, COSMETIC] = 200
    """Interval between the checkpoints from which a killed training resumes, in optimizer steps; default: 200."""
    tracker: Annotated[Literal["tensorboard", "wandb", "trackio", "none"], COSMETIC] = "tensorboard"
    """Tool that receives the training curves; default: tensorboard."""


class Schedule(_Passes, Trainer):
    """All settings of one training: its own and the shared ones."""

    learning_rate: Positive = _FROM_SCRATCH
    """Peak learning rate, reached after the warm-up; default: 0.001."""
    lora_rank: Count | None = None
    """Rank of LoRA adapters; default: train all weights."""

    @classmethod
    def of(cls, own: Optimization, shared: Trainer, *, scratch: bool = False) -> Self:
        """The settings of one training, which starts from random weights if `scratch` is set."""
        values = {name: getattr(own, name) for name in LoraOptimization.model_fields if hasattr(own, name)}
        if own.learning_rate is None:
            values["learning_rate"] = _FROM_SCRATCH if scratch else _FROM_WEIGHTS
        return cls(**values, **{name: getattr(shared, name) for name in Trainer.model_fields})
