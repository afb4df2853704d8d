"""Targets from an endpoint: the student's own tokens get its distributions, and other tokens teach by text only."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures import UNFINISHED, light_rows, make_tokenizer
from potstill.components.chat.format import ChatFormat, Example, load_chat
from potstill.components.losses.vocabulary import token_bytes
from potstill.components.runtimes.log_probs import AnswerToken, Candidate
from potstill.components.targets import (
    TargetRows,
    TargetsMeta,
    TargetsReader,
    TargetsWriter,
    sequence_key,
    store_stats,
)
from potstill.components.targets.served import ServedTokens, require_distributions, require_same_tokens
from potstill.core.errors import RecipeError, StepError
from potstill.core.records import Message, Row

V, K = 41, 6
TEXT = "The kitchen light is on, voilà."


# ---- the store ----


def meta(**changes: Any) -> TargetsMeta:
    who = {"teacher_hash": "a", "tokenizer_hash": "b", "template_hash": "c", "dtype": "as served"}
    return TargetsMeta.model_validate({"kind": "top_k", "k": K, "vocab_size": V, **who, **changes})


def stored(folder: Path, add: Callable[[TargetsWriter], object], **changes: Any) -> TargetRows:
    with TargetsWriter(folder, meta(**changes)) as writer:
        add(writer)
    return TargetsReader(folder, meta(**changes)).lookup([sequence_key([1, 2, 3, 4, 5, 6], 2)])


@pytest.mark.parametrize("vocab", [V, 200])
def test_likeliest_ids_are_stored_as_their_logits_would_be(tmp_path: Path, vocab: int) -> None:
    """With at least k known ids, logits with these k largest and the rest spread evenly give the same bytes."""
    rng, key = np.random.default_rng(0), sequence_key([1, 2, 3, 4, 5, 6], 2)
    ids = [rng.permutation(vocab)[: K + extra].tolist() for extra in (0, 1, 3, 0)]
    probs = [rng.dirichlet(np.ones(len(row) + 1))[:-1] for row in ids]
    logits = np.empty((4, vocab), np.float32)
    for row, (known, mass) in enumerate(zip(ids, probs, strict=True)):
        best = np.argsort(-mass)[:K]
        logits[row] = math.log(1e-9 + (1 - mass[best].sum()) / (vocab - K)) - 1e-4
        logits[row, np.array(known)[best]] = np.log(mass[best])
    logs = [np.log(mass).tolist() for mass in probs]
    left = stored(tmp_path / "a", lambda w: w.add_likeliest(key, ids, logs), vocab_size=vocab)
    # if the evenly spread rest is likelier than the last of the k, no logits express what is known
    sure = [i for i, mass in enumerate(probs) if np.sort(mass)[-K] > (1 - np.sort(mass)[-K:].sum()) / (vocab - K)]
    assert sure
    right = stored(tmp_path / "b", lambda w: w.add(key, logits), vocab_size=vocab)
    for i in sure:
        part = slice(K * i, K * i + K)
        assert left.token_ids[part].tolist() == right.token_ids[part].tolist()
        np.testing.assert_array_equal(left.probs[part], right.probs[part])
        assert left.tail is not None and right.tail is not None and left.tail[i] == right.tail[i]
    assert store_stats(tmp_path / "a").kl_buckets < 0.01


def test_fewer_ids_than_k_leave_the_rest_to_all_others(tmp_path: Path) -> None:
    key = sequence_key([1, 2, 3, 4, 5, 6], 2)
    ids, logs = [[7], [7, 3], [], [9]], [[math.log(0.9)], [math.log(0.6), math.log(0.3)], [], [0.0]]
    found = stored(tmp_path, lambda w: w.add_likeliest(key, ids, logs))
    assert found.tail is not None
    for row, known in enumerate([{7: 0.9}, {7: 0.6, 3: 0.3}, {}, {9: 1.0}]):
        entries = dict(zip(found.token_ids[K * row : K * row + K], found.probs[K * row : K * row + K], strict=True))
        rest = 1 - sum(known.values())
        assert len(entries) == K
        for number, prob in entries.items():
            # the grid is an eighth of a nat
            assert prob == pytest.approx(known.get(number, rest / (V - len(known))), rel=0.09)
        assert found.tail[row] == pytest.approx(rest * (V - K) / (V - len(known)), rel=0.09)
    assert found.tail[3] == 0 and found.probs[3 * K : 4 * K].tolist() == [1.0] + [0.0] * (K - 1)


def test_entropy_is_measured_with_the_rest_spread_evenly(tmp_path: Path) -> None:
    with TargetsWriter(tmp_path, meta()) as writer:
        writer.add_likeliest(sequence_key([1, 2], 1), [[7]], [[math.log(0.8)]])
        writer.add_likeliest(sequence_key([1, 3], 1), [[7]], [[0.0]])
    expected = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2 / (V - 1)))
    assert store_stats(tmp_path).entropy == pytest.approx(expected / 2, rel=1e-6)


@pytest.mark.parametrize("logs", [[0.0, -0.5], [math.nan, -1.0], [12.0, 3.0]])
def test_more_than_all_of_the_mass_is_rejected(tmp_path: Path, logs: list[float]) -> None:
    with TargetsWriter(tmp_path, meta()) as writer:
        with pytest.raises(StepError, match="cannot be stored: the likeliest ids' probabilities sum to"):
            writer.add_likeliest(sequence_key([1, 2], 1), [[7, 3]], [logs])
        with pytest.raises(StepError, match="got ids of 2 tokens for a sequence of 1"):
            writer.add_likeliest(sequence_key([1, 2], 1), [[7], [7]], [[0.0], [0.0]])
    assert not tmp_path.exists() or not any(tmp_path.iterdir())


# ---- the tokens ----


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    return load_chat(make_tokenizer(tmp_path_factory.mktemp("served") / "tokenizer"))


def answered(text: str = TEXT, finish: str | None = "stop") -> Row:
    said = Message(role="assistant", content=text)
    return Row(
        messages=(Message(role="user", content="x"),),
        completion=said,
        provenance={"finish_reason": finish},
        where="r:1",
    )


def named(chat: ChatFormat, number: int, log_prob: float, dialect: str) -> Candidate:
    """A token as a server of this dialect gives it."""
    own = token_bytes(json.loads(chat.tokenizer.to_str()))[number]
    assert own is not None
    special = own.startswith(b"\xff")
    text = own.removeprefix(b"\xff")
    if dialect == "number":
        return Candidate(number, None, log_prob)
    if dialect == "llama.cpp":
        return Candidate(number, b"" if special else text, log_prob)
    return Candidate(None, text, log_prob)


def spoken(chat: ChatFormat, example: Example, dialect: str, *, end: bool = True) -> list[AnswerToken]:
    """The answer's tokens, each at 0.7, the end token at 0.2, and a token that no student has at 0.05."""
    ids = example.ids[example.n_prompt :]
    found = []
    for number in ids if end else ids[:-1]:
        stop = chat.eos_id if number != chat.eos_id else 5
        top = [
            named(chat, number, math.log(0.7), dialect),
            named(chat, stop, math.log(0.2), dialect),
            Candidate(
                99_999 if dialect != "bytes" else None, None if dialect == "number" else b"\xf0zz", math.log(0.05)
            ),
        ]
        found.append(AnswerToken(top[0], tuple(top)))
    return found


