"""Texts of people count as far as they fit into the context."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.components.chat.format import ChatFormat, load_chat
from potstill.components.chat.written import fitting_rows, written_rows
from potstill.core.records import Row


def row(text: str, *, continuation: bool = True) -> Row:
    return Row.model_validate(
        {
            "messages": [{"role": "user", "content": "Once upon a time"}],
            "completion": {"role": "assistant", "content": text},
            "gold": {"continuation": True} if continuation else None,
        }
    )


def written(rows: list[Row], chat: ChatFormat, context: int) -> list[str]:
    return [r.completion.content or "" for r in written_rows(rows, chat, context) if r.completion]


def test_whole_texts_stay_as_they_are(tiny_model: Path) -> None:
    chat = load_chat(tiny_model)
    rows = [row("the light is on"), row("never mind", continuation=False), row("turn it off")]
    context = max(len(chat.example(each).ids) for each in rows)
    assert written_rows(rows, chat, context) == [rows[0], rows[2]]


@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(st.sampled_from(["light", "the  kitchen", "on\n\n", "äöü", "42,"]), min_size=1, max_size=30),
    spare=st.integers(-2, 60),
)
def test_a_long_text_ends_with_the_last_word_that_fits(tiny_model: Path, words: list[str], spare: int) -> None:
    chat = load_chat(tiny_model)
    whole = row(" ".join(words))
    text = whole.completion.content if whole.completion else None
    assert text
    context = chat.example(whole).n_prompt + spare
    found = written_rows([whole], chat, context)
    if len(chat.example(whole).ids) <= context:
        assert found == [whole]
        return
    kept = ""
    if found:
        (one,) = found
        example = chat.example(one)
        assert len(example.ids) <= context
        assert not example.eos_supervised
        assert one.completion
        kept = one.completion.content or ""
        assert text.startswith(kept)
        assert kept.split() == text.split()[: len(kept.split())]
    rest = text[len(kept) :]
    if not rest.strip():  # only the white space at the end did not fit
        return
    word = rest.split()[0]
    longer = kept + rest[: rest.index(word) + len(word)]
    cut = row(longer).model_copy(update={"provenance": {"finish_reason": "length"}})
    assert len(chat.example(cut).ids) > context


def test_rows_without_such_text_are_never_cut(tiny_model: Path) -> None:
    chat = load_chat(tiny_model)
    rows = [row("the light is on, and stays on", continuation=False), row("the light is on, and stays on")]
    context = len(chat.example(rows[0]).ids) - 1
    whole, cut = fitting_rows(rows, chat, context)
    assert whole == rows[0]
    assert len(chat.example(cut).ids) <= context
