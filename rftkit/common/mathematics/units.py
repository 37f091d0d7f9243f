"""Units: what a question asks in, and whether an answer's unit is that, none, or another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

# A unit and its other names; plurals need no line. Short names keep their case: m is no M.
UNITS = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "dm": "decimeter decimetre", "m": "meter metre",
    "km": "kilometer kilometre", "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile",
    "mg": "milligram", "g": "gram gm", "kg": "kilogram", "t": "ton tonne", "lb": "pound lbs", "oz": "ounce",
    "ml": "milliliter millilitre mL", "l": "liter litre L", "gal": "gallon",
    "ms": "millisecond", "s": "second sec", "min": "minute", "h": "hour hr", "day": "d", "week": "wk", "month": "",
    "year": "yr", "am": "a.m a.m. AM A.M.", "pm": "p.m p.m. PM P.M.",
    "°": "degree deg", "rad": "radian", "°C": "celsius ℃", "°F": "fahrenheit ℉", "K": "kelvin",
    "%": "percent percentage pct", "$": "dollar USD", "cent": "¢", "€": "euro EUR", "£": "pound_sterling GBP",
    "¥": "yen yuan JPY CNY", "N": "newton", "J": "joule", "W": "watt", "kW": "kilowatt", "V": "volt", "A": "ampere amp",
    "Ω": "ohm", "Hz": "hertz", "Pa": "pascal", "mol": "mole", "mph": "", "unit": "",
}  # fmt: skip
NAMES = {name: unit for unit, names in UNITS.items() for name in (unit, *names.split())}
POWERS = {"square": "2", "squared": "2", "sq": "2", "sq.": "2", "cubic": "3", "cubed": "3", "cu": "3", "cu.": "3"}
FILLERS = {"old", "long", "of", "per", "each", "/"}
CURRENCIES = "$€£¥"
# Words that make another statement of the number before them: 5 or 6, not 5, 5 thousand.
NO_NOUNS = (
    "a an the is are was were be do does did have has can there it this that and or not no nor but than to from by if "
    "how what which who why when where minus plus times over less wrong false true except without between about half "
    "quarter third dozen hundred thousand million billion zero one two three four five six seven eight nine ten eleven "
    "twelve"
)
NO_NOUNS = set(NO_NOUNS.split())
DERIVED = {"area", "volume", "speed", "velocity", "acceleration", "rate", "density"}  # units made of those given
AMBIGUOUS = {"in", "am", "pm", "second", "unit", "mole", "us"}  # words of a question that are mostly no units


@dataclass(frozen=True)
class Asked:
    """What a question asks in: the units that it names, and its nouns."""

    units: frozenset[str]
    words: frozenset[str]
    is_sure: bool = True  # else the units are only mentioned: an area of sides in cm is in cm^2


@lru_cache(maxsize=2**12)
def asked(question: str, unit: str = "") -> Asked:
    """By the set's own `unit`, else "(Unit: years)", else "in cm" and "how many years", else any unit it names."""
    words = re.findall(r"[^\W\d_]+", question.casefold())
    words = frozenset(_singular(word) for word in words if word not in NO_NOUNS)
    stated = [unit] if unit else re.findall(r"\bunits?\s*[:=]\s*([^).;\n]+)", question, re.IGNORECASE)
    if found := {_unit(text) for text in stated} - {None}:
        return Asked(frozenset(found), words)
    phrases = re.findall(r"\b(in|how many|number of)\s+(?=((?:[^\s.,;?!()]+\s*){1,6}))", question, re.IGNORECASE)
    if found := {name for word, phrase in phrases for name in _first_units(phrase, word.casefold() != "in")}:
        return Asked(frozenset(found), words)
    return Asked(frozenset(_named(question)), words, is_sure=False)


def unit_of(text: str, question: Asked) -> str | None:
    """The unit that a whole text is, or what the question counts, in its words; else None."""
    if found := _unit(text):
        return found
    words = [_singular(word) for word in text.casefold().split()]
    counted = question.units.intersection(words)
    return min(counted) if counted and len(words) <= 4 and question.words.issuperset(words) else None


def fits(gold: str | None, said: str | None, question: Asked) -> bool:
    """Whether an answer's unit contradicts nothing: neither the gold's, nor what the question asks in."""
    if said is None or said.startswith("unit") or said == gold:
        return True
    if gold is not None:
        return False
    if question.units:
        bases = {*re.split(r"[\d/]+", said)} - {""}
        is_made = not question.is_sure and question.words & DERIVED and bases <= question.units
        return said in question.units or bool(is_made)
    return said != "%"  # per cent changes the value: only where it is asked for


def _unit(text: str) -> str | None:
    """A known unit, square, cubic or per another: cm^2 for "square centimetres"."""
    text = re.sub(r"\s*\^\s*", "^", re.sub(r"[{}]|degrees? (?=celsius|fahrenheit)", "", text, flags=re.IGNORECASE))
    words = re.sub(r"\bper\b", "/", text).replace("/", " / ").split()
    power, names = "", []
    for word in words:
        name, _, exponent = word.partition("^")
        if word.casefold() in POWERS:
            power = POWERS[word.casefold()]
        elif word == "/":
            names.append(word)
        elif found := _known(name):
            names.append(found + exponent)
        elif word.casefold() not in FILLERS and word.casefold() != "us":
            return None
    unit = "".join(names).strip("/") + power
    return {"mi/h": "mph"}.get(unit, unit) if names.count("/") <= 1 and len(names) in (1, 3) else None


def _known(name: str) -> str | None:
    if len(name) <= 2 or name in NAMES:
        return NAMES.get(name) or NAMES.get(name.casefold() if len(name) > 1 else name)
    return NAMES.get(name.casefold()) or NAMES.get(_singular(name.casefold()))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word


def _first_units(phrase: str, counts: bool) -> set[str]:
    """The unit that a phrase begins with; behind "how many" its nouns, if none of them is a unit."""
    if counts:
        phrase = " ".join(takewhile(lambda word: word.casefold() not in NO_NOUNS, phrase.split()))
    words = re.sub(r"[⁰¹²³]", lambda found: "^" + str("⁰¹²³".index(found[0])), phrase).split()
    for length in (3, 2, 1):
        if len(words) >= length and (found := _unit(" ".join(words[:length]))):
            return {found}
    return _named(phrase) or {_singular(word.casefold()) for word in words} if counts else set()


def _named(question: str) -> set[str]:
    """Units that a text names by a word, a sign, or behind a number."""
    words = {*re.findall(r"[A-Za-z]{2,}|[°%$€£¥Ω]", question)}
    words = [word for word in words if word.casefold() not in AMBIGUOUS]
    behind = re.findall(r"\d\s*([A-Za-z]{1,4}\b|°[CF]?)", question)
    return {found for word in [*words, *behind] if (found := _unit(word)) and not found.startswith("unit")}
