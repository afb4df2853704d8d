"""One training on several processes: what `accelerate launch` started, whole replicas (DDP) or shards (FSDP2)."""

from __future__ import annotations

import atexit
import ctypes
import os
import time
from functools import cache
from pathlib import Path

import torch.distributed
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedType,
    FullyShardedDataParallelPlugin,
    ProjectConfiguration,
    parse_flag_from_env,
)
from torch import nn

from potstill.core.environment import is_first_process
from potstill.core.errors import StepError
from potstill.core.recipe import Schedule

__all__ = ["end", "make_accelerator", "require_shares", "wait_for_all", "whole_weights"]

_LET_GO_SECONDS = 0.2


def make_accelerator(out: Path, tracker: str, name: str) -> Accelerator:
    """Weights and sums stay fp32 on every rank; autocast, where it is asked for, is the learner's own."""
    # each rank cuts or loads its own student, so each needs real weights
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    accelerator = Accelerator(
        mixed_precision="no",
        log_with=None if tracker == "none" else [tracker],
        project_config=ProjectConfiguration(project_dir=str(out), logging_dir=str(out / "trackers")),
    )
    if tracker != "none" and not accelerator.log_with:
        raise StepError(f"trainer.tracker: {tracker} is not installed. Install it: pip install {tracker}.")
    if accelerator.distributed_type == DistributedType.MULTI_CPU and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        # accelerate shards on GPUs alone; torch does it on CPUs too
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        accelerator.state.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    if accelerator.num_processes > 1:
        _end_quietly()
    if tracker != "none":
        accelerator.init_trackers(name)
    return accelerator


@cache
def _end_quietly() -> None:
    """When Python ends, take the processes apart, and end this one with the status it has.

    Without it, about one process in thirty that trained under FSDP2 on gloo aborts after its last line of Python, for
    one of two reasons. A thread of gloo that lets go of its last tensor needs Python's lock, and is ended for asking
    while Python shuts down, which C++ does not survive: a short wait lets it have the lock before, which is likely
    enough and no guarantee. And C++ clears up threads that still run: it does not get to it, and Python has flushed its
    files by then.
    """
    atexit.register(_part)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc: what is registered last is called first, with the status
        libc.on_exit(libc._exit, None)


def _part() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        time.sleep(_LET_GO_SECONDS)


def require_shares(accelerator: Accelerator, schedule: Schedule, micro_batches: int, shallow: bool) -> None:
    """Raise StepError for what the processes cannot do together; `micro_batches` are those of a step."""
    processes = accelerator.num_processes
    if processes > 1 and shallow:
        raise StepError("shallow_layers trains on one process: run without `accelerate launch`, or leave it out.")
    if micro_batches % processes:
        raise StepError(
            f"A step has {micro_batches} micro-batches, which {processes} processes cannot share evenly. "
            f"Set trainer.gradient_accumulation to a multiple of {processes}, "
            "and batch_tokens so low that the rows fill as many."
        )
    if accelerator.distributed_type == DistributedType.FSDP:
        if not accelerator.is_fsdp2:
            raise StepError("FSDP 1 is not supported: set fsdp_version: 2 in accelerate's configuration.")
        if schedule.optimizer == "muon":
            raise StepError("Muon needs whole matrices, and FSDP2 shards them: set optimizer: adamw, or use plain DDP.")


def whole_weights(model: nn.Module) -> None:
    """Gather what FSDP2 has sharded: the first rank's `model` has whole weights, on the CPU; the others' has none."""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
            module.__class__ = type(module).__bases__[1]  # what it was before `fully_shard` wove itself in
    whole: dict[int, nn.Parameter] = {}  # by the shard's identity: a tied matrix stays one
    for module in model.modules():
        for name, shard in module._parameters.items():
            if isinstance(shard, DTensor):
                if id(shard) not in whole:
                    gathered = shard.detach().full_tensor().cpu()
                    kept = gathered if is_first_process() else gathered.new_empty(0)
                    whole[id(shard)] = nn.Parameter(kept, shard.requires_grad)
                module._parameters[name] = whole[id(shard)]


def wait_for_all() -> None:
    """Go on when all processes have come here."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).wait_for_everyone()


def end(accelerator: Accelerator, model: nn.Module) -> None:
    """Close trackers, make `model` whole; the next one of this process has an accelerator of its own."""
    if accelerator.is_fsdp2:
        whole_weights(model)
    for tracker in accelerator.trackers:  # `end_training` would take the processes apart as well
        tracker.finish()
    AcceleratorState._reset_state(reset_partial_state=True)
