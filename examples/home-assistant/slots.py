"""Fill slots: the words of the user, and the argument value that they stand for."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from pools import MESSAGES, TODOS, TRAIN_TEXTS, WORDS, pool

__all__ = ["DAYS", "OPEN", "Fill", "Filler"]

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
ROOMS = ("kitchen", "bedroom", "living room", "bathroom", "hall", "office", "dining room", "nursery", "study", "attic")
DOORS = ("front", "back", "side", "garage", "cellar", "balcony")
LISTS = ("shopping", "grocery", "todo", "packing")
SCENES = ("movie night", "good morning", "party", "bedtime")
COVERS = ("blinds", "curtains", "shutters", "awning", "gate", "garage")
INVENTED_SHARE = 0.45
REWORDED_SHARE = 0.4
OPEN = ("room", "item", "list", "song", "artist", "person", "text", "todo", "city", "scene", "door", "name", "brand")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ONES = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = _words("- - twenty thirty forty fifty sixty seventy eighty ninety")
_ONSETS = _words("b c d f g h j k l m n p r s t v w z br ch cl cr dr fl fr gl gr kl pl pr qu sh sl sp st th tr vr")
_VOWELS = _words("a e i o u a e i o ai ea ee ia oo ou y")
_CODAS = ("", "", "", "", *_words("n r l s t m k n r ck nd rt st x ng sh ff"))
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_FUNCTION = _words("the a my is in of with it we you I and no not this so are very")
_TAKEN = frozenset(
    _words("the and off now hey can you for any let but not our out ten one two six get set put mode room door list")
)


@dataclass(frozen=True)
class Fill:
    """One filled slot: the user's words, the argument, its value, and whether the value comes from an open pool."""

    slot: str
    surface: str
    arg: str
    value: str | int
    open: bool = False


@cache
def _held_words() -> frozenset[str]:
    lists = [pool(words, split) for words in WORDS.values() for split in ("validation", "test")]
    return frozenset(word.lower() for words in lists for word in words)


def _owner(kind: str, value: object) -> str:
    """The only split that may use a closed value; "train" stands for all splits."""
    bucket = zlib.crc32(f"{kind}:{value}".encode()) % 100
    return "test" if bucket < 12 else "validation" if bucket < 20 else "train"


