"""The loss alone, from hidden states and heads to loss and gradients: time relative to its products, and memory.

    python benchmarks/loss.py [--json FILE] [--rounds N] [--only VARIANT ...] [--case CASE ...] [--tiny]

There are two sizes (2048 tokens of a 32,000 vocabulary, 1024 of 151,936), each with forward KL and JSD, in fp32, with a
student of width 512 and a teacher of width 1024. "floor" is the matrix products alone, in chunks of 1024 tokens.
potstill runs in chunks of its own choice, and in chunks of 1024, which Liger uses too. Times are medians of rounds in
which the variants take turns in one process, after a warm-up that compiles. Memory is the highest resident set during
one step, minus that before the step, in a process of its own; that of the floor includes its own buffers. Other tools
are included if they are installed (`pip install 'potstill[bench]'`): TRL's GKD and its chunked loss, Liger's chunked
JSD, eager and compiled.

With a CUDA device, the size is 8192 tokens of a 128,256 vocabulary instead, with student and teacher of width 4096,
weights in bf16, and the floor in chunks of 4096; memory is the most that torch has allocated. The Triton kernel is
first compared with float64. Variants that do not fit are left out.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from status import status_mb
from torch import Tensor

from potstill.components.losses.divergence import linear_divergence
from potstill.core.memory import keep_freed_memory

CUDA = torch.cuda.is_available()
CHUNK = 1024


class Size(NamedTuple):
    """Number of tokens, vocabulary, widths of student and teacher, and type of the weights."""

    tokens: int
    vocab: int
    student: int = 512
    teacher: int = 1024
    dtype: torch.dtype = torch.float32


SIZES = (
    {"8192 x 128256, bf16": Size(8192, 128_256, 4096, 4096, torch.bfloat16)}
    if CUDA
    else {"2048 x 32000": Size(2048, 32_000), "1024 x 151936": Size(1024, 151_936)}
)
TINY = {"96 x 1000": Size(96, 1000)}
OBJECTIVES: tuple[str, ...] = ("forward_kl", "jsd")


class Inputs(NamedTuple):
    """Inputs: the student's hidden states and head need gradients; labels are for the tool that requires them."""

    student_NH: Tensor
    head_VH: Tensor
    teacher_NG: Tensor
    teacher_head_VG: Tensor
    labels_N: Tensor


Step = Callable[[Inputs, str], Tensor]


def make_inputs(size: Size) -> Inputs:
    """Inputs whose logits have about unit size, so that no distribution is a spike."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to("cuda" if CUDA else "cpu", size.dtype)

    student_NH, head_VH = randn(size.tokens, size.student), randn(size.vocab, size.student) / size.student**0.5
    teacher_NG, teacher_head_VG = randn(size.tokens, size.teacher), randn(size.vocab, size.teacher) / size.teacher**0.5
    labels_N = torch.randint(0, size.vocab, (size.tokens,), generator=generator).to(head_VH.device)
    return Inputs(student_NH.requires_grad_(), head_VH.requires_grad_(), teacher_NG, teacher_head_VG, labels_N)


def floor(chunk: int) -> Step:
    """The five products: both projections, and the gradients of hidden states and head."""

    @torch.no_grad()
    def step(x: Inputs, objective: str) -> Tensor:
        tokens, vocab = len(x.student_NH), len(x.head_VH)
        buffers = [x.head_VH.new_empty(min(chunk, tokens), vocab) for _ in range(2)]
        x.student_NH.grad, x.head_VH.grad = torch.empty_like(x.student_NH), torch.empty_like(x.head_VH)
        for start in range(0, tokens, chunk):
            rows = slice(start, start + chunk)
            student_NV, teacher_NV = (buffer[: len(x.student_NH[rows])] for buffer in buffers)
            torch.mm(x.student_NH[rows], x.head_VH.T, out=student_NV)
            torch.mm(x.teacher_NG[rows], x.teacher_head_VG.T, out=teacher_NV)
            torch.mm(student_NV, x.head_VH, out=x.student_NH.grad[rows])
            x.head_VH.grad.addmm_(student_NV.T, x.student_NH[rows], beta=float(start > 0))
        return torch.zeros(())

    return step


def ours(kernel: Any, chunk_tokens: int | None = None) -> Step:
    """potstill's loss with one of its row kernels."""

    def step(x: Inputs, objective: str) -> Tensor:
        sums = linear_divergence(
            x.student_NH, x.head_VH, x.labels_N, teacher_NG=x.teacher_NG, teacher_head_VG=x.teacher_head_VG,
            objective=objective, kernel=kernel, chunk_tokens=chunk_tokens,
        )  # fmt: skip
        loss = sums.loss / len(x.labels_N)
        loss.backward()
        return loss.detach()

    return step


