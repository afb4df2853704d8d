"""How llama.cpp's chat endpoint reads the answers of the shipped file, against potstill's own reading of the text."""

from __future__ import annotations

from potstill.core.artifacts.base import Part

__all__ = ["ReadingExample", "Readings"]

_SHOWN = 120  # characters of an answer in a sentence


class ReadingExample(Part):
    """An answer's raw text, and what a user of the chat endpoint gets from it."""

    row_id: str
    prompt: str
    text: str
    served: str


class Readings(Part):
    """How llama.cpp's chat endpoint reads the calls of the answers. The endpoint's reading is what is judged.

    answers     number of answers; the prompt of each had the token ids of training
    different   answers in which potstill reads other calls or words than the endpoint
    example     one of these
    """

    answers: int
    different: int
    example: ReadingExample | None = None

    @property
    def sentence(self) -> str:
        """What a report says where the readings differ; empty where they do not."""
        if not self.different:
            return ""
        return (
            f"In {self.different:,} of {self.answers:,} answers of the shipped file, llama.cpp's chat endpoint reads "
            "other calls or words than potstill does. The endpoint's reading is judged, because users get it."
        )

    @property
    def with_example(self) -> str:
        """The sentence and one example, in printable characters on one line."""
        if self.example is None:
            return self.sentence
        text, served = (ascii(part[:_SHOWN]) for part in (self.example.text, self.example.served))
        return f"{self.sentence} For example, from the text {text} they get {served}."
