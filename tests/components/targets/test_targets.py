"""The targets store: samples are unbiased, reading returns what was written, and damaged files are rejected."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fixtures import SHARED
from potstill.components.targets import (
    SequenceKey,
    TargetRows,
    TargetsMeta,
    TargetsReader,
    TargetsWriter,
    expected_bytes,
    render_stats,
    sequence_key,
    store_stats,
)
from potstill.components.targets.coding import Block, decode_block, encode_block, id_order, rank_table
from potstill.core.errors import DataError, StepError
from potstill.core.files import unfinished

V = 37
COUNTS: dict[str, Any] = {"kind": "counts", "draws": 50, "seed": 3}
TOP_K: dict[str, Any] = {"kind": "top_k", "k": 8}
# rows of unlike lengths; the logits of one seed are the same wherever they are made
ROWS = [(5, 2), (9, 1), (4, 3), (30, 10), (12, 11)]


def meta_of(case: dict[str, Any] = COUNTS, **changes: Any) -> TargetsMeta:
    given = {
        "vocab_size": V, "teacher_hash": "teacher-a", "tokenizer_hash": "tokenizer-a", "template_hash": "template-a",
        "dtype": "float32", **case,
    }  # fmt: skip
    return TargetsMeta(**(given | changes))


def sequences(number: int = 5, vocab: int = V) -> list[tuple[SequenceKey, NDArray[np.float32]]]:
    found = []
    for index in range(number):
        length, n_prompt = ROWS[index % len(ROWS)]
        rng = np.random.default_rng(index)
        key = sequence_key(rng.integers(0, vocab, length).tolist(), n_prompt)
        found.append((key, rng.normal(0, 3, (length - n_prompt, vocab)).astype(np.float32)))
    return found


def fill(folder: Path, meta: TargetsMeta, rows: list[tuple[SequenceKey, NDArray[np.float32]]], shard: int = 20) -> Path:
    with TargetsWriter(folder, meta, shard_tokens=shard) as writer:
        for key, logits_NV in rows:
            writer.add(key, logits_NV)
    return folder


def softmax(logits_NV: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    """The oracle: float64, by its definition."""
    weights_NV = np.exp((logits_NV.astype(np.float64) - logits_NV.max(1, keepdims=True)) / temperature)
    return np.asarray(weights_NV / weights_NV.sum(1, keepdims=True))


def dense(targets: TargetRows, vocab: int = V) -> NDArray[np.float64]:
    """(N, V) probabilities by a plain loop."""
    out_NV = np.zeros((len(targets.offsets) - 1, vocab))
    for row, (low, high) in enumerate(itertools.pairwise(targets.offsets.tolist())):
        for place in range(low, high):
            out_NV[row, targets.token_ids[place]] += targets.probs[place]
    return out_NV


def same(one: TargetRows, other: TargetRows) -> bool:
    """Whether targets are equal; entries of equal probability may have another order."""
    tails = (one.tail is None) == (other.tail is None) and (one.tail is None or np.array_equal(one.tail, other.tail))
    return tails and np.array_equal(one.offsets, other.offsets) and np.array_equal(dense(one), dense(other))


# -- what is drawn --


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("vocab", [V, 300])  # 300 ids are three spans of ids, the last one short
def test_counts_are_unbiased(tmp_path: Path, vocab: int, temperature: float) -> None:
    rng = np.random.default_rng(1)
    logits_NV = np.repeat(rng.normal(0, 2, (1, vocab)).astype(np.float32), 400, axis=0)
    meta = meta_of(vocab_size=vocab, temperature=temperature)
    keys = [sequence_key([seed, *range(400)], 1) for seed in range(10)]
    fill(tmp_path / "store", meta, [(key, logits_NV) for key in keys])
    mean_V = dense(TargetsReader(tmp_path / "store").lookup(keys), vocab).mean(0)
    p_V = softmax(logits_NV[:1], temperature)[0]
    draws = 50 * 400 * 10
    z_V = (mean_V - p_V) / np.sqrt(p_V * (1 - p_V) / draws)
    assert np.abs(z_V).max() < 4.5
    assert 0.8 < z_V.std() < 1.2  # exactly as noisy as multinomial samples: no id is favoured
    # chi-squared over ids that are frequent enough
    common_V = p_V * draws > 20
    chi = draws * ((mean_V - p_V) ** 2 / p_V)[common_V].sum()
    assert chi < common_V.sum() + 5 * np.sqrt(2 * common_V.sum())


def test_samples_of_a_token_are_independent_of_its_neighbours(tmp_path: Path) -> None:
    logits_NV = np.zeros((2000, 2), dtype=np.float32)
    key = sequence_key([0, *range(2000)], 1)
    fill(tmp_path / "store", meta_of(vocab_size=2, draws=10), [(key, logits_NV)])
    first_N = dense(TargetsReader(tmp_path / "store").lookup([key]), 2)[:, 0]
    assert first_N.var() == pytest.approx(0.25 / 10, rel=0.15)  # binomial
    assert abs(np.corrcoef(first_N[:-1], first_N[1:])[0, 1]) < 0.1


def test_an_id_without_probability_is_never_sampled_and_sums_stay_finite(tmp_path: Path) -> None:
    logits_NV = np.full((300, 200), -np.inf, dtype=np.float32)
    logits_NV[:, [5, 130]] = [0.0, -20.0]  # one id takes all but 2e-9; whole spans are empty
    key = sequence_key(list(range(301)), 1)
    for name, case in (("counts", COUNTS), ("top", TOP_K)):
        fill(tmp_path / name, meta_of(case, vocab_size=200), [(key, logits_NV)])
        found = dense(TargetsReader(tmp_path / name).lookup([key]), 200)
        assert found[:, 5].min() > 0.999
        assert np.delete(found, [5, 130], axis=1).max() == 0
        assert all(np.isfinite(v) for v in store_stats(tmp_path / name).to_json().values() if isinstance(v, float))


@pytest.mark.parametrize("case", [COUNTS, TOP_K], ids=["counts", "top_k"])
def test_neither_order_nor_chunks_nor_kind_of_array_change_what_is_stored(tmp_path: Path, case: dict[str, Any]) -> None:
    rows = sequences()
    keys = [key for key, _ in rows]
    fill(tmp_path / "plain", meta_of(case), rows)
    fill(tmp_path / "turned", meta_of(case), rows[::-1], shard=1)
    with TargetsWriter(tmp_path / "cut", meta_of(case)) as writer:
        whole = torch.from_numpy(np.concatenate([logits for _, logits in rows]))
        assert writer.add_batch(keys, whole.split(7)) == len(rows)
        assert not writer.add(keys[2], (row[None] for row in rows[2][1]))  # already stored
    plain = TargetsReader(tmp_path / "plain").lookup(keys)
    for other in ("turned", "cut"):
        assert same(plain, TargetsReader(tmp_path / other).lookup(keys)), other
    seeds = {} if case is TOP_K else {"seed": 4}
    fill(tmp_path / "seeded", meta_of(case, **seeds), rows)
    assert same(plain, TargetsReader(tmp_path / "seeded").lookup(keys)) == (case is TOP_K)


# -- what is written comes back --


def test_top_k_keeps_the_likeliest_ids_within_the_grid(tmp_path: Path) -> None:
    rows = sequences()
    fill(tmp_path / "store", meta_of(TOP_K), rows)
    targets = TargetsReader(tmp_path / "store").lookup([key for key, _ in rows])
    p_NV = softmax(np.concatenate([logits for _, logits in rows]))
    top_NK = np.sort(np.argsort(-p_NV, axis=1)[:, :8], axis=1)
    assert np.array_equal(np.sort(targets.token_ids.reshape(-1, 8), axis=1), top_NK)
    assert targets.tail is not None
    true_tail_N = 1 - np.take_along_axis(p_NV, top_NK, 1).sum(1)
    assert targets.tail == pytest.approx(true_tail_N, rel=0.06)
    found_NV = dense(targets)
    assert found_NV.sum(1) + targets.tail == pytest.approx(np.ones(len(p_NV)), abs=1e-6)
    kept = found_NV > 0
    assert np.abs(np.log(found_NV[kept] / p_NV[kept])).max() < 0.125 + 0.06
    falling = np.diff(targets.probs.reshape(-1, 8), axis=1)
    assert falling.max() <= 0


def test_counts_sum_to_the_samples_and_ids_are_distinct(tmp_path: Path) -> None:
    rows = sequences()
    fill(tmp_path / "store", meta_of(), rows)
    targets = TargetsReader(tmp_path / "store").lookup([key for key, _ in rows])
    assert targets.tail is None
    assert [a.dtype for a in targets[:3]] == [np.int64, np.int64, np.float32]
    assert targets.offsets[0] == 0 and targets.offsets[-1] == len(targets.token_ids)
    for low, high in itertools.pairwise(targets.offsets.tolist()):
        drawn = targets.probs[low:high] * 50
        assert drawn.sum() == pytest.approx(50) and np.allclose(drawn, np.rint(drawn), atol=1e-4)
        assert len(set(targets.token_ids[low:high].tolist())) == high - low
        assert np.all(np.diff(drawn) <= 1e-4)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_decoding_returns_the_block(data: st.DataObject) -> None:
    vocab = data.draw(st.sampled_from([1, 3, 300, 70_000, 17_000_000 // 64]))
    counts = data.draw(st.booleans())
    draws, k = (data.draw(st.integers(1, 255)), None) if counts else (None, data.draw(st.integers(1, min(vocab, 40))))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    lengths, ids, values = [], [], []
    for _ in range(data.draw(st.integers(1, 12))):
        if draws is not None:
            drawn, times = np.unique(rng.integers(0, vocab, draws) ** 2 % vocab, return_counts=True)
        else:
            assert k is not None
            drawn, times = rng.choice(vocab, k, replace=False), rng.integers(0, 256, k)
        lengths.append(len(drawn))
        ids.append(drawn)
        values.append(times)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    all_ids, all_values = np.concatenate(ids), np.concatenate(values).astype(np.uint8)
    tails = np.zeros(0, np.uint8) if counts else rng.integers(0, 256, len(lengths)).astype(np.uint8)
    table = rank_table(all_ids, vocab)
    rank = np.empty(vocab, np.int64)
    rank[id_order(table)] = np.arange(vocab)
    packed = encode_block(Block(offsets, all_ids.astype(np.uint32), all_values, tails), rank, falling=counts)
    found = decode_block(packed, id_order(table), tokens=len(lengths), draws=draws, k=k)
    assert np.array_equal(found.offsets_N1, offsets) and np.array_equal(found.tails_N, tails)
    for low, high in itertools.pairwise(offsets.tolist()):
        wanted = sorted(zip(all_ids[low:high].tolist(), all_values[low:high].tolist(), strict=True))
        assert sorted(zip(found.ids_M[low:high].tolist(), found.values_M[low:high].tolist(), strict=True)) == wanted


@given(order=st.permutations(range(5)), cache=st.sampled_from([0, 1 << 20]), twice=st.booleans())
@settings(max_examples=15, deadline=None)
def test_targets_follow_the_sequence_not_the_order(
    stores: dict[str, Path], order: list[int], cache: int, twice: bool
) -> None:
    rows = sequences()
    order = order + order[:2] if twice else order
    for folder in stores.values():
        reader = TargetsReader(folder, cache_bytes=cache)
        together = reader.lookup([rows[i][0] for i in order])
        alone = [reader.lookup([rows[i][0]]) for i in order]
        assert np.array_equal(together.token_ids, np.concatenate([t.token_ids for t in alone]))
        assert np.array_equal(together.probs, np.concatenate([t.probs for t in alone]))
        assert len(together.offsets) == 1 + sum(rows[i][0].tokens for i in order)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    return {str(c["kind"]): fill(folder / c["kind"], meta_of(c), sequences()) for c in (COUNTS, TOP_K)}


def test_a_shard_of_many_blocks_is_read_from_the_right_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sequences()
    keys = [key for key, _ in rows]
    one = TargetsReader(fill(tmp_path / "one", meta_of(), rows, shard=1000)).lookup(keys)
    monkeypatch.setattr("potstill.components.targets.shards._BLOCK_TOKENS", 6)
    reader = TargetsReader(fill(tmp_path / "many", meta_of(), rows, shard=1000))
    assert len(reader.shards) == 1 and len(reader.shards[0].footer.blocks) > 2
    assert same(one, reader.lookup(keys))


def test_the_key_is_of_all_ids_and_of_where_supervision_starts() -> None:
    keys = {sequence_key(ids, n).digest for ids in ([1, 2, 3, 4], [1, 2, 4, 3], [1, 2, 3]) for n in (1, 2)}
    assert len(keys) == 6
    assert sequence_key((1, 2, 3, 4), 1) == sequence_key([1, 2, 3, 4], 1)
    assert sequence_key([1, 2, 3, 4], 1).tokens == 3
    for wrong in (0, 3):
        with pytest.raises(ValueError, match="n_prompt"):
            sequence_key([1, 2, 3], wrong)


# -- what is foreign or missing is refused --


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"teacher_hash": "teacher-b"}, "teacher weights (teacher-a in the store, teacher-b now)"),
        ({"tokenizer_hash": "tokenizer-b"}, "tokenizer (tokenizer-a in the store, tokenizer-b now)"),
        ({"template_hash": "template-b"}, "chat template"),
        ({"temperature": 2.0}, "temperature (1.0 in the store, 2.0 now)"),
        ({"vocab_size": 40}, "vocabulary size (37 in the store, 40 now)"),
        ({"draws": 16}, "samples per token (50 in the store, 16 now)"),
        ({"dtype": "bfloat16"}, "teacher's dtype"),
        ({"kind": "top_k", "k": 8, "draws": None, "seed": None}, "kind of target (counts in the store, top_k now)"),
    ],
)
def test_a_store_of_another_identity_is_rejected_by_name(
    stores: dict[str, Path], change: dict[str, Any], word: str
) -> None:
    other = meta_of(**change)
    for opening in (lambda: TargetsReader(stores["counts"], other), lambda: TargetsWriter(stores["counts"], other)):
        with pytest.raises(DataError) as caught:
            opening()
        assert word in str(caught.value) and str(stores["counts"]) in str(caught.value)
    TargetsReader(stores["counts"], meta_of())


def test_samples_of_another_seed_may_be_read_but_not_added_to(stores: dict[str, Path]) -> None:
    TargetsReader(stores["counts"], meta_of(seed=4))
    with pytest.raises(DataError, match=r"seed of the samples \(3 in the store, 4 now\)"):
        TargetsWriter(stores["counts"], meta_of(seed=4))


def test_a_shard_of_another_store_is_rejected(tmp_path: Path) -> None:
    rows = sequences()
    fill(tmp_path / "a", meta_of(), rows[:1])
    fill(tmp_path / "b", meta_of(teacher_hash="teacher-b"), rows[1:2])
    os.rename(tmp_path / "b" / "shard-000000.targets", tmp_path / "a" / "shard-000001.targets")
    with pytest.raises(StepError, match=r"shard-000001\.targets: the shard belongs to another store"):
        TargetsReader(tmp_path / "a")


def test_missing_sequences_are_counted_and_the_first_is_named(stores: dict[str, Path]) -> None:
    keys = [key for key, _ in sequences(8)]
    reader = TargetsReader(stores["top_k"])
    assert keys[4] in reader and keys[5] not in reader and len(reader) == 5
    for ask in (reader.require, reader.lookup):
        with pytest.raises(StepError, match=r"3 of 8 sequences have no stored targets; the first is row 5 "):
            ask(keys)


def test_a_missing_store_and_an_unknown_format_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no targets store"):
        TargetsReader(tmp_path)
    folder = fill(tmp_path / "store", meta_of(), sequences(1))
    for text, word in (
        ('{"format": 9}', "format 9"),
        ("{", "not valid JSON"),
        ('{"kind": "counts"}', "Field required"),
    ):
        (folder / "meta.json").write_text(text)
        with pytest.raises(DataError, match=word):
            TargetsReader(folder)


@pytest.mark.parametrize(
    "wrong", [{"seed": None}, {"draws": 0}, {"draws": 256}, {"k": 3}, {"kind": "top_k"}, {"temperature": 0.0}]
)
def test_an_identity_must_be_complete(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"counts needs|top_k needs|greater than|less than"):
        meta_of(**wrong)


def test_logits_that_are_no_distribution_are_rejected_and_nothing_is_left(tmp_path: Path) -> None:
    key, logits = sequences(1)[0]
    spoiled = []
    for value in (np.nan, np.inf):
        bad = logits.copy()
        bad[1, 4] = value
        spoiled.append(bad)
    spoiled.append(np.full_like(logits, -np.inf))
    for case in (COUNTS, TOP_K):
        with TargetsWriter(tmp_path / "store", meta_of(case)) as writer:
            for bad in spoiled:
                with pytest.raises(StepError, match="NaN"):
                    writer.add(key, bad)
            with pytest.raises(StepError, match="Remove the padding of the vocabulary"):
                writer.add(key, logits[:, :-1])
            with pytest.raises(StepError, match="got logits of 2 tokens for sequences of 3"):
                writer.add(key, logits[:2])
            with pytest.raises(StepError, match="more rows"):
                writer.add(key, [logits, logits])
            assert key not in writer
        assert not (tmp_path / "store").exists()


# -- what is damaged is refused, what is killed goes on --


@pytest.mark.parametrize("case", [COUNTS, TOP_K], ids=["counts", "top_k"])
def test_any_flipped_byte_is_reported_with_the_shards_name(tmp_path: Path, case: dict[str, Any]) -> None:
    rows = sequences()
    folder = fill(tmp_path / "store", meta_of(case), rows)
    shard = sorted(folder.glob("*.targets"))[0]
    good = shard.read_bytes()
    places = {*range(0, len(good), 23), *range(20), *range(len(good) - 45, len(good))}
    for place in places:
        shard.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        with pytest.raises(StepError, match=rf"{shard.name}: the shard is damaged \(.*Delete this file"):
            TargetsReader(folder).lookup([key for key, _ in rows])
    for length in (0, 10, len(good) // 2, len(good) - 1):
        shard.write_bytes(good[:length])
        with pytest.raises(StepError, match=shard.name):
            TargetsReader(folder)
    # the advice of the message works
    whole = TargetsReader(fill(tmp_path / "whole", meta_of(case), rows)).lookup([key for key, _ in rows])
    shard.unlink()
    fill(folder, meta_of(case), rows)
    assert same(whole, TargetsReader(folder).lookup([key for key, _ in rows]))


_KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = {paths!r}
from test_targets import meta_of, sequences
from potstill.components.targets import TargetsWriter
writer = TargetsWriter(Path({folder!r}), meta_of(), shard_tokens=20)
for key, logits in sequences(200):
    writer.add(key, logits)
    print(flush=True)
time.sleep(60)
"""


