"""Training on several processes that `accelerate launch` started, with replicas (DDP) or shards (FSDP2)."""

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

__all__ = ["finish", "make_accelerator", "require_even_shares", "wait_for_all", "whole_weights"]

_RELEASE_SECONDS = 0.2


def make_accelerator(out: Path, tracker: str, name: str) -> Accelerator:
    """The accelerator of one training. Weights and sums are fp32 on every rank; the learner applies autocast itself."""
    # each rank builds or loads its own student, so each needs real weights
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    accelerator = Accelerator(
        mixed_precision="no",
        log_with=None if tracker == "none" else [tracker],
        project_config=ProjectConfiguration(project_dir=str(out), logging_dir=str(out / "trackers")),
    )
    if tracker != "none" and not accelerator.log_with:
        raise StepError(f"trainer.tracker: {tracker} is not installed. Install it: pip install {tracker}.")
    if accelerator.distributed_type == DistributedType.MULTI_CPU and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        # accelerate shards on GPUs only; torch can do it on CPUs too
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        accelerator.state.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    if accelerator.num_processes > 1:
        exit_cleanly()
    if tracker != "none":
        accelerator.init_trackers(name)
    return accelerator


@cache
def exit_cleanly() -> None:
    """When Python ends, destroy the process group, and exit at once with the status of the process.

    Without this, about one process in thirty that trained under FSDP2 on gloo aborts after its last line of Python, for
    one of two reasons. First, a gloo thread that releases its last tensor needs Python's lock. If it asks for the lock
    while Python shuts down, the thread is terminated, and C++ aborts. A short wait gives the thread time to get the
    lock before; this makes the abort unlikely but is no guarantee. Second, C++ destroys objects that running threads
    use. An immediate exit skips that; Python has flushed its files by then.
    """
    atexit.register(_leave_process_group)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc calls what was registered last first, with the exit status
        libc.on_exit(libc._exit, None)


def _leave_process_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        time.sleep(_RELEASE_SECONDS)


def require_even_shares(accelerator: Accelerator, schedule: Schedule, micro_batches: int, shallow: bool) -> None:
    """Raise StepError if the processes cannot do this training together; a step has `micro_batches` micro-batches."""
    processes = accelerator.num_processes
    if processes > 1 and shallow:
        raise StepError("shallow_layers needs a single process: run without `accelerate launch`, or leave it out.")
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
    """Gather the shards of FSDP2: the first rank's model gets whole weights on the CPU, and the others get none."""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
            module.__class__ = type(module).__bases__[1]  # the class before `fully_shard` changed it
    whole: dict[int, nn.Parameter] = {}  # by the identity of the shard, so that a tied matrix stays one
    for module in model.modules():
        for name, shard in module._parameters.items():
            if isinstance(shard, DTensor):
                if id(shard) not in whole:
                    gathered = shard.detach().full_tensor().cpu()
                    weight = gathered if is_first_process() else gathered.new_empty(0)
                    whole[id(shard)] = nn.Parameter(weight, shard.requires_grad)
                module._parameters[name] = whole[id(shard)]


def wait_for_all() -> None:
    """Wait until all processes have reached this point."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).wait_for_everyone()


def finish(accelerator: Accelerator, model: nn.Module) -> None:
    """End one training: gather the weights of `model`, close trackers, and reset accelerate for the next training."""
    if accelerator.is_fsdp2:
        whole_weights(model)
    for tracker in accelerator.trackers:  # `end_training` would also destroy the process group
        tracker.finish()
    AcceleratorState._reset_state(reset_partial_state=True)
