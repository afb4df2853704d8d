"""`potstill plan RECIPE`: what the student will weigh and need, by quantization, against the device's budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from potstill.plan.arithmetic import gguf_run_memory_bytes, gguf_weight_bytes, kv_cache_bytes
from potstill.plan.models import load_models
from potstill.recipe import Quantization, Recipe

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["plan_recipe", "render_plan"]

_MB = 1e6


def plan_recipe(recipe: Recipe) -> dict[str, Any]:
    """Exact weight bytes of the student in every quantization, and an estimate of its memory at `chat.context`.

    Raises:
        RecipeError: a model, its tokenizer or its template cannot be had.
    """
    models = load_models(recipe)
    shape, target = models.student_shape, recipe.target
    context = recipe.chat.context
    rows = []
    for quantization in get_args(Quantization):
        weights = gguf_weight_bytes(shape, quantization)
        memory = gguf_run_memory_bytes(shape, weights, context)
        fits = (target.file_mb is None or weights / _MB <= target.file_mb) and (
            target.memory_mb is None or memory / _MB <= target.memory_mb
        )
        rows.append(
            {
                "quantization": quantization,
                "weight_bytes": weights,
                "bits_per_weight": round(8 * weights / models.student.parameters, 3)
                if models.student.parameters
                else None,
                "memory_bytes": memory,
                "fits": fits,
                "chosen": quantization == recipe.export.quantization,
            }
        )
    return {
        "name": recipe.name,
        "device": target.device,
        "context": context,
        "params_student": models.student.parameters,
        "params_teacher": models.teacher.parameters if models.teacher else None,
        "kv_bytes": kv_cache_bytes(shape, context),
        "quantizations": rows,
    }


def render_plan(planned: dict[str, Any]) -> Table:
    """The plan as a table; the recipe's own quantization is marked."""
    from rich.table import Table

    teacher = f", teacher {planned['params_teacher'] / 1e6:.2f} M" if planned["params_teacher"] else ""
    title = f"{planned['name']}: student {planned['params_student'] / 1e6:.2f} M parameters{teacher}"
    caption = f"context {planned['context']}, KV cache {planned['kv_bytes'] / _MB:.2f} MB; for {planned['device']}"
    table = Table(
        title=title, caption=caption, header_style="bold", box=None, title_justify="left", caption_justify="left"
    )
    for column in ("quantization", "weights MB", "bits a weight", "memory MB", "budget"):
        table.add_column(column, justify="left" if column in ("quantization", "budget") else "right")
    for row in planned["quantizations"]:
        table.add_row(
            f"{row['quantization']}{' *' if row['chosen'] else ''}",
            f"{row['weight_bytes'] / _MB:.2f}",
            f"{row['bits_per_weight']:.2f}",
            f"{row['memory_bytes'] / _MB:.0f}",
            "fits" if row["fits"] else "does not fit",
        )
    return table