@pytest.mark.parametrize("dialect", ["bytes", "llama.cpp", "number"])
@pytest.mark.parametrize("end", [True, False])
def test_the_same_tokens_teach_by_their_distributions(chat: ChatFormat, dialect: str, end: bool) -> None:
    row = answered()
    example = chat.example(row)
    ids = example.ids[example.n_prompt :]
    found = ServedTokens(chat).targets(row, example, spoken(chat, example, dialect, end=end))
    assert found.text_only is None
    assert found.ids[:-1] == [[number, chat.eos_id] for number in ids[:-1]]
    assert found.log_probs[:-1] == [[math.log(0.7), math.log(0.2)]] * (len(ids) - 1)
    # an end token without log-probabilities counts as certain
    assert (found.ids[-1], found.log_probs[-1]) == (
        ([chat.eos_id, 5], [math.log(0.7), math.log(0.2)]) if end else ([chat.eos_id], [0.0])
    )


def test_a_chosen_token_outside_of_the_likeliest_is_known_too(chat: ChatFormat) -> None:
    row = answered()
    example = chat.example(row)
    said = [s._replace(token=s.token._replace(log_prob=-3.0), top=s.top[1:]) for s in spoken(chat, example, "bytes")]
    found = ServedTokens(chat).targets(row, example, said)
    assert found.log_probs[0] == [-3.0, math.log(0.2)]


