"""What a command line asks of `potstill plan`: checked here, and alike for a model, a recipe and a search."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from potstill.components.hardware.devices import Device, find_device, known_device
from potstill.components.hardware.fit import Serving
from potstill.components.hardware.memory import KV_TYPES
from potstill.core.errors import UsageError

__all__ = ["Ask", "Wanted", "chosen_quantizations", "refuse_context", "refuse_idle"]

_MOST = 2**31 - 1
"""llama.cpp counts tokens and conversations in 32 bits."""
_BYTES = 256
"""Tokens without which a vocabulary cannot write any text: one for each byte."""
_WHERE = {
    "devices": "with --devices, which lists the devices and stops",
    "model": "for a model",
    "recipe": "for a recipe",
    "model search": "in the search of a model",
    "recipe search": "in the search of a recipe",
}
_SEARCH = ("model search", "recipe search")
_READ: dict[str, tuple[tuple[str, ...], str]] = {
    "--quantization": (("model", *_SEARCH), "A recipe's plan shows every quantization"),
    "--host": (("model",), "It is the machine of a card that holds a part of MODEL; a student must fit whole"),
    "--train-on": (("recipe", "recipe search"), "It is for the training of a recipe's student"),
    "--decode": (_SEARCH, "It is a limit of --search"),
    "--ttft": (_SEARCH, "It is a limit of --search"),
    "--vocabulary": (_SEARCH, "It is the vocabulary of the students that --search lists"),
    "--write": (("recipe search",), "It puts a student that --search RECIPE lists into the recipe"),
}
"""Option -> what reads it, and why nothing else does; what is not named here is read by all but --devices."""


def refuse_idle(given: Collection[str], what: str) -> None:
    """Refuse options that nothing would read.

    Args:
        given: options of the command line, such as `--host`.
        what: is planned: devices (they are listed), model, recipe, model search or recipe search.

    Raises:
        UsageError: an option has no effect there.
    """
    everywhere = tuple(key for key in _WHERE if key != "devices")
    for option in given:
        readers, why = _READ.get(option, (everywhere, ""))
        if what not in readers:
            reason = f" {why}." if why else ""
            raise UsageError(f"{option} has no effect {_WHERE[what]}.{reason} Leave it out.")


def _require_positive(option: str, value: float | None, most: float = math.inf) -> None:
    """Raise UsageError for what is not a number above 0, or is above `most`."""
    if value is None:
        return
    if not 0 < value < math.inf:  # what is not a number is neither
        raise UsageError(f"{option} must be more than 0 and finite, found {value}.")
    if value > most:
        raise UsageError(f"{option} must be at most {most:,.0f}, found {value}.")


def chosen_quantizations(asked: Collection[str], known: Collection[str], why: str = "") -> tuple[str, ...]:
    """What --quantization names, each once, as `known` spells it.

    Raises:
        UsageError: one is not known; `why` says what knows no other.
    """
    spelled = {name.lower(): name for name in known}
    for name in asked:
        if name.lower() not in spelled:
            raise UsageError(f"--quantization {name!r} is not one of {', '.join(known)}{why}.")
    return tuple(dict.fromkeys(spelled[name.lower()] for name in asked))


def refuse_context(context: int, most: int | None, name: str, option: str = "--context") -> None:
    """Refuse a context that is longer than the model was made for.

    Args:
        context: tokens asked for.
        most: the model's own maximum; None where it is not known.
        name: the model.
        option: what asked for it.

    Raises:
        UsageError: it is longer.
    """
    if most is not None and context > most:
        raise UsageError(
            f"{option} {context}: {name} was made for {most:,} tokens at most, and knows no position after them. Ask "
            f"for {most} or fewer, or choose a model with a longer context."
        )


@dataclass(frozen=True)
class Ask:
    """Options of `potstill plan`.

    context      tokens of one conversation; None leaves it to what is planned
    kv_type      capitals do not count
    memory_gb    10^9 bytes that are free for the model on every device, instead of the device's usable share

    Raises:
        UsageError: the KV type is not known, or a number is not positive and finite.
    """

    devices: tuple[str, ...] = ()
    context: int | None = None
    kv_type: str = "f16"
    parallel: int = 1
    memory_gb: float | None = None

    def __post_init__(self) -> None:
        if self.kv_type.lower() not in KV_TYPES:
            raise UsageError(f"--kv-type {self.kv_type!r} is not one of {', '.join(KV_TYPES)}.")
        object.__setattr__(self, "kv_type", self.kv_type.lower())
        _require_positive("--context", self.context, _MOST)
        _require_positive("--parallel", self.parallel, _MOST)
        _require_positive("--memory", self.memory_gb, 1e9)

    def serving(self, context: int) -> Serving:
        """With this context where none is asked."""
        return Serving(context if self.context is None else self.context, self.kv_type, self.parallel)

    def _sized(self, device: Device) -> Device:
        return device if self.memory_gb is None else device.with_memory(self.memory_gb * 1e9)

    def all_devices(self) -> list[Device]:
        """Those that are named, each once; this machine, probed quickly, where none is.

        Raises:
            UsageError: a device is not known.
        """
        found = [find_device(name) for name in dict.fromkeys(self.devices)] or [find_device("this", quick=True)]
        return [self._sized(device) for device in {one.name: one for one in found}.values()]

    def one_device(self, target: str) -> Device | None:
        """The device that is named here, or else by a recipe's `target.device`; None where those are just words.

        Raises:
            UsageError: a device is not known, or several are named.
        """
        if self.devices:
            first, *others = self.all_devices()
            if others:
                raise UsageError("A student is made for one device: give --device once.")
            return first
        device = known_device(target)
        return self._sized(device) if device else None


@dataclass(frozen=True)
class Wanted:
    """Options of `potstill plan --search`; None and () leave a limit to the recipe.

    decode           tokens a second at least
    ttft             milliseconds to the first token at most
    vocabulary       tokens that are kept
    quantizations    of the students
    train_on         device that trains, for the hours
    write            row, or id, of the student that goes into the recipe

    Raises:
        UsageError: a number is not positive and finite, or a vocabulary has not even a token for each byte.
    """

    decode: float | None = None
    ttft: float | None = None
    vocabulary: int | None = None
    quantizations: tuple[str, ...] = ()
    train_on: str = "this"
    write: str | None = None

    def __post_init__(self) -> None:
        _require_positive("--decode", self.decode)
        _require_positive("--ttft", self.ttft)
        _require_positive("--vocabulary", self.vocabulary)
        self.require_vocabulary()

    def require_vocabulary(self, added: int = 0, most: int | None = None) -> None:
        """Refuse a vocabulary that no student can have.

        Args:
            added: tokens of the tokenizer that are never trimmed, such as those that end a turn.
            most: tokens of the teacher.

        Raises:
            UsageError: it has fewer than one token for each byte and the added ones, or more than the teacher's.
        """
        if self.vocabulary is None:
            return
        if self.vocabulary < _BYTES + added:
            beside = f" and {added} added ones" if added else ""
            raise UsageError(
                f"--vocabulary {self.vocabulary}: a trimmed vocabulary keeps {_BYTES} tokens for single bytes{beside}: "
                f"give {_BYTES + added} or more."
            )
        if most is not None and self.vocabulary > most:
            raise UsageError(
                f"--vocabulary {self.vocabulary}: the teacher has {most:,} tokens, and a vocabulary is only ever "
                "trimmed. Give fewer, or leave it out to keep them all."
            )
