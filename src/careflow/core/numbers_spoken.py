"""Numbers as people say them, to digits: 0-999, decimals, and years; and back to words for prompts."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from careflow.core.words import plain, words

_UNITS = {
    "en": "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciseis "
    "diecisiete dieciocho diecinueve veinte veintiuno veintidos veintitres veinticuatro veinticinco veintiseis "
    "veintisiete veintiocho veintinueve",
}
_TENS = {
    "en": "twenty thirty forty fifty sixty seventy eighty ninety",
    "es": "veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa",
}
_HUNDREDS_ES = (
    "cien ciento|doscientos doscientas|trescientos trescientas|cuatrocientos cuatrocientas|quinientos quinientas|"
    "seiscientos seiscientas|setecientos setecientas|ochocientos ochocientas|novecientos novecientas"
)
_POINT = {"en": frozenset({"point", "dot"}), "es": frozenset({"punto", "coma"})}
_AND = {"en": frozenset({"and"}), "es": frozenset({"y"})}
_SPOKEN_DIGITS = {
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "es": ("cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"),
}


def _small(language: str) -> dict[str, int]:
    values = {word: n for n, word in enumerate(_UNITS[language].split())}
    if language == "en":
        values |= {"oh": 0, "o": 0}
    else:
        values |= {"un": 1, "una": 1, "veintiun": 21}
    return values


def _tens(language: str) -> dict[str, int]:
    return {word: 10 * n for n, word in enumerate(_TENS[language].split(), start=2)}


def _hundreds() -> dict[str, int]:
    return {w: 100 * n for n, group in enumerate(_HUNDREDS_ES.split("|"), start=1) for w in group.split()}


def numbers(text: str, language: str) -> tuple[Decimal, ...]:
    """Every number in `text`, said in words or written in digits, in order ("a hundred and two point five" -> 102.5)."""
    said = words(text)
    found: list[Decimal] = []
    at = 0
    while at < len(said):
        value, after = _whole(said, at, language)
        if value is None:
            at += 1
            continue
        at = after
        if at + 1 < len(said) and said[at] in _POINT[language]:
            digits, after = _decimals(said, at + 1, language)
            if digits:
                value, at = Decimal(f"{value}.{digits}"), after
        elif said[at : at + 3] == ("and", "a", "half") or said[at : at + 2] == ("y", "medio"):
            value, at = value + Decimal("0.5"), at + 2
        found.append(value)
    return tuple(found)


def number(text: str, language: str) -> Decimal | None:
    """The one number in `text` (the same one repeated counts as one); None when there is none or several."""
    said = (
        plain(text)
        .replace("out of ten", "")
        .replace("out of 10", "")
        .replace("de diez", "")
        .replace("de 10", "")
    )
    found = set(numbers(said, language))
    return found.pop() if len(found) == 1 else None


def _whole(said: tuple[str, ...], at: int, language: str) -> tuple[Decimal | None, int]:
    """The number from 0 to 999 (or in digits) that begins at `at`, and where it ends."""
    if said[at][0].isdigit():
        return Decimal(said[at]), at + 1
    small, tens, ands = _small(language), _tens(language), _AND[language]
    hundreds = _hundreds() if language == "es" else {}
    total, begin = 0, at
    if language == "en" and said[at : at + 2] == ("a", "hundred"):
        total, at = 100, at + 2
    elif language == "en" and said[at] == "hundred":
        total, at = 100, at + 1
    elif language == "en" and 1 <= small.get(said[at], 0) <= 9 and said[at + 1 : at + 2] == ("hundred",):
        total, at = 100 * small[said[at]], at + 2
    elif said[at] in hundreds:
        total, at = hundreds[said[at]], at + 1
    rest = at + 1 if total and language == "en" and said[at : at + 1] and said[at] in ands else at
    if (
        rest < len(said)
        and said[rest] in small
        and said[rest] not in tens
        and (total == 0 or small[said[rest]] > 0)
    ):
        return Decimal(total + small[said[rest]]), rest + 1
    if rest < len(said) and said[rest] in tens:
        total, at = total + tens[said[rest]], rest + 1
        unit = at + 1 if language == "es" and said[at : at + 1] and said[at] in ands else at
        if unit < len(said) and 1 <= small.get(said[unit], 0) <= 9 and (unit > at or language == "en"):
            return Decimal(total + small[said[unit]]), unit + 1
    return (Decimal(total), at) if at > begin else (None, begin)


def _decimals(said: tuple[str, ...], at: int, language: str) -> tuple[str, int]:
    digits, small = "", _small(language)
    while at < len(said) and (said[at].isdigit() or said[at] in small):
        digits += said[at] if said[at].isdigit() else str(small[said[at]])
        at += 1
    return digits, at


def years(text: str, language: str) -> frozenset[int]:
    """Every year from 1900 to 2099 said in `text`: "1942", "nineteen forty two", "one nine four two", "mil novecientos …"."""
    return frozenset(year for year in _years(words(text), language) if 1900 <= year <= 2099)


def _years(said: tuple[str, ...], language: str) -> Iterator[int]:
    small = _small(language)
    taken = 0
    for at, word in enumerate(said):
        if at < taken:
            continue
        four = [small.get(w, int(w) if w.isdigit() and len(w) == 1 else 10) for w in said[at : at + 4]]
        if word.isdigit() and len(word) == 4:
            yield int(word)
        elif len(four) == 4 and max(four) < 10:
            taken = at + 4
            yield int("".join(map(str, four)))
        elif language == "en" and word in ("nineteen", "twenty", "19", "20"):
            century = 1900 if word in ("nineteen", "19") else 2000
            rest = at + 1
            while said[rest : rest + 1] and said[rest] in ("hundred", "and", "oh", "o"):
                rest += 1
            value, after = _whole(said, rest, language) if rest < len(said) else (None, rest)
            if value is not None and value < 100 and (value >= 10 or rest > at + 1):
                taken = after
                yield century + int(value)
            elif said[at + 1 : at + 2] == ("hundred",):
                yield century
        elif word in ("thousand", "mil"):
            twice = at > 0 and said[at - 1] in ("two", "dos")
            rest = at + 2 if said[at + 1 : at + 2] == ("and",) else at + 1
            value, after = _whole(said, rest, language) if rest < len(said) else (Decimal(0), rest)
            taken = after
            yield (2000 if twice else 1000) + int(value or 0)


def digits_spoken(text: str, language: str) -> str:
    """The digits in `text` one by one in words, grouped as a telephone number is said ("five five five, zero one …").

    A leading +1 is left out; other country codes are said.
    """
    digits = "".join(char for char in text if char.isdigit())
    if len(digits) == 11 and digits[0] == "1":
        digits = digits[1:]
    groups = [digits[:3], digits[3:6], digits[6:]] if len(digits) == 10 else [digits]
    names = _SPOKEN_DIGITS[language]
    return ", ".join(" ".join(names[int(d)] for d in group) for group in groups if group)
