"""Run every model over the test rows: answers, fidelity to the teacher, speed and memory of the shipped file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.components.chat.format import ChatFormat, load_chat, resolve_model
from potstill.components.models.safetensors import safetensors_parameters
from potstill.components.runtimes import Runtime, Sampling
from potstill.core.files import read_json, write_json
from potstill.core.progress import progress_bar
from potstill.core.recipe import Recipe
from potstill.core.recipe.teacher import Offload
from potstill.core.records import Message, Row, read_rows
from potstill.stages.evaluate.answers import JudgedAnswer, answer_rows, score
from potstill.stages.evaluate.fidelity import Array, fidelity

if TYPE_CHECKING:
    from potstill.components.runtimes.hf import HFRuntime

__all__ = ["measure"]

_SLOTS = 4
_LATENCY_TOKENS = 32
_REGRESSIONS = 10


@dataclass(frozen=True)
class _Bench:
    """What every model is put to."""

    recipe: Recipe
    rows: list[Row]
    out: Path

    @property
    def sampling(self) -> Sampling:
        g = self.recipe.generate
        return Sampling(g.max_new_tokens, g.temperature, g.top_p, self.recipe.seed)

    def answers(self, name: str, runtime: Runtime) -> list[JudgedAnswer]:
        path = self.out / f"answers-{name}.jsonl"
        return answer_rows(runtime, self.rows, self.sampling, path, name, self.recipe.chat.tool_format)

    def local(self, folder: Path, dtype: str = "float32", offload: Offload | None = None) -> HFRuntime:
        from potstill.components.runtimes.hf import HFRuntime
        from potstill.components.runtimes.load import load_causal_lm, on_device

        recipe, model = self.recipe, on_device(load_causal_lm(folder, dtype, offload))
        chat = load_chat(folder, recipe.chat.template)
        return HFRuntime(model, chat, recipe.chat.context, recipe.generate.batch_size)


def measure(recipe: Recipe, teacher_folder: Path | None, steps: Mapping[str, Path], out: Path) -> None:
    """See `potstill.stages.evaluate.stage.run`."""
    rows = read_rows(recipe.data.test, tools=recipe.data.tools, limit=recipe.data.test_limit)
    bench = _Bench(recipe, rows, out)
    gguf = next(steps["export"].glob("*.gguf"))
    models: dict[str, Any] = {"teacher": None, "student": None, "control": None, "gguf": None}
    answers: dict[str, list[JudgedAnswer]] = {}

    teacher = _teacher(bench, teacher_folder)
    answers["teacher"] = bench.answers("teacher", teacher)
    models["teacher"] = _entry(answers["teacher"], teacher_folder)
    texts, expected = _teacher_texts(bench, teacher, teacher_folder, answers["teacher"])
    texts, expected = _in_vocabulary(texts, expected, steps["train"] / "kept.json")
    for name in ("student", "control"):
        folder = steps["train"] / name
        if folder.is_dir():
            runtime = bench.local(folder)
            answers[name] = bench.answers(name, runtime)
            models[name] = _entry(answers[name], folder)
            models[name]["fidelity"] = _fidelity(texts, expected, runtime.log_probs, name)
    chat = load_chat(steps["train"] / "student", recipe.chat.template)
    with _served(gguf, chat, recipe, _SLOTS) as (_, runtime):
        answers["gguf"] = bench.answers("gguf", runtime)
        models["gguf"] = _entry(answers["gguf"], None) | {
            "bytes": gguf.stat().st_size,
            "params": models["student"]["params"],
        }
        models["gguf"]["fidelity"] = _fidelity(texts, expected, runtime.log_probs, "gguf fidelity")
    metrics = {
        "models": models,
        "paired": {
            "gguf_vs_teacher": _paired(answers["gguf"], answers["teacher"]),
            "student_vs_control": _paired(answers["student"], answers["control"]) if "control" in answers else None,
            "gguf_vs_student": _paired(answers["gguf"], answers["student"]),
        },
        "runtime": _runtime(recipe, gguf, chat, rows),
        "regressions": _regressions(answers["teacher"], answers["gguf"]),
    }
    write_json(out / "metrics.json", metrics)


def _teacher(bench: _Bench, folder: Path | None) -> Runtime:
    teacher = bench.recipe.teacher
    if teacher.kind == "local":
        assert folder is not None
        return bench.local(folder, teacher.dtype, teacher.offload)
    from potstill.components.runtimes.endpoint import EndpointRuntime

    return EndpointRuntime(teacher.base_url, teacher.model, teacher.api_key_env, teacher.max_concurrency)


def _entry(answers: Sequence[JudgedAnswer], folder: Path | None) -> dict[str, Any]:
    """A model's line in metrics.json, without its fidelity; size and parameters from its safetensors."""
    weights = sorted(folder.glob("*.safetensors")) if folder else []
    params = safetensors_parameters(folder) if folder and weights else None
    return {
        "params": params,
        "bytes": sum(p.stat().st_size for p in weights) or None,
        **score(answers),
        "fidelity": None,
    }


@dataclass(frozen=True)
class _Text:
    """Token ids, and the position of the first that the teacher said."""

    ids: tuple[int, ...]
    first: int