def number_words(number: int) -> str:
    """An integer from 0 to 100 in words."""
    if number < 20:
        return _ONES[number]
    if number == 100:
        return "one hundred"
    return _TENS[number // 10] + (" " + _ONES[number % 10] if number % 10 else "")


class Filler:
    """Draw slot values of one split. Rows with `lower` are in lower case throughout, including copied values."""

    def __init__(self, rng: random.Random, split: str) -> None:
        self.rng, self.split = rng, split
        self._pools = {kind: pool(words, split) for kind, words in WORDS.items()}
        train = split == "train"
        self._texts = {
            kind: pool(lines, split) + (TRAIN_TEXTS[kind] if train else ())
            for kind, lines in {"text": MESSAGES, "todo": TODOS}.items()
        }
        # train has more values of two words, because a value that is cut short is the most frequent mistake
        self._longer = 0.25 if train else 0.0

    def fill(self, slot: str, lower: bool) -> Fill:
        """A value for `slot`; a trailing 2 asks for the second value of a pair.

        Raises:
            KeyError: there is no such slot.
        """
        base = slot.removesuffix("2")
        maker: Callable[[], tuple[str, str, str | int, bool]] = getattr(self, f"_slot_{base}", lambda: self._open(base))
        surface, arg, value, is_open = maker()
        if lower:
            surface, value = surface.lower(), value.lower() if isinstance(value, str) else value
        return Fill(slot, surface, arg, value, is_open)

    # -- open slots: the value is copied from the user's text --

    def _open(self, kind: str) -> tuple[str, str, str, bool]:
        common = {"room": ROOMS, "door": DOORS, "list": LISTS, "scene": SCENES}.get(kind)
        if common and self.rng.random() < (0.5 if kind == "room" else 0.35):
            value = self.rng.choice(common)
            return value, kind, value, False
        makers: dict[str, Callable[[], str]] = {
            "room": self._room, "item": self._item, "list": self._list, "song": self._title, "artist": self._artist,
            "text": self._text, "todo": self._todo, "scene": self._scene, "door": self._door, "name": self._label,
        }  # fmt: skip
        words = {"person": "p", "city": "c", "brand": "n"}
        value = makers[kind]() if kind in makers else self._word(words[kind]).capitalize()
        return value, "text" if kind == "todo" else kind, value, True

    def _invented(self) -> str:
        """A word that is in no list, so that it can only be copied: joined parts of two train words, syllables, or
        random
        letters."""
        while True:
            roll = self.rng.random()
            if roll < 0.55:
                one, other = (self.rng.choice(self._pools[self.rng.choice("nioap")]).lower() for _ in range(2))
                word = one[: self.rng.randint(1, len(one))] + other[self.rng.randint(0, len(other) - 1) :]
            elif roll < 0.92:
                count = self.rng.choice((1, 1, 2, 2, 2, 2, 3))
                word = "".join(
                    self.rng.choice(_ONSETS) + self.rng.choice(_VOWELS) + self.rng.choice(_CODAS) for _ in range(count)
                )
            else:
                word = "".join(self.rng.choice(_LETTERS) for _ in range(self.rng.randint(3, 6)))
            if word not in _held_words() and word not in _TAKEN and 3 <= len(word) <= 10:
                return word

    def _word(self, kind: str) -> str:
        share = INVENTED_SHARE if self.split == "train" else 0.0
        return self._invented() if self.rng.random() < share else self.rng.choice(self._pools[kind]).lower()

    def _phrase(self) -> str:
        roll = self.rng.random()
        if roll < 0.25:
            return self._word("n")
        return f"{self._word('a' if roll < 0.65 else 'n')} {self._word('n')}"

    def _list(self) -> str:
        roll = self.rng.random()
        if roll < 0.7 - self._longer:
            return self._word("list")
        return f"{self._word('a' if roll < 0.85 else 'list')} {self._word('list')}"

    def _room(self) -> str:
        roll = self.rng.random()
        if roll < 0.2:
            return self._word("n")
        return f"{self._word('room' if roll < 0.75 else 'a')} room"

    def _door(self) -> str:
        return (
            self._word("door") if self.rng.random() < 0.75 - self._longer else f"{self._word('a')} {self._word('door')}"
        )

    def _scene(self) -> str:
        roll = self.rng.random()
        if roll < 0.55 - self._longer:
            return f"{self._word('scene')} {self.rng.choice(('night', 'time', 'evening', 'day', 'break'))}"
        return self._word("scene") if roll < 0.75 - self._longer else f"{self._word('a')} {self._word('scene')}"

    def _item(self) -> str:
        roll = self.rng.random()
        if roll < 0.55:
            return self._word("i")
        return f"{self._word('a')} {self._word('i')}" if roll < 0.85 else f"{self._word('n')} {self._word('i')}"

    def _label(self) -> str:
        return self._word("i") if self.rng.random() < 0.7 else self._word("n")

    def _title(self) -> str:
        words = [self._phrase() if self.rng.random() < 0.8 else f"{self._phrase()} {self._word('n')}"]
        if self.rng.random() < 0.15:
            words.append(f"of {self._word('n')}")
        title = " ".join(words)
        return title.title() if self.rng.random() < 0.5 else title

    def _artist(self) -> str:
        roll = self.rng.random()
        if roll < 0.4:
            return f"{self._word('p')} {self._word('n' if roll < 0.2 else 'p')}".title()
        return self._phrase().title() if roll < 0.8 else self._word("p").capitalize()

    def _pattern(self, kind: str) -> str:
        text = self.rng.choice(self._texts[kind])
        if self.split == "train" and self.rng.random() < REWORDED_SHARE:
            text = " ".join(map(self._reworded, text.split()))
        for key in "onpia":
            while f"{{{key}}}" in text:
                word = self._word(key)
                text = text.replace(f"{{{key}}}", word.capitalize() if key == "p" else word, 1)
        return text

    def _reworded(self, word: str) -> str:
        """A word of a pattern, or another one instead, so that a text cannot be completed from its first word."""
        if word.startswith("{") or self.rng.random() < 0.6:
            return word
        return self.rng.choice(_FUNCTION) if self.rng.random() < 0.2 else self._word(self.rng.choice("onaip"))

    def _text(self) -> str:
        if self.split == "train" and self.rng.random() < 0.2:
            return self._babble(self.rng.randint(1, 5))
        return self._pattern("text")

    def _todo(self) -> str:
        if self.split == "train" and self.rng.random() < 0.2:
            return self._babble(self.rng.randint(1, 4))
        return self._pattern("todo")

    def _babble(self, count: int) -> str:
        """Words in random order, so that copying also works for text that makes no sense."""
        words = [
            self.rng.choice(_FUNCTION) if self.rng.random() < 0.35 else self._word(self.rng.choice("onaip"))
            for _ in range(count)
        ]
        return " ".join([*words, self._word("n")])

    # -- closed slots: the value is derived from the user's text --

    def _number(self, kind: str, values: Sequence[int]) -> int:
        owned = [value for value in values if _owner(kind, value) == self.split]
        shared = [value for value in values if _owner(kind, value) == "train"]
        # A value that belongs to one split is drawn three times as often as others, at most half of the time.
        if self.split != "train" and self.rng.random() < min(0.5, 3 * len(owned) / len(values)):
            return self.rng.choice(owned)
        return self.rng.choice(shared)

    def _said(self, number: int) -> str:
        """A number in digits, or sometimes in words."""
        if number > 100 or self.rng.random() < 0.65:
            return str(number)
        words = number_words(number)
        return words.replace(" ", "-") if self.rng.random() < 0.3 and number != 100 else words

    def _percent(self, arg: str, idioms: dict[str, int]) -> tuple[str, str, int, bool]:
        if idioms and self.rng.random() < 0.2:
            surface = self.rng.choice(list(idioms))
            return surface, arg, idioms[surface], False
        values = range(0, 101, 5) if self.rng.random() < 0.7 else range(1, 100)
        number = self._number(arg, values)
        said = self._said(number)
        sign = self.rng.choice((" percent", " percent", "%")) if said.isdigit() else " percent"
        return said + sign, arg, number, False

    def _slot_brightness(self) -> tuple[str, str, int, bool]:
        return self._percent("brightness", {"half": 50})

    def _slot_level(self) -> tuple[str, str, int, bool]:
        surface, arg, value, _ = self._percent("level", {"maximum": 100, "half": 50})
        return surface.removesuffix(" percent") if self.rng.random() < 0.4 else surface, arg, value, False

    def _slot_position(self) -> tuple[str, str, int, bool]:
        return self._percent("position", {"halfway": 50, "half": 50})

    def _slot_degrees(self) -> tuple[str, str, int, bool]:
        number = self._number("degrees", range(5, 31))
        said = self._said(number)
        unit = self.rng.choice((" degrees", " degrees", "°", " C", " celsius") if said.isdigit() else (" degrees",))
        return said + unit, "degrees", number, False

    def _slot_minutes(self) -> tuple[str, str, int, bool]:
        roll = self.rng.random()
        if roll < 0.25:
            idioms = {
                "half an hour": 30, "an hour": 60, "one hour": 60, "1 hour": 60, "two hours": 120, "2 hours": 120,
                "three hours": 180, "3 hours": 180, "a quarter of an hour": 15, "an hour and a half": 90,
                "one and a half hours": 90, "three quarters of an hour": 45,
            }  # fmt: skip
            surface = self.rng.choice(list(idioms))
            return surface, "minutes", idioms[surface], False
        number = self._number("minutes", range(2, 100) if roll < 0.8 else range(5, 100, 5))
        return f"{self._said(number)} {self.rng.choice(('minutes', 'minutes', 'min'))}", "minutes", number, False

    def _slot_minutes_adj(self) -> tuple[str, str, int, bool]:
        # Numbers that would need "an" are left out, because the article before the slot is "a".
        number = self._number("minutes", [n for n in range(2, 100) if n not in (8, 11, 18) and n // 10 != 8])
        return f"{self._said(number)}{self.rng.choice((' ', '-'))}minute", "minutes", number, False

    def _slot_time(self) -> tuple[str, str, str, bool]:
        while True:
            hour, minute = self.rng.randrange(24), self.rng.choice((0, 0, 15, 30, 45, self.rng.randrange(0, 60, 5)))
            if self.rng.random() < 0.2:
                minute = self.rng.randrange(60)
            value = f"{hour:02}:{minute:02}"
            owner = _owner("time", value)
            if owner == "train" or owner == self.split:
                break
        return self._clock(hour, minute), "time", value, False

    def _clock(self, hour: int, minute: int) -> str:
        """One way to say a time, always clear about morning or afternoon."""
        rng = self.rng
        if value := {(12, 0): "noon", (0, 0): "midnight"}.get((hour, minute)):
            return value
        if hour in (0, 12) or rng.random() < 0.2 or (hour == 23 and minute > 30):
            return f"{hour:02}:{minute:02}"
        if rng.random() < 0.45:
            digits = f"{hour % 12}" + (f":{minute:02}" if minute else "")
            return digits + rng.choice((" ", "")) + ("am" if hour < 12 else "pm")
        part = "in the morning" if hour < 12 else "in the afternoon" if hour < 18 else "in the evening"
        part = rng.choice((part, "am" if hour < 12 else "pm"))
        this, following = number_words(hour % 12), number_words(hour % 12 + 1)
        if minute == 0:
            return f"{this} {rng.choice(('', '', 'oclock '))}{part}"
        forms = [f"{this} {number_words(minute)} {part}"] if minute >= 10 else []
        past = {15: "quarter past", 30: "half past", 5: "five past", 10: "ten past", 20: "twenty past"}
        before = {45: "quarter to", 50: "ten to", 40: "twenty to", 55: "five to"}
        if minute in past:
            forms.append(f"{past[minute]} {this} {part}")
        if minute in before and hour != 11:
            forms.append(f"{before[minute]} {following} {part}")
        return rng.choice(forms) if forms else f"{hour:02}:{minute:02}"

    def _slot_day(self) -> tuple[str, str, str, bool]:
        if self.rng.random() < 0.35:
            day = "tomorrow" if self.rng.random() < 0.7 else "today"
            return day, "day", day, False
        day = self.rng.choice(DAYS)
        return f"on {day.capitalize()}", "day", day, False

    def _slot_state(self) -> tuple[str, str, str, bool]:
        state = self.rng.choice(("on", "off"))
        return state, "state", state, False

    def _slot_lock(self) -> tuple[str, str, str, bool]:
        verb = self.rng.choice(("lock", "unlock"))
        return verb, "state", f"{verb}ed", False

    def _slot_locked(self) -> tuple[str, str, str, bool]:
        state = self.rng.choice(("locked", "unlocked"))
        return state, "state", state, False

    def _slot_move(self) -> tuple[str, str, int, bool]:
        verb = self.rng.choice(("open", "close", "shut"))
        return verb, "position", 100 if verb == "open" else 0, False

    def _slot_moved(self) -> tuple[str, str, int, bool]:
        state, value = self.rng.choice((("open", 100), ("closed", 0), ("half open", 50), ("shut", 0)))
        return state, "position", value, False

    def _slot_cover(self) -> tuple[str, str, str, bool]:
        cover = self.rng.choice(COVERS)
        return cover, "cover", cover, False

    def _slot_cover_in(self) -> tuple[str, str, str, bool]:
        cover = self.rng.choice(COVERS[:3])
        return cover, "cover", cover, False

    def _slot_n(self) -> tuple[str, str, int, bool]:
        number = self.rng.choice((self.rng.randint(2, 20), self.rng.randint(2, 999)))
        return str(number), "n", number, False

    def _slot_n_big(self) -> tuple[str, str, int, bool]:
        number = self.rng.randint(55, 400)
        return str(number), "n", number, False