def trl_gkd() -> Step:
    """TRL's GKD loss, on whole logits."""
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    def step(x: Inputs, objective: str) -> Tensor:
        with torch.no_grad():
            teacher_NV = x.teacher_NG @ x.teacher_head_VG.T
        loss = GKDTrainer.generalized_jsd_loss(
            x.student_NH @ x.head_VH.T, teacher_NV, beta=0.5 if objective == "jsd" else 0.0
        )
        loss.backward()
        return loss.detach()

    return step


def trl_chunked() -> Step:
    """The loss of TRL's DistillationTrainer."""
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    def step(x: Inputs, objective: str) -> Tensor:
        loss, _, _ = _chunked_divergence_loss(
            x.student_NH[None], x.teacher_NG[None], x.head_VH, x.teacher_head_VG,
            torch.ones(1, len(x.labels_N), dtype=torch.int64), 0.5 if objective == "jsd" else 0.0,
        )  # fmt: skip
        loss.backward()
        return loss.detach()

    return step


def liger(compiled: bool) -> Step:
    """Liger's chunked JSD; beta 0 is forward KL. The hard part has weight 0 and is computed nevertheless."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    def step(x: Inputs, objective: str) -> Tensor:
        loss_of = LigerFusedLinearJSDLoss(
            0.0, 1.0, beta=0.5 if objective == "jsd" else 0.0, compiled=compiled, chunk_size=CHUNK
        )
        loss: Tensor = loss_of(x.student_NH, x.head_VH, x.teacher_NG, x.teacher_head_VG, x.labels_N)
        loss.backward()
        return loss.detach()

    return step


VARIANTS: dict[str, Callable[[], Step]] = {
    "floor": lambda: floor(4096 if CUDA else CHUNK),
    "potstill torch": lambda: ours("torch"),
    "potstill compile": lambda: ours("compile"),
    "potstill torch, 1024": lambda: ours("torch", CHUNK),
    "potstill compile, 1024": lambda: ours("compile", CHUNK),
    **({"potstill triton": lambda: ours("triton")} if CUDA else {}),
    "TRL GKD": trl_gkd,
    "TRL chunked": trl_chunked,
    "Liger eager": lambda: liger(False),
    "Liger compiled": lambda: liger(True),
}


def wait() -> None:
    """Wait until the device has finished."""
    if CUDA:
        torch.cuda.synchronize()


def run(step: Step, x: Inputs, objective: str) -> tuple[float, float]:
    """Seconds and loss of one step; gradients are freed before the next."""
    wait()
    begun = time.perf_counter()
    loss = step(x, objective)
    wait()
    seconds = time.perf_counter() - begun
    x.student_NH.grad = x.head_VH.grad = None
    return seconds, float(loss)


def peak_mb(variant: str, size: Size, objective: str) -> float:
    """Highest memory during a step, resident or on the device, minus that before it. For a fresh process."""
    step = VARIANTS[variant]()
    # what is loaded or compiled once does not belong to the step; another size would compile again
    run(step, make_inputs(size if "compile" in variant else size._replace(tokens=64, vocab=256)), objective)
    x = make_inputs(size)
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(step, x, objective)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the highest resident set: proc(5)
    resident = status_mb("VmRSS")
    run(step, x, objective)
    return status_mb("VmHWM") - resident


def ask_peak(variant: str, case: str, objective: str, tiny: bool) -> float:
    """`peak_mb` in a process of its own."""
    command = [sys.executable, __file__, "--peak", variant, case, objective, *(["--tiny"] if tiny else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{variant}: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.splitlines()[-1])


def give_back() -> None:
    """Return freed memory: what all variants keep for their next step would not fit together with the largest step."""
    if not CUDA and status_mb("VmRSS") * 2**20 > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 4:
        ctypes.CDLL(None).malloc_trim(0)


def available(wanted: list[str] | None) -> dict[str, Step]:
    """The variants that can run here. The first two always can; missing tools are printed."""
    steps = {}
    for name, make in VARIANTS.items():
        if wanted and name not in wanted and name not in ("floor", "potstill torch"):
            continue
        try:
            steps[name] = make()
        except (ImportError, RuntimeError) as error:  # a lazily loaded package raises RuntimeError
            print(f"{name}: left out ({error})", file=sys.stderr)
    return steps


def first_losses(steps: dict[str, Step], x: Inputs, objective: str) -> dict[str, float]:
    """Loss of each variant, run once so that it compiles; without variants that exceed the device's memory."""
    losses = {}
    for name, step in list(steps.items()):
        try:
            losses[name] = run(step, x, objective)[1]
            give_back()
        except torch.OutOfMemoryError:
            print(f"{name}: left out (out of memory)", file=sys.stderr)
            x.student_NH.grad = x.head_VH.grad = None
            del steps[name]
    return losses