def _teacher_texts(
    bench: _Bench, teacher: Runtime, folder: Path | None, answers: Sequence[JudgedAnswer]
) -> tuple[list[_Text], list[Array]]:
    """The teacher's own answers to the first test rows, and its distributions over them; none from an endpoint, and
    none for a student that has other tokens."""
    if folder is None:
        return [], []
    from potstill.components.runtimes.hf import HFRuntime

    assert isinstance(teacher, HFRuntime)
    base = bench.recipe.student.model
    if base and load_chat(resolve_model(base)).tokenizer_hash != teacher.chat.tokenizer_hash:
        return [], []
    texts: list[_Text] = []
    for row, answer in zip(bench.rows, answers, strict=True):
        if len(texts) == bench.recipe.evaluate.fidelity_rows:
            break
        if not answer.text.strip():
            continue
        said = row.model_copy(update={"completion": Message(role="assistant", content=answer.text)})
        try:
            example = teacher.chat.example(said)
        except ValueError:  # an answer that its own template cannot render tells nothing of fidelity
            continue
        texts.append(_Text(example.ids[: bench.recipe.chat.context], example.n_prompt))
    return texts, [teacher.log_probs(t.ids, t.first).numpy() for t in texts]


def _in_vocabulary(texts: list[_Text], expected: list[Array], kept_file: Path) -> tuple[list[_Text], list[Array]]:
    """Texts and distributions in the ids of a student whose vocabulary was trimmed to its workload's.

    The teacher's distributions are those over the kept tokens, renormalised, as in training. A text with a token that
    is not kept is left out: the student cuts it otherwise, so its positions are not the teacher's.
    """
    if not kept_file.is_file():
        return texts, expected
    kept: list[int] = read_json(kept_file)
    new = {old: number for number, old in enumerate(kept)}
    pairs = [
        (replace(text, ids=tuple(new[i] for i in text.ids)), _renormalised(teacher_SV[:, kept]))
        for text, teacher_SV in zip(texts, expected, strict=True)
        if new.keys() >= set(text.ids)
    ]
    return [text for text, _ in pairs], [teacher_SK for _, teacher_SK in pairs]


def _renormalised(log_probs_SK: Array) -> Array:
    import numpy as np

    highest_S1 = log_probs_SK.max(axis=-1, keepdims=True)
    total_S1 = np.log(np.exp(log_probs_SK - highest_S1).sum(axis=-1, keepdims=True)) + highest_S1
    return np.asarray(log_probs_SK - total_S1)


def _fidelity(
    texts: Sequence[_Text], expected: Sequence[Array], log_probs: Callable[[Sequence[int], int], Any], label: str
) -> dict[str, Any] | None:
    if not texts:
        return None
    pairs = []
    with progress_bar(label, len(texts)) as ticker:
        for text, teacher_SV in zip(texts, expected, strict=True):
            pairs.append((teacher_SV, log_probs(text.ids, text.first)))
            ticker.advance()
    return fidelity(pairs).to_json()


def _paired(first: Sequence[JudgedAnswer], second: Sequence[JudgedAnswer]) -> dict[str, int]:
    """Items `first` broke or fixed against `second`, over those that can be judged."""
    pairs = [
        (a.exact, b.exact) for a, b in zip(first, second, strict=True) if a.exact is not None and b.exact is not None
    ]
    return {"broken": sum(b and not a for a, b in pairs), "fixed": sum(a and not b for a, b in pairs), "n": len(pairs)}


def _regressions(teacher: Sequence[JudgedAnswer], shipped: Sequence[JudgedAnswer]) -> list[dict[str, str]]:
    """Up to ten answers the teacher gets right and the shipped file does not; broken markup first, then wrong
    schemas."""
    lost = [(t, s) for t, s in zip(teacher, shipped, strict=True) if t.exact and not s.exact]
    lost.sort(key=lambda pair: (pair[1].parses, pair[1].schema_valid is not False))
    return [
        {
            "row_id": t.row_id,
            "behaviour": t.behaviour,
            "prompt": t.prompt,
            "teacher": t.text,
            "student": s.text,
            "expected": t.expected,
        }
        for t, s in lost[:_REGRESSIONS]
    ]


@contextmanager
def _served(gguf: Path, chat: ChatFormat, recipe: Recipe, slots: int) -> Iterator[Any]:
    """The shipped file in llama.cpp: the server, and a runtime that answers rows with it."""
    from potstill.components.runtimes.gguf import GGUFRuntime, GGUFServer

    context = recipe.chat.context
    with GGUFServer(gguf, context=context * slots, parallel=slots, threads=recipe.evaluate.threads) as server:
        yield server, GGUFRuntime(server, chat, context, slots)


def _runtime(recipe: Recipe, gguf: Path, chat: ChatFormat, rows: Sequence[Row]) -> dict[str, Any]:
    """Speed and memory of the shipped file, alone in a fresh process with one slot."""
    from potstill.components.runtimes.gguf import measure_latency

    prompts = [chat.prompt_ids(row) for row in rows]
    with _served(gguf, chat, recipe, 1) as (server, _):
        timed = measure_latency(server, prompts, recipe.evaluate.latency_requests, _LATENCY_TOKENS)
        return {
            "load_s": server.load_seconds,
            **timed,
            "peak_rss_mb": server.peak_rss_mb(),
            "threads": recipe.evaluate.threads,
            "context": recipe.chat.context,
        }
