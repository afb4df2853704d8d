"""What an Ollama Modelfile can hold of a model."""

from __future__ import annotations

from potstill.components.chat.format import ChatFormat
from potstill.core.errors import RecipeError
from potstill.core.words import printable

__all__ = ["modelfile_stops"]


def modelfile_stops(chat: ChatFormat) -> list[str]:
    """Text of each token that ends an answer, starting with the end-of-sequence token.

    A Modelfile has them in double quotes, and its format has no escapes: what follows a quote or a line feed would be
    read as an instruction.

    Raises:
        RecipeError: a Modelfile cannot hold a token.
    """
    others = (chat.tokenizer.id_to_token(i) for i in sorted(chat.stop_ids - {chat.eos_id}))
    tokens = [chat.eos, *(token for token in others if token)]
    for token in tokens:
        if not token.isprintable() or '"' in token or "\\" in token:
            raise RecipeError(
                f"student.model: an Ollama Modelfile cannot hold the end token {printable(repr(token), 80)} of the "
                "student, because it has a double quote, a backslash or a control character. Rename the token in "
                "tokenizer.json, tokenizer_config.json and the chat template, or choose another model."
            )
    return tokens