def test_a_killed_writer_loses_only_the_shard_that_it_was_writing(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    code = _KILLED.format(paths=[str(Path(__file__).parent), str(Path(__file__).parents[2])], folder=str(folder))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(23):
            assert process.stdout.readline(), "the writer died by itself"
        with pytest.raises(StepError, match="another process is writing"):
            TargetsWriter(folder, meta_of())
        process.send_signal(signal.SIGKILL)
    half = unfinished(folder / "shard-000099.targets")  # as if killed while writing one
    half.write_bytes(b"half a shard")
    (folder / "notes.tmp").write_text("a user's")
    rows = sequences(30)
    keys = [key for key, _ in rows]
    kept = sum(key in TargetsReader(folder) for key in keys)
    tokens = [key.tokens for key in keys]
    assert sum(tokens[:23]) - sum(tokens[:kept]) < 20 + max(tokens), "more than one shard was lost"
    fill(folder, meta_of(), rows)
    assert not half.exists()
    assert (folder / "notes.tmp").exists()
    whole = TargetsReader(fill(tmp_path / "whole", meta_of(), rows)).lookup(keys)
    assert same(whole, TargetsReader(folder).lookup(keys))


def test_an_error_of_the_caller_keeps_whole_sequences(tmp_path: Path) -> None:
    rows = sequences()

    def broken_chunks() -> Iterator[NDArray[np.float32]]:
        yield rows[1][1][:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), TargetsWriter(tmp_path / "store", meta_of()) as writer:
        assert writer.add(*rows[0]) and writer.add(rows[1][0], broken_chunks())
    assert rows[1][0] not in TargetsReader(tmp_path / "store")
    assert rows[0][0] in TargetsReader(tmp_path / "store")


# -- what it costs, and what it is worth --


def test_stats_measure_the_loss_against_the_full_distribution(stores: dict[str, Path]) -> None:
    rows = sequences()
    keys = [key for key, _ in rows]
    p_NV = softmax(np.concatenate([logits for _, logits in rows]))
    entropy_N = -(p_NV * np.log(p_NV)).sum(1)

    found = store_stats(stores["counts"])
    r_NV = dense(TargetsReader(stores["counts"]).lookup(keys))
    drawn = r_NV > 0
    r_log_r = np.where(drawn, r_NV * np.log(np.where(drawn, r_NV, 1)), 0)
    assert found.entropy == pytest.approx(entropy_N.mean(), rel=1e-5)
    assert found.tail_mass == pytest.approx((p_NV * ~drawn).sum(1).mean(), rel=1e-4)
    assert found.kl_stored_teacher == pytest.approx((r_log_r - r_NV * np.log(p_NV)).sum(1).mean(), rel=1e-4)
    gap_N = -(r_NV * np.log(p_NV)).sum(1) - entropy_N
    assert found.bias == pytest.approx(gap_N.mean(), rel=1e-4)
    assert found.bias_standard_error == pytest.approx(gap_N.std(ddof=1) / np.sqrt(len(gap_N)), rel=1e-3)
    assert abs(found.bias) < 4 * found.bias_standard_error
    assert found.ids_per_token == pytest.approx(drawn.sum(1).mean())
    assert (found.sequences, found.tokens) == (5, len(p_NV))
    assert found.bytes == sum(path.stat().st_size for path in stores["counts"].glob("*.targets"))

    found = store_stats(stores["top_k"])
    targets = TargetsReader(stores["top_k"]).lookup(keys)
    assert targets.tail is not None
    r_NV = dense(targets)
    kept = r_NV > 0
    inside_N = np.where(kept, p_NV * np.log(p_NV / np.where(kept, r_NV, 1)), 0).sum(1)
    tail_N = (p_NV * ~kept).sum(1)
    buckets_N = inside_N + tail_N * np.log(tail_N / targets.tail)
    even_NV = np.where(kept, r_NV, targets.tail[:, None] / (V - 8))
    assert found.tail_mass == pytest.approx(tail_N.mean(), rel=1e-4)
    assert found.kl_buckets == pytest.approx(buckets_N.mean(), rel=2e-3)
    assert found.kl_even_tail == pytest.approx((p_NV * np.log(p_NV / even_NV)).sum(1).mean(), rel=1e-3)
    assert 0 < found.kl_buckets < 1e-3 < found.kl_even_tail


def test_k_of_the_whole_vocabulary_has_no_tail(tmp_path: Path) -> None:
    key, logits = sequences(1)[0]
    fill(tmp_path / "store", meta_of(TOP_K, k=V), [(key, logits)])
    targets = TargetsReader(tmp_path / "store").lookup([key])
    assert targets.tail is not None and targets.tail.max() == 0
    assert dense(targets).sum(1) == pytest.approx(np.ones(3), abs=1e-6)
    found = store_stats(tmp_path / "store")
    assert found.kl_even_tail == pytest.approx(found.kl_buckets, abs=1e-6) and found.kl_buckets < 1e-3


def test_stats_are_rendered_as_text(stores: dict[str, Path]) -> None:
    assert "50 samples per token, 37 ids, temperature 1" in render_stats(store_stats(stores["counts"]))
    assert "top 8 with tail mass" in render_stats(store_stats(stores["top_k"]))


def calibrated(tokens: int, vocab: int = 32000) -> Iterator[torch.Tensor]:
    """Logits with the entropy of a language model's and the unigram skew of English: 2 nats, 12 ids per 50 samples."""
    generator = torch.Generator().manual_seed(0)
    head_HV = torch.randn(64, vocab, generator=generator)
    for _ in range(0, tokens, 128):
        sureness_N1 = 5 / 8 * torch.exp(0.6 * torch.randn(128, 1, generator=generator))
        hidden_NH = torch.randn(128, 64, generator=generator) * sureness_N1
        yield hidden_NH @ head_HV - 1.5 * torch.log(torch.arange(vocab) + 2.7)


@pytest.mark.parametrize(("case", "size", "budget"), [(COUNTS, 50, 22.0), ({"kind": "top_k", "k": 32}, 32, 60.0)])
def test_bytes_per_token_at_32000_ids_and_their_estimate(
    tmp_path: Path, case: dict[str, Any], size: int, budget: float
) -> None:
    keys = [sequence_key([row, *range(256)], 1) for row in range(4)]
    with TargetsWriter(tmp_path / "store", meta_of(case, vocab_size=32000)) as writer:
        writer.add_batch(keys, calibrated(4 * 256))
    found = store_stats(tmp_path / "store")
    # in such a small store, the tables of each shard take a larger part than in a full shard
    footer = TargetsReader(tmp_path / "store").shards[0].footer
    tables = sum(footer.sections[name][1] for name in ("table", "keys", "tokens")) + 1000
    per_token = (found.bytes - tables) / found.tokens
    assert per_token < budget
    assert expected_bytes(case["kind"], found.tokens, 32000, size) == pytest.approx(per_token * found.tokens, rel=0.15)


def test_the_estimate_grows_with_all_that_makes_a_store_grow() -> None:
    assert expected_bytes("counts", 2000, 32000, 50) == pytest.approx(
        2 * expected_bytes("counts", 1000, 32000, 50), abs=1
    )
    assert expected_bytes("counts", 1000, 128256, 50) > expected_bytes("counts", 1000, 32000, 50)
    assert expected_bytes("top_k", 1000, 32000, 32) > expected_bytes("top_k", 1000, 32000, 8)


def test_a_real_model_on_real_text(tmp_path: Path) -> None:
    """bitllama-3M has 512 ids; 50 samples give 7.5 ids and 8.5 bytes per token, and the top 32 give 40 bytes."""
    folder, texts = SHARED / "models" / "bitllama-3M", SHARED / "tinystories" / "tinystories_1000.json"
    for path in (folder, texts):
        if not path.exists():
            pytest.skip(f"{path} is not here")
    from tokenizers import Tokenizer

    from potstill.components.runtimes.load import load_causal_lm

    model, tokenizer = load_causal_lm(folder).eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))
    keys, logits = [], []
    with torch.inference_mode():
        for text in json.loads(texts.read_text())[:6]:
            ids = tokenizer.encode(text).ids[:300]
            keys.append(sequence_key(ids, 1))
            logits.append(model(input_ids=torch.tensor([ids])).logits[0, :-1].float())
    for case, budget in ((COUNTS, 11.0), ({"kind": "top_k", "k": 32}, 43.0)):
        store = tmp_path / str(case["kind"])
        with TargetsWriter(store, meta_of(case, vocab_size=logits[0].shape[1])) as writer:
            assert writer.add_batch(keys, logits) == len(keys)
        found = store_stats(store)
        assert found.bytes_per_token < budget
        if case is COUNTS:
            assert abs(found.bias) < 4 * found.bias_standard_error
        begun = time.process_time()
        TargetsReader(store).lookup(keys)
        assert found.tokens / (time.process_time() - begun) > 20_000  # decoding is faster than any training


def test_the_stats_command_prints_text_or_one_json_object(stores: dict[str, Path], tmp_path: Path) -> None:
    from click.testing import CliRunner

    from potstill.cli.main import main

    shown = CliRunner().invoke(main, ["targets", "stats", str(stores["counts"])])
    assert shown.exit_code == 0 and "50 samples per token" in shown.stdout
    told = CliRunner().invoke(main, ["targets", "stats", str(stores["top_k"]), "--json"])
    assert json.loads(told.stdout) == store_stats(stores["top_k"]).to_json()
    refused = CliRunner().invoke(main, ["targets", "stats", str(tmp_path)])
    assert refused.exit_code == 2 and "no targets store" in refused.stderr