def test_another_end_token_than_the_students_is_an_end(chat: ChatFormat) -> None:
    row = answered()
    example = chat.example(row)
    said = spoken(chat, example, "bytes")
    other = Candidate(None, b"", -0.5)  # a special token, given as empty text
    found = ServedTokens(chat).targets(row, example, [*said[:-1], AnswerToken(other, (other,))])
    assert found.text_only is None and (found.ids[-1], found.log_probs[-1]) == ([chat.eos_id], [0.0])
    word = Candidate(None, b"more", -0.5)
    found = ServedTokens(chat).targets(row, example, [*said[:-1], AnswerToken(word, (word,))])
    assert (
        found.text_only == "other_tokens"
        and "'more' at the endpoint and the end of the answer to the student" in found.difference
    )


@pytest.mark.parametrize("reason", UNFINISHED)
def test_an_unfinished_answer_has_no_end(chat: ChatFormat, reason: str | None) -> None:
    row = answered(finish=reason)
    example = chat.example(row)
    assert not example.eos_supervised
    tokens = ServedTokens(chat)
    said = spoken(chat, example, "bytes")
    found = tokens.targets(row, example, said)
    assert found.text_only is None and chat.eos_id not in [ids[0] for ids in found.ids]
    assert tokens.targets(row, example, said[:-1]).text_only == "other_tokens"


def test_other_tokens_teach_by_the_text_only(chat: ChatFormat) -> None:
    row = answered()
    example = chat.example(row)
    ids = list(example.ids[example.n_prompt :])
    said = spoken(chat, example, "bytes")
    joined = Candidate(None, (said[1].token.text or b"") + (said[2].token.text or b""), -0.1)
    tokens = ServedTokens(chat)
    found = tokens.targets(row, example, [said[0], AnswerToken(joined, (joined,)), *said[3:]])
    assert found.text_only == "other_tokens"
    assert found.difference.startswith(f"token 1 is {joined.text.decode()!r} at the endpoint and {ids[1]} ")  # type: ignore[union-attr]
    assert (found.ids, found.log_probs) == ([[number] for number in ids], [[0.0]] * len(ids))
    assert tokens.targets(row, example, None).text_only == "no_log_probs"
    # ids of another vocabulary do not count if the bytes differ, and the bytes count if the ids differ
    moved = [s._replace(token=s.token._replace(id=7)) for s in said]
    assert tokens.targets(row, example, moved).text_only is None
    wrong = [s._replace(token=s.token._replace(text=None, id=7)) for s in said]
    assert tokens.targets(row, example, wrong).text_only == "other_tokens"


def test_tool_calls_that_were_parsed_teach_by_the_text_only(chat: ChatFormat) -> None:
    row = Row.model_validate(light_rows([""])[0])
    example = chat.example(row)
    tokens = ServedTokens(chat)
    assert tokens.targets(row, example, None).text_only == "tool_calls"
    assert tokens.targets(row, example, spoken(chat, example, "bytes")[:3]).text_only == "tool_calls"
    # an endpoint may parse the call and still give the tokens of its text
    assert tokens.targets(row, example, spoken(chat, example, "llama.cpp")).text_only is None


def test_more_than_half_of_other_tokens_is_an_error(chat: ChatFormat) -> None:
    rows = [answered(), answered("Yes."), answered("No."), Row.model_validate(light_rows([""])[0])]
    tokens = ServedTokens(chat)
    examples = [chat.example(row) for row in rows]
    good = [tokens.targets(r, e, spoken(chat, e, "bytes")) for r, e in zip(rows, examples, strict=True)]
    bad = [tokens.targets(r, e, spoken(chat, e, "bytes")[1:]) for r, e in zip(rows, examples, strict=True)]
    require_same_tokens(rows, [*bad[:2], *good[2:]], "http://here")
    with pytest.raises(
        StepError, match=r"http://here: .*another tokenizer.* 2 of 3 answers into other tokens.*In r:1 token 0"
    ):
        require_same_tokens(rows, [*bad[:2], good[2], bad[3]], "http://here")
    require_distributions([*good[:2], *bad[2:]], "http://here")
    with pytest.raises(StepError, match=r"3 of 4 answers.*0 have no.*1 are tool calls.*2 into other tokens"):
        require_distributions([good[0], *bad[1:]], "http://here")


def test_a_tokenizer_without_bytes_is_rejected(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders

    folder = make_tokenizer(tmp_path / "tokenizer")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(RecipeError, match=r"student\.model: .*found by their bytes"):
        ServedTokens(load_chat(folder))
