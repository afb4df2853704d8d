"""Shards with right checksums and wrong content: each is rejected by name, before anything large is made."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from forged_shards import KEYS, Change, V, forge, meta_of
from forged_shards import write_store as write
from potstill.components.targets import TargetsReader, TargetsWriter, store_stats
from potstill.components.targets.coding import Block, encode_block
from potstill.core.errors import DataError, StepError
from potstill.core.steps import Stage, StepResult, run_step
from potstill.stages.targets.stage import STAGE


def section(name: str, new: bytes | Callable[[bytes], bytes]) -> Change:
    def change(footer: dict[str, Any], sections: dict[str, bytes]) -> None:
        sections[name] = new(sections[name]) if callable(new) else new

    return change


def footer(**values: Any) -> Change:
    return lambda found, sections: found.update(values)


def block(kind: str, rows: list[list[tuple[int, int]]], tails: list[int] | None = None) -> Change:
    """The whole block anew, from (rank, value) of each token."""
    entries = [entry for row in rows for entry in row]
    offsets_N1 = np.cumsum([0, *(len(row) for row in rows)])
    made = Block(
        offsets_N1,
        np.array([rank for rank, _ in entries], np.uint32),
        np.array([value for _, value in entries], np.uint8),
        np.array([] if tails is None else tails, np.uint8),
    )
    return section("block0", encode_block(made, np.arange(V), falling=kind == "counts"))


N = sum(key.tokens for key in KEYS)
BOMB = zstandard.ZstdCompressor(level=1).compress(bytes(400 << 20))
SURE = [(rank, 255 if rank else 0) for rank in range(5)]  # all mass on one id


def column(number: int, data: bytes) -> Change:
    """Another compressed column in the block."""

    def change(old: bytes) -> bytes:
        n_tokens, n_columns = int.from_bytes(old[:4], "little"), int.from_bytes(old[4:6], "little")
        sizes = np.frombuffer(old, "<u4", n_columns, 6).tolist()
        ends = np.cumsum([6 + 4 * n_columns, *sizes]).tolist()
        columns = [old[a:b] for a, b in itertools.pairwise(ends)]
        columns[number] = data
        head = n_tokens.to_bytes(4, "little") + n_columns.to_bytes(2, "little")
        return b"".join([head, *(len(each).to_bytes(4, "little") for each in columns), *columns])

    return section("block0", change)


FORGED: list[tuple[str, Change, str]] = [
    ("top_k", footer(tokens="x"), "tokens: Input should be a valid integer"),
    ("top_k", footer(tokens=-1), "tokens: Input should be greater"),
    ("top_k", footer(tokens=N + 1), "another number of tokens"),
    ("top_k", footer(entries=N), "another number of entries"),
    ("counts", footer(entries=N * 20 + 1), "another number of entries"),
    ("top_k", footer(sequences=2), "not those of its sequences"),
    ("top_k", footer(blocks=[2**62]), "blocks.0: Input should be less"),
    ("top_k", footer(blocks=[1, 2]), "no right place for its block1"),
    ("top_k", footer(blocks=[2]), "its blocks have other sequences"),
    ("top_k", footer(blocks=[]), "do not fill it"),
    ("top_k", footer(sums={"entropy": 1.0}), "sums are those of another kind"),
    ("top_k", footer(sums={"entropy": 1e300}), "sums.entropy"),
    ("top_k", footer(more=1), "more: Extra inputs"),
    ("top_k", footer(sections={"keys": [0, 10, ""]}), "no right place for its keys"),
    ("top_k", footer(sections={"block0": [10**9, 10, ""]}), "no right place for its block0"),
    *[("top_k", lambda found, sections, name=name: found.pop(name), f"{name}: Field required")  # type: ignore[misc]
      for name in ("store", "sequences", "tokens", "entries", "sums", "blocks")],
    ("top_k", section("keys", lambda old: old[:-3]), "not those of its sequences"),
    ("top_k", section("keys", lambda old: old[:16] * 3), "a sequence twice"),
    ("top_k", section("tokens", lambda old: old[:-1]), "not those of its sequences"),
    ("top_k", section("tokens", b""), "not those of its sequences"),
    ("top_k", section("tokens", b"\xff" * 12), "another number of tokens"),
    ("top_k", section("tokens", np.array([0, 8, 16], "<u4").tobytes()), "another number of tokens"),
    ("top_k", section("tokens", np.array([4, 12, 8], "<u4").tobytes()), "another number of tokens than its key"),
    ("top_k", section("table", b"nope"), "not compressed"),
    ("top_k", section("table", BOMB), "larger than"),
    ("top_k", section("table", zstandard.compress(b"\1" * 10)), "than the vocabulary"),
    ("top_k", section("table", zstandard.compress(b"\0" * V)), "an id that the shard does not have"),
    ("top_k", section("block0", b""), "cut short"),
    ("top_k", section("block0", lambda old: old + b"\0"), "do not fill it"),
    ("top_k", section("block0", lambda old: old[:4] + b"\xff\xff" + old[6:]), "number of tokens or columns"),
    ("top_k", column(0, BOMB), "larger than"),
    ("top_k", column(0, zstandard.compress(b"")), "another number of tokens"),
    ("top_k", column(0, zstandard.compress(b"\0" * N) + b"more"), "not compressed"),
    ("top_k", column(3, zstandard.compress(b"\0")), "large steps"),
    ("top_k", column(0, zstandard.compress(b"\xff" * N)), "large steps"),
    ("top_k", column(4, zstandard.compress(b"\0" * (N + 1))), "another number of tokens"),
    ("top_k", column(5, zstandard.compress(b"\0" * N)), "another number of ids"),
    ("top_k", column(6, zstandard.compress(b"\0" * 3)), "lower bits"),
    ("top_k", block("top_k", [SURE] * (N - 1), [0] * (N - 1)), "number of tokens or columns"),
    ("top_k", block("top_k", [SURE] * (N - 1) + [[(0, 0), (0, 255), *SURE[2:]]], [0] * N), "an id twice"),
    ("top_k", block("top_k", [SURE] * (N - 1) + [[(0, 0), (1, 0), *SURE[2:]]], [0] * N), "do not sum to 1"),
    ("top_k", block("top_k", [SURE] * (N - 1) + [[(0, 80), *SURE[1:]]], [0] * N), "do not sum to 1"),
    ("top_k", block("top_k", [SURE] * N, [0] * (N - 1) + [160]), "do not sum to 1"),
    ("counts", block("counts", [[(0, 20)]] * (N - 1) + [[(0, 21)]]), "more than the number of samples"),
    ("counts", block("counts", [[(0, 20)]] * (N - 1) + [[(0, 18), (0, 1), (1, 1)]]), "an id twice"),
    ("counts", column(1, zstandard.compress(b"\1" * 4)), "counts above 1"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "reason"), FORGED)
def test_a_forged_shard_is_rejected(tmp_path: Path, kind: str, change: Change, reason: str) -> None:
    path = write(tmp_path / "store", kind)
    forge(path, change)
    with pytest.raises(StepError, match=rf"shard is damaged \(.*{re.escape(reason)}"):
        TargetsReader(path.parent).lookup(KEYS)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"[]", b"NaN", b"{", b"9" * 5000, b"\xff"])
def test_a_footer_that_is_no_object_is_rejected(tmp_path: Path, text: bytes) -> None:
    path = write(tmp_path / "store", "top_k")
    forge(path, lambda found, sections: None, change_footer=lambda footer: text)
    with pytest.raises(StepError, match=r"shard is damaged \(its footer: "):
        store_stats(path.parent)


@pytest.mark.parametrize("kind", ["counts", "top_k"])
def test_forging_nothing_changes_nothing(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "store", kind)
    before = TargetsReader(path.parent).lookup(KEYS)
    forge(path, lambda found, sections: None)
    for one, other in zip(before, TargetsReader(path.parent).lookup(KEYS), strict=True):
        assert one is other is None or np.array_equal(one, other)


@pytest.mark.parametrize("kind", ["counts", "top_k"])
def test_a_block_of_any_bytes_is_rejected_or_gives_distributions(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "store", kind)
    whole, rejected = path.read_bytes(), 0
    for seed in range(150):
        draw = random.Random(seed)

        def spoil(old: bytes, draw: random.Random = draw) -> bytes:
            raw = bytearray(old)
            for _ in range(draw.choice([1, 2, 5])):
                raw[draw.randrange(len(raw))] = draw.randrange(256)
            return bytes(raw)

        path.write_bytes(whole)
        forge(path, section("block0", spoil))
        try:
            found = TargetsReader(path.parent).lookup(KEYS)
        except StepError:
            rejected += 1
            continue
        tails = found.tail if found.tail is not None else np.zeros(N)
        np.testing.assert_allclose(np.add.reduceat(found.probs, found.offsets[:-1]) + tails, 1, atol=1e-4)
        for low, high in zip(found.offsets[:-1], found.offsets[1:], strict=True):
            assert len(set(found.token_ids[low:high])) == high - low and found.token_ids[low:high].max() < V
    assert rejected > 50


@dataclass(frozen=True)
class _Inputs:
    kind: str = "top_k"


def test_the_advice_of_the_error_is_a_way_out(tmp_path: Path) -> None:
    """A damaged shard of a finished step: deleting it, or the step's folder, is enough for the next run."""
    added: list[int] = []

    def run(inputs: _Inputs, out: Path) -> None:
        rng = np.random.default_rng(0)
        with TargetsWriter(out / "store", meta_of(inputs.kind), shard_tokens=1) as writer:
            added.append(sum(writer.add(key, rng.normal(size=(key.tokens, V)).astype(np.float32)) for key in KEYS))
        spoiled = out / "store" / "shard-000001.targets"
        if len(added) == 1:
            forge(spoiled, section("block0", b""))  # so the step ends with a shard that it cannot read

    stage = Stage(STAGE.name, (), lambda recipe, done: _Inputs(), run, paid=STAGE.paid)

    def step() -> StepResult:
        return run_step(stage, _Inputs(), tmp_path, {})

    store = step().dir / "store"
    with pytest.raises(StepError) as caught:
        TargetsReader(store).lookup(KEYS)
    for named in (store / "shard-000001.targets", store.parent):
        assert str(named) in str(caught.value)
    (store / "shard-000001.targets").unlink()
    TargetsReader(step().dir / "store").lookup(KEYS)
    assert added == [3, 1]
    (store / "meta.json").write_text("{")
    with pytest.raises(DataError, match=r"meta\.json: not valid JSON .* Delete this file and run again"):
        TargetsReader(store)
    (store / "meta.json").unlink()
    TargetsReader(step().dir / "store").lookup(KEYS)
    assert added == [3, 1, 0]