def measure(case: str, size: Size, objective: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all variants at one size, in turn. A loss that differs is printed, because it is not the same work."""
    steps, x = available(args.only), make_inputs(size)
    losses = first_losses(steps, x, objective)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            taken[name].append(run(step, x, objective)[0])
            give_back()
    floor_seconds = statistics.median(taken["floor"])
    wanted, rows = losses["potstill torch"], []
    for name, seconds in taken.items():
        if name != "floor" and abs(losses[name] - wanted) > (1e-2 if CUDA else 1e-4) * abs(wanted):
            print(f"{name}: its loss is {losses[name]:.6f}, not {wanted:.6f}", file=sys.stderr)
        rows.append({
            "case": f"{objective}, {case}", "variant": name, "seconds": statistics.median(seconds),
            "x_floor": statistics.median(seconds) / floor_seconds,
            "peak_mb": round(ask_peak(name, case, objective, args.tiny), 1), "loss": losses[name],
        })  # fmt: skip
        row = rows[-1]
        print(f"{row['case']:<30} {name:<22} {row['seconds']:8.4f} s {row['x_floor']:6.2f} x {row['peak_mb']:8.1f} MB")
    return rows


def check_triton() -> None:
    """The Triton kernel's gradient of forward KL and JSD against autograd in float64; prints the largest error."""
    x = make_inputs(Size(64, 5000, 128, 128))
    for objective in OBJECTIVES:
        ours("triton")(x, objective)
        found, x.head_VH.grad, x.student_NH.grad = x.head_VH.grad, None, None
        head_VH = x.head_VH.detach().double().requires_grad_()
        log_q = torch.log_softmax(x.student_NH.detach().double() @ head_VH.T, -1)
        log_p = torch.log_softmax(x.teacher_NG.double() @ x.teacher_head_VG.double().T, -1)
        if objective == "forward_kl":
            loss = (log_p.exp() * (log_p - log_q)).sum()
        else:
            log_m = (0.5 * (log_p.exp() + log_q.exp())).log()
            loss = 0.5 * ((log_p.exp() * (log_p - log_m)).sum() + (log_q.exp() * (log_q - log_m)).sum())
        (want,) = torch.autograd.grad(loss / len(log_q), head_VH)
        error = float((found - want).abs().max() / want.abs().max())
        print(f"Triton against float64, {objective}: gradient of the head, largest error {error:.1e} of the largest")
        assert error < 2e-5


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--only", action="append", choices=list(VARIANTS), help="in addition to the first two; may be repeated"
    )
    parser.add_argument("--case", action="append", help='for example "jsd, 2048 x 32000"; may be repeated')
    parser.add_argument("--tiny", action="store_true", help="a size that only shows that everything runs")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes = TINY if args.tiny else SIZES
    if args.peak:
        variant, case, objective = args.peak
        print(peak_mb(variant, sizes[case], objective))
        return
    # as in training: memory blocks are not mapped again in each step, for all variants alike
    keep_freed_memory()
    print(f"{platform.machine()}, {platform.system()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    if CUDA:
        print(torch.cuda.get_device_name())
        check_triton()
    rows = [
        row
        for case, size in sizes.items()
        for objective in OBJECTIVES
        if not args.case or f"{objective}, {case}" in args.case
        for row in measure(case, size, objective, args)
    ]
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
