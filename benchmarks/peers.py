"""TRL's trainers on potstill's rows, with the same batches, learning rates, weight decay and clipping.

Used by step.py, quality.py and equal_seconds.py. TRL comes with `pip install "potstill[bench]"`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

import torch

from potstill.components.chat.format import Example
from potstill.components.training.optimizers import learning_rate
from potstill.core.recipe import Schedule

__all__ = ["train_by_trl"]

_PAD = 2


def train_by_trl(
    student: Any,
    teacher: Any,
    steps: Sequence[Sequence[Example]],
    schedule: Schedule,
    seed: int,
    *,
    chunked: bool = False,
    width: int = 0,
) -> list[float]:
    """Train `student` in place, in fp32 by forward KL, and return the loss of each step.

    Args:
        steps: the rows of each optimizer step.
        chunked: use DistillationTrainer, which gets the rows instead of samples; otherwise GKDTrainer with lmbda 0.
        width: minimum length to which rows are padded; longer if the longest row of a step is longer.
    """
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    trainer_class, config_class, own = _classes(chunked)
    batches = [_collate(rows, width) for rows in steps]

    class SameWork(trainer_class):  # type: ignore[misc, valid-type]
        def get_train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(batches, batch_size=None, shuffle=False)  # type: ignore[arg-type]

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer, lambda step: learning_rate(schedule, step, len(batches)) / schedule.learning_rate
            )
            return self.lr_scheduler

        def _prepare_inputs(self, inputs: Any) -> Any:
            # DistillationTrainer would sample here
            return inputs if chunked else super()._prepare_inputs(inputs)

    with tempfile.TemporaryDirectory() as folder:
        config = config_class(
            output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False, beta=0.0, seed=seed,
            max_steps=len(batches), logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True,
            learning_rate=schedule.learning_rate, weight_decay=schedule.weight_decay, adam_beta2=0.95,
            max_grad_norm=1.0, **own,
        )  # fmt: skip
        trainer = SameWork(
            model=student, teacher_model=teacher, args=config, train_dataset=_dataset(), processing_class=_tokenizer()
        )
        trainer.remove_callback(_printer())
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _classes(chunked: bool) -> tuple[Any, Any, dict[str, Any]]:
    """The trainer, its configuration class, and the options that only this one needs."""
    if chunked:
        from trl import DistillationConfig, DistillationTrainer

        return DistillationTrainer, DistillationConfig, {}
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    return GKDTrainer, GKDConfig, {"lmbda": 0.0}


def _printer() -> Any:
    from transformers import PrinterCallback

    return PrinterCallback


def _collate(rows: Sequence[Example], width: int) -> dict[str, torch.Tensor]:
    """Rows padded on the right, under the names that both trainers use; all tokens but each row's first are trained."""
    width = max(width, *(len(r.ids) for r in rows))
    ids = torch.tensor([[*r.ids, *[_PAD] * (width - len(r.ids))] for r in rows])
    mask = torch.tensor([[1] * len(r.ids) + [0] * (width - len(r.ids)) for r in rows])
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, 0] = -100
    gkd = {"input_ids": ids, "attention_mask": mask, "labels": labels, "prompts": ids[:, :1]}
    parts = {"prompt_ids": ids[:, :1], "prompt_mask": mask[:, :1], "completion_ids": ids[:, 1:]}
    return gkd | parts | {"completion_mask": mask[:, 1:], "num_items_in_batch": mask[:, 1:].sum()}


def _dataset() -> Any:
    """A dataset whose columns the trainers inspect; the rows come from the loader."""
    from datasets import Dataset

    return Dataset.from_list([{"prompt": "a", "messages": [{"role": "user", "content": "a"}]}] * 8)


def _tokenizer() -> Any:
    """A tokenizer, of which the trainers read only the special tokens."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<s>": 0, "</s>": 1, "<pad>": _PAD, "a": 3}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
