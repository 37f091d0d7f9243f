"""Formulas over cards: their exact value, and every way to a target. Nothing is ever run as Python."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations
from typing import NamedTuple

MOST_TOKENS, MOST_DIGITS, MOST_CHARACTERS = 64, 3, 200  # beyond these nothing is a formula: a model may write anything
TOKEN = re.compile(r"\d+|[-+*/()]")
Formula = tuple[str, ...]


class NoFormula(ValueError):
    """What is read is no formula, or has no value."""


def tokens_of(text: str) -> Formula | None:
    """The tokens of a formula written as text; None if something else stands in it, or it is too long."""
    if len(text) > MOST_CHARACTERS or TOKEN.sub("", text).strip():
        return None
    return tuple(TOKEN.findall(text))


def value(tokens: Sequence[str]) -> Fraction | None:
    """The exact value of a formula by the usual rules; None if it is no formula or divides by zero.

    Each number is a token of its own: two side by side are no formula, and neither is `**`. A sign needs something on
    both of its sides.
    """
    if len(tokens) > MOST_TOKENS or any(len(token) > MOST_DIGITS for token in tokens):
        return None
    reader = _Reader(tokens)
    try:
        found = reader.sum()
    except (NoFormula, ZeroDivisionError):
        return None
    return found if reader.place == len(tokens) else None


class _Reader:
    """Recursive descent over tokens: a sum of products of numbers and brackets."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens, self.place = tokens, 0

    def next(self, among: str | None = None) -> str | None:
        """The next token, taken; None, and not taken, if it is not among these."""
        token = self.tokens[self.place] if self.place < len(self.tokens) else ""
        if among is not None and (not token or token not in among):
            return None
        self.place += 1
        return token

    def sum(self) -> Fraction:
        total = self.product()
        while sign := self.next("+-"):
            total = _result(total, sign, self.product())
        return total

    def product(self) -> Fraction:
        total = self.atom()
        while sign := self.next("*/"):
            total = _result(total, sign, self.atom())
        return total

    def atom(self) -> Fraction:
        token = self.next()
        if token == "(":
            inside = self.sum()
            if self.next(")") is None:
                raise NoFormula
            return inside
        if not (token.isascii() and token.isdigit()):
            raise NoFormula
        return Fraction(int(token))


def _result(a: Fraction, sign: str, b: Fraction) -> Fraction:
    if sign == "+":
        return a + b
    if sign == "-":
        return a - b
    return a * b if sign == "*" else a / b


class _Term(NamedTuple):
    """A formula over some of the cards, and what joins it at its top: `+` (or -), `*` (or /), or nothing."""

    text: Formula
    top: str


def solve(cards: Sequence[int], target: int, signs: str = "+-*/") -> tuple[Formula, ...]:
    """Every formula over all the cards that reaches the target, the shortest first; none if the deal has no solution.

    Brackets stand where they are needed, and nowhere else.
    """
    return _solved(tuple(sorted(cards)), target, signs)


@cache
def _solved(cards: tuple[int, ...], target: int, signs: str) -> tuple[Formula, ...]:
    found = set()
    for left, right in _halves(cards):
        terms = _terms(right, signs)
        for a, firsts in _terms(left, signs).items():
            for sign in signs:
                seconds = terms.get(_missing(a, sign, target), ())
                found |= {j.text for first in firsts for second in seconds if (j := _joined(first, sign, second))}
    return tuple(sorted(found, key=lambda text: (len(text), text)))


def _missing(a: Fraction, sign: str, target: int) -> Fraction | None:
    """The b of `a sign b = target`; None if there is none."""
    if sign == "+":
        return target - a
    if sign == "-":
        return a - target
    if not a:
        return None
    return target / a if sign == "*" else a / target


@cache
def _terms(cards: tuple[int, ...], signs: str) -> dict[Fraction, tuple[_Term, ...]]:
    """Every formula over sorted cards, each used once, by its value."""
    if len(cards) == 1:
        return {Fraction(cards[0]): (_Term((str(cards[0]),), ""),)}
    found: dict[Fraction, dict[_Term, None]] = {}  # a dict keeps each once, in order
    for left, right in _halves(cards):
        for a, firsts in _terms(left, signs).items():
            for b, seconds in _terms(right, signs).items():
                for sign in signs if b else signs.replace("/", ""):
                    joined = (_joined(first, sign, second) for first in firsts for second in seconds)
                    found.setdefault(_result(a, sign, b), {}).update(dict.fromkeys(filter(None, joined)))
    return {result: tuple(terms) for result, terms in found.items()}


def _halves(cards: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All ways to lay cards into a left and a right heap, equal cards not told apart."""
    places, seen = range(len(cards)), set()
    for count in range(1, len(cards)):
        for chosen in combinations(places, count):
            left = tuple(cards[place] for place in chosen)
            if left not in seen:
                seen.add(left)
                yield left, tuple(cards[place] for place in places if place not in chosen)


def _joined(first: _Term, sign: str, second: _Term) -> _Term | None:
    """Two formulas joined by a sign; None for a+(b+c) and a*(b*c), which (a+b)+c and (a*b)*c say already."""
    top = "+" if sign in "+-" else "*"
    if sign == top == second.top:
        return None
    left = _bracketed(first.text) if top == "*" and first.top == "+" else first.text
    needed = (sign == "/" and second.top) or (sign in "-*" and second.top == "+")
    right = _bracketed(second.text) if needed else second.text
    return _Term((*left, sign, *right), top)


def _bracketed(text: Formula) -> Formula:
    return ("(", *text, ")")
