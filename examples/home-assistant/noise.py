"""Make clean text look typed or spoken in haste. Slot values never change, so the right answer stays the same."""

from __future__ import annotations

import random
import re

__all__ = ["Piece", "articles", "foreign", "plain", "typos"]

Piece = tuple[str, bool]
"""A text, and whether it is protected because it is the value of a slot."""

_NEIGHBOURS = {
    "a": "sqz", "b": "vgn", "c": "xdv", "d": "sfe", "e": "wrd", "f": "dgr", "g": "fht", "h": "gjy", "i": "uok",
    "j": "hku", "k": "jli", "l": "kop", "m": "nj", "n": "bmh", "o": "ipl", "p": "ol", "q": "wa", "r": "etf",
    "s": "adw", "t": "ryg", "u": "yij", "v": "cbf", "w": "qes", "x": "zcs", "y": "tuh", "z": "xa",
}  # fmt: skip
_KEEP = {"that", "saying", "says", "unlock", "locked", "stranger", "strangers", "tomorrow", "today"}
_FOREIGN = {
    "light": ("licht", "luz"), "lights": ("lichter", "luces"), "lamp": ("lampe", "lampara"),
    "music": ("musik", "musica"),
    "please": ("bitte", "por favor", "s'il te plait"), "alarm": ("wecker", "alarma"), "door": ("tür", "puerta"),
    "message": ("nachricht", "mensaje"), "weather": ("wetter", "météo"), "list": ("liste", "lista"),
    "heating": ("heizung", "chauffage"), "temperature": ("temperatur", "temperatura"), "scene": ("szene", "escena"),
    "volume": ("volumen", "lautstärke"), "reminder": ("erinnerung", "recordatorio"), "song": ("lied", "chanson"),
    "thanks": ("danke", "gracias", "merci"), "hi": ("hallo", "hola", "bonjour"), "timer": ("temporizador", "minuteur"),
    "floor": ("boden", "suelo"), "house": ("haus", "casa"), "the": ("die", "la", "le"), "my": ("mein", "mi"),
    "flight": ("flug", "vuelo"), "train": ("zug", "tren"), "joke": ("witz", "chiste"), "email": ("e-mail", "correo"),
}  # fmt: skip
_ARTICLES = {
    "the": ("", "", "my", "our", "that", "this"), "my": ("", "the", "our"), "our": ("", "the", "my"), "a": ("",),
}  # fmt: skip
_WORD = re.compile(r"[A-Za-z']+")


def _spots(pieces: list[Piece], wanted: str) -> list[tuple[int, re.Match[str]]]:
    return [
        (index, match)
        for index, (text, protected) in enumerate(pieces)
        if not protected
        for match in _WORD.finditer(text)
        if (wanted == "foreign" and match[0].lower() in _FOREIGN)
        or (wanted == "articles" and match[0].lower() in _ARTICLES)
        or (wanted == "typos" and len(match[0]) >= 4 and match[0].lower() not in _KEEP)
    ]


def _misspell(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word))
    kind = rng.choice(("neighbour", "drop", "double", "swap"))
    if kind == "drop":
        return word[:at] + word[at + 1 :]
    if kind == "double":
        return word[: at + 1] + word[at:]
    if kind == "swap" and at + 1 < len(word):
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + rng.choice(_NEIGHBOURS.get(word[at].lower(), "e")) + word[at + 1 :]


def _replace(pieces: list[Piece], rng: random.Random, wanted: str, count: int) -> list[Piece]:
    for _ in range(count):
        if not (spots := _spots(pieces, wanted)):
            break
        index, match = rng.choice(spots)
        known = {"foreign": _FOREIGN, "articles": _ARTICLES}.get(wanted)
        word = rng.choice(known[match[0].lower()]) if known else _misspell(match[0], rng)
        text = pieces[index][0]
        pieces = [*pieces[:index], (text[: match.start()] + word + text[match.end() :], False), *pieces[index + 1 :]]
    return pieces


def typos(pieces: list[Piece], rng: random.Random) -> list[Piece]:
    """One or two misspelt words of four letters or more: neighbouring key, dropped, doubled or swapped letters."""
    return _replace(pieces, rng, "typos", rng.choice((1, 1, 2)))


def articles(pieces: list[Piece], rng: random.Random) -> list[Piece]:
    """One or two articles or possessives dropped or exchanged."""
    return _replace(pieces, rng, "articles", rng.choice((1, 1, 2)))


def foreign(pieces: list[Piece], rng: random.Random) -> list[Piece]:
    """One or two words in German, Spanish or French."""
    return _replace(pieces, rng, "foreign", rng.choice((1, 1, 2)))


def plain(pieces: list[Piece]) -> list[Piece]:
    """Lower case throughout, without punctuation between words; protected values are lower case already."""
    return [(text if protected else re.sub(r"[,;.!?]", "", text).lower(), protected) for text, protected in pieces]
