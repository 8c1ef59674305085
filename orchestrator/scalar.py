"""What one scalar of a YAML file means.

A plain word is read only where YAML 1.1, YAML 1.2 and people agree about it: `1e-3` is a number here, `010`
and `1:30` are words, and `no` is refused, because it is a word to some and a boolean to others.
"""

from __future__ import annotations

import math
import re
import unicodedata

from trainers.call import Invalid

EXACT = 2**53  # integers beyond it are not the same number everywhere

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_OLD_BOOL = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.?(nan|inf|infinity)", re.IGNORECASE)


def value(text: str, *, plain: bool) -> str | int | float | bool | None:
    """The value of a scalar. Only a plain one, written without quotes, may be anything but a string.

    Raises `Invalid` for what is ambiguous, not finite, too large to be exact, or holds control characters.
    """
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # JSON's "\\ud83d\\ude00"
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise Invalid(f"the character U+{ord(character):04X} has no place here; remove it")
    if not plain:
        return text
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if text.lower() in _OLD_BOOL:
        meant = _OLD_BOOL[text.lower()]
        raise Invalid(f'{text} is a boolean to some readers of YAML; write {meant}, or quote it: "{text}"')
    if _NOT_FINITE.fullmatch(text):
        raise Invalid(f'{text} is not a finite number; write a finite one, or quote it: "{text}"')
    return _number(text) if _NUMBER.fullmatch(text) else text


def _number(text: str) -> int | float:
    """`6.0` is 6: equal studies have equal keys."""
    digits = text.lstrip("-+")
    number = float(text)
    if not math.isfinite(number) or (digits.isdigit() and (len(digits) > 16 or int(digits) > EXACT)):
        raise Invalid(f"{text:.40} is too large; integers go up to {EXACT}, and numbers must be finite")
    return int(number) if number.is_integer() and abs(number) <= EXACT else number


def key(text: str, *, plain: bool) -> str:
    """The same for a key, which must be a word."""
    if plain and text == "<<":
        raise Invalid("merge keys (<<) are not read; repeat the keys")
    word = value(text, plain=plain)
    if not isinstance(word, str):
        kind = "nothing" if word is None else "a boolean" if isinstance(word, bool) else "a number"
        raise Invalid(f'the key {text:.100} is {kind}, not a word; quote it: "{text:.100}"')
    return word
