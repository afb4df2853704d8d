"""Instructions of IFEval: each is followed by one text and not by another."""

from __future__ import annotations

from typing import Any

import pytest

from potstill.components.checkers.instructions import INSTRUCTIONS, check_instruction, follows

CASES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "keywords:existence": ({"keywords": ["red", "blue"]}, ["Red or blue."], ["redder blue", "red"]),
    "keywords:frequency": ({"keyword": "a", "frequency": 2, "relation": "less than"}, ["a cat"], ["a a"]),
    "keywords:forbidden_words": ({"forbidden_words": ["no"]}, ["nothing"], ["No."]),
    "keywords:letter_frequency": ({"letter": "e", "let_frequency": 3}, ["Eleven e"], ["eel"]),
    "length_constraints:number_sentences": (
        {"num_sentences": 2, "relation": "at least"}, ["One. Two!", "One\nTwo"], ["One.", "It costs 3.5 euros."],
    ),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, ["a\n***\nb"], ["a\n\nb", "a***b***c"]),
    "length_constraints:number_words": ({"num_words": 3, "relation": "less than"}, ["don't stop"], ["one two three"]),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "second"}, ["a b\n\n*Second* c"], ["a\n\nb", "second"],
    ),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, ["[name], [date]"], ["[name]", "[]" * 2]),
    "detectable_content:postscript": ({"postscript_marker": "P.S."}, ["Hi\nP.S. Bye", "x\np. s. y"], ["Hi", "PSA"]),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, ["* a\n- b", "x\n* a\n* b"], ["* a", "a * b - c"]),
    "detectable_format:constrained_response": ({}, ["My answer is yes."], ["Yes.", "My answer is perhaps."]),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 2}, ["*a* and **b c**"], ["*a*", "* a\n* b"]),
    "detectable_format:multiple_sections": (
        {"section_spliter": "SECTION", "num_sections": 2}, ["SECTION 1\na\nSECTION 2\nb"], ["SECTION 1", "a"],
    ),
    "detectable_format:json_format": ({}, ['{"a": 1}', "```json\n[1]\n```"], ["a", "Here: {}"]),
    "detectable_format:title": ({}, ["<<A title>>\ntext"], ["<A title>", "<< >>"]),
    "combination:two_responses": ({}, ["a\n******\nb"], ["a", "a******a", "a******b******c"]),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Say it"}, ["say it\n\nIt."], ["It. Say it"]),
    "startend:end_checker": ({"end_phrase": "The end."}, ["x. THE END.", 'x "The end."'], ["The end. x"]),
    "startend:quotation": ({}, ['"x"'], ['"x', '"']),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"}, ["NASA and ESA"], ["NASA and Esa"],
    ),
    "change_case:english_capital": ({}, ["ALL 1!"], ["All", "12"]),
    "change_case:english_lowercase": ({}, ["all 1!"], ["All", "12"]),
    "punctuation:no_comma": ({}, ["a; b"], ["a, b"]),
}  # fmt: skip


def test_every_instruction_is_tried() -> None:
    assert CASES.keys() == INSTRUCTIONS.keys()


@pytest.mark.parametrize("name", CASES)
def test_instructions(name: str) -> None:
    values, right, wrong = CASES[name]
    check_instruction(name, values)
    assert [text for text in right if not follows(text, name, values)] == []
    assert [text for text in [*wrong, "", " "] if follows(text, name, values)] == []
