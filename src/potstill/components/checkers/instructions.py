"""Instructions on the form of an answer that can be verified: its length, format, words and case.

The names and parameters are those of IFEval. Two of its instructions are judged more strictly than in its own code:
JSON must be the whole answer, also without a code fence, and a bullet must begin a line.

Source: Zhou et al. (2023), "Instruction-Following Evaluation for Large Language Models".
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from potstill.core.json_values import BadJson, read_strictly

__all__ = ["INSTRUCTIONS", "check_instruction", "follows"]

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|\n+")
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")


def _compared(found: int, relation: str | None, wanted: int) -> bool:
    return found < wanted if relation == "less than" else found >= wanted


def _words(text: str, word: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def _keywords(text: str, *, keywords: Sequence[str]) -> bool:
    return all(_words(text, word) for word in keywords)


def _frequency(text: str, *, keyword: str, frequency: int, relation: str | None = None) -> bool:
    return _compared(_words(text, keyword), relation, frequency)


def _forbidden(text: str, *, forbidden_words: Sequence[str]) -> bool:
    return not any(_words(text, word) for word in forbidden_words)


def _letters(text: str, *, letter: str, let_frequency: int, let_relation: str | None = None) -> bool:
    return _compared(text.casefold().count(letter.casefold()), let_relation, let_frequency)


def _sentences(text: str, *, num_sentences: int, relation: str | None = None) -> bool:
    found = [part for part in _SENTENCE_END.split(text) if _WORD.search(part)]
    return _compared(len(found), relation, num_sentences)


def _paragraphs(text: str, *, num_paragraphs: int) -> bool:
    parts = [part for part in re.split(r"\s?\*\*\*\s?", text) if part.strip()]
    return len(parts) == num_paragraphs


def _number_of_words(text: str, *, num_words: int, relation: str | None = None) -> bool:
    return _compared(len(_WORD.findall(text)), relation, num_words)


def _first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = [part.strip() for part in text.split("\n\n") if part.strip()]
    if len(parts) != num_paragraphs or not 1 <= nth_paragraph <= len(parts):
        return False
    words = _WORD.findall(parts[nth_paragraph - 1])
    return bool(words) and words[0].casefold() == first_word.casefold()


def _placeholders(text: str, *, num_placeholders: int) -> bool:
    return len(re.findall(r"\[[^\[\]\n]+\]", text)) >= num_placeholders


def _postscript(text: str, *, postscript_marker: str) -> bool:
    # "P.S." is also found as "P. S." and in lower case, and "P.P.S" likewise
    letters = r"[.\s]*".join(re.escape(c) for c in postscript_marker if c.isalnum())
    return re.search(rf"(?m)^\s*{letters}\b", text, re.IGNORECASE) is not None


def _bullets(text: str, *, num_bullets: int) -> bool:
    return len(re.findall(r"(?m)^\s*(?:[*-]|\u2022)\s+\S", text)) == num_bullets


def _constrained(text: str) -> bool:
    return any(f"my answer is {word}." in text.casefold() for word in ("yes", "no", "maybe"))


def _highlights(text: str, *, num_highlights: int) -> bool:
    found = re.findall(r"\*\*[^*\n]+\*\*|(?<!\*)\*[^*\n]+\*(?!\*)", text)
    return sum(bool(each.strip("* ")) for each in found) >= num_highlights


def _sections(text: str, *, section_spliter: str, num_sections: int) -> bool:  # IFEval's spelling
    return len(re.findall(rf"(?i)\s?{re.escape(section_spliter)}\s+\d+\s?", text)) >= num_sections


def _json(text: str) -> bool:
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", text, re.DOTALL | re.IGNORECASE)
    try:
        read_strictly(fenced[1] if fenced else text)
    except BadJson:
        return False
    return True


def _title(text: str) -> bool:
    return any(found.strip("<> ") for found in re.findall(r"<<[^\n]+?>>", text))


def _two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******") if part.strip()]
    return len(parts) == 2 and parts[0] != parts[1]


def _repeats(text: str, *, prompt_to_repeat: str) -> bool:
    return " ".join(text.split()).casefold().startswith(" ".join(prompt_to_repeat.split()).casefold())


def _ends(text: str, *, end_phrase: str) -> bool:
    return text.strip().strip('"').casefold().endswith(end_phrase.strip().casefold())


def _quoted(text: str) -> bool:
    inside = text.strip()
    return len(inside) > 1 and inside[0] == inside[-1] == '"'


def _capital_words(text: str, *, capital_frequency: int, capital_relation: str | None = None) -> bool:
    found = sum(word.isupper() for word in _WORD.findall(text))
    return _compared(found, capital_relation, capital_frequency)


INSTRUCTIONS: dict[str, Callable[..., bool]] = {
    "keywords:existence": _keywords,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letters,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": _number_of_words,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeats,
    "startend:end_checker": _ends,
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": str.isupper,
    "change_case:english_lowercase": str.islower,
    "punctuation:no_comma": lambda text: "," not in text,
}
"""Whether a text follows an instruction, by IFEval's name: the text, and the instruction's parameters by name."""


def check_instruction(name: str, values: Mapping[str, Any]) -> None:
    """Check that an instruction is known and has its parameters.

    Raises:
        ValueError: it is not, or has not.
    """
    if name not in INSTRUCTIONS:
        raise ValueError(f"the instruction {name!r} is not known")
    try:
        inspect.signature(INSTRUCTIONS[name]).bind("", **values)
    except TypeError as error:
        raise ValueError(f"the instruction {name!r} has other parameters ({error})") from None


def follows(text: str, name: str, values: Mapping[str, Any]) -> bool:
    """Whether an answer follows an instruction; an empty answer follows none."""
    return bool(text.strip()) and INSTRUCTIONS[name](text, **values)
