"""Mathematics read from text: a whole expression or nothing, never a part of one, and never executed.

A parser of a few rules, because libraries that search a text for mathematics find some in nearly every text: of `2√3`
they read the 2. Its texts are written by `rftkit.common.mathematics.notation`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

LARGEST = 400  # exponent
DIGITS = 50  # of a number
DEPTH = 30  # of brackets in brackets

GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi varphi chi "
    "psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega"
)
FUNCTIONS = "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan exp ln log abs"
GREEK, FUNCTIONS = set(GREEK.split()), set(FUNCTIONS.split())
TOKEN = re.compile(
    r"(?P<repeating>\d*\.\d*\\(?:overline|bar|dot)\{\d+\})|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+(?![\d.]))?)"
    r"|\\(?P<command>[A-Za-z]+)|(?P<word>[A-Za-z]+)|(?P<sign>[-+*/^(){}\[\]|!_°])|\s+"
)


class Unreadable(Exception):
    """The text is no expression, or one too large to compare."""


@dataclass(frozen=True)
class Node:
    """An expression: `kind` is a number, a name, an operation (+ * / ^ neg) or a function; `parts` its operands."""

    kind: str
    parts: tuple[Node, ...] = ()
    number: Fraction | None = None

    def nodes(self) -> list[Node]:
        """This node and all below it."""
        return [self, *(node for part in self.parts for node in part.nodes())]

    def variables(self) -> set[str]:
        """The names in it that are no constants."""
        return {node.kind[1:] for node in self.nodes() if node.kind.startswith("$")}


@lru_cache(maxsize=2**14)
def parse(text: str) -> Node | None:
    """The expression that a whole text is, or None."""
    try:
        return _Parser(text).whole()
    except (Unreadable, RecursionError, ZeroDivisionError):
        return None


class _Parser:
    """Recursive descent: sum, product, power, atom."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        place = 0
        while place < len(text):
            found = TOKEN.match(text, place)
            if not found:
                raise Unreadable
            place = found.end()
            if found.lastgroup:
                self.tokens.append((found.lastgroup, found[0]))
        letters = [token for kind, token in self.tokens if kind == "word" and not _is_name(token)]
        # "no" and "on" are words; xy is a product where something else says that this is mathematics.
        if any(len(word) > 3 or len(word) > 1 and len(self.tokens) == 1 for word in letters):
            raise Unreadable
        self.tokens = [single for token in self.tokens for single in _letters(token)]
        self.place = self.depth = 0

    def whole(self) -> Node:
        node = self.sum()
        if self.place != len(self.tokens):
            raise Unreadable
        return node

    def next(self, *wanted: str) -> str | None:
        """The next token if it is one of those wanted, which it then moves past; else None."""
        if self.place < len(self.tokens) and self.tokens[self.place][1] in wanted:
            self.place += 1
            return self.tokens[self.place - 1][1]
        return None

    def ahead(self) -> tuple[str, str]:
        return self.tokens[self.place] if self.place < len(self.tokens) else ("end", "")

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > DEPTH:
            raise Unreadable
        terms = [self.product()]
        while sign := self.next("+", "-"):
            term = self.product()
            terms.append(Node("neg", (term,)) if sign == "-" else term)
        self.depth -= 1
        return Node("+", tuple(terms)) if len(terms) > 1 else terms[0]

    def product(self, argument: bool = False) -> Node:
        """Factors and divisors. The argument of a function ends before another function: sin b cos a."""
        if self.next("-"):
            return Node("neg", (self.product(argument),))
        if self.next("+"):
            return self.product(argument)
        node = self.power()
        while True:
            if argument and self.ahead()[1].removeprefix("\\") in FUNCTIONS:
                return node
            if self.next("/"):
                node = Node("/", (node, self.signed()))
            elif self.next("*"):
                node = _times(node, self.signed())
            elif self.ahead()[0] in ("command", "word") or self.ahead()[1] in ("(", "{"):
                node = _times(node, self.power())  # 2x; but no number stands behind anything: 11 12 are two
            else:
                return node

    def signed(self) -> Node:
        if self.next("-"):
            return Node("neg", (self.power(),))
        self.next("+")
        return self.power()

    def power(self) -> Node:
        node = self.atom()
        while sign := self.next("!", "°"):
            node = Node(sign, (node,))
        return Node("^", (node, self.signed())) if self.next("^") else node

    def atom(self) -> Node:
        kind, token = self.ahead()
        self.place += 1
        if kind in ("number", "repeating"):
            return self.mixed(_number(token))
        if closing := {"(": ")", "{": "}", "|": "|"}.get(token):
            node = self.sum()
            if not self.next(closing):
                raise Unreadable
            return Node("abs", (node,)) if token == "|" else node
        name = token.removeprefix("\\")
        if kind not in ("command", "word"):
            raise Unreadable
        if name in ("frac", "binom") and kind == "command":
            return Node("/" if name == "frac" else "binom", (self.argument(), self.argument()))
        if name == "sqrt":
            return self.root()
        if name in FUNCTIONS:
            return self.function(name)
        if name in ("pi", "infty") or kind == "word" and name in ("e", "i"):
            return Node(name)
        if kind == "command" and name not in GREEK:
            raise Unreadable
        if self.next("_"):
            name += "_" + self.subscript()
        return Node("$" + name)

    def mixed(self, whole: Fraction) -> Node:
        """A number, or the mixed number that an integer and a proper fraction make: 2½ is two and a half."""
        start, node = self.place, Node("number", number=whole)
        if whole.denominator == 1 and self.ahead() == ("command", "\\frac"):
            self.place += 1
            upper, lower = self.argument(), self.argument()
            if upper.number is not None and lower.number and 0 < upper.number < lower.number:
                return Node("number", number=whole + upper.number / lower.number)
            self.place = start
        return node

    def argument(self) -> Node:
        """What a command takes: a group in braces, or one thing."""
        if self.ahead()[1] not in ("(", "{") and self.ahead()[0] not in ("number", "command", "word"):
            raise Unreadable
        return self.atom()

    def root(self) -> Node:
        degree = Node("number", number=Fraction(2))
        if self.next("["):
            degree = self.sum()
            if not self.next("]"):
                raise Unreadable
        return Node("^", (self.argument(), Node("/", (Node("number", number=Fraction(1)), degree))))

    def function(self, name: str) -> Node:
        base = self.argument() if name == "log" and self.next("_") else None
        power = self.signed() if self.next("^") else None
        bracketed = self.ahead()[1] in ("(", "{")
        inner = self.power() if bracketed else self.product(argument=True)
        node = Node(name, (inner,))
        if base:
            node = Node("/", (Node("ln", (inner,)), Node("ln", (base,))))
        return Node("^", (node, power)) if power else node

    def subscript(self) -> str:
        braced, name = self.next("{"), ""
        while self.ahead()[0] in ("number", "word"):
            name += self.ahead()[1]
            self.place += 1
            if not braced:
                break
        if not name or braced and not self.next("}"):
            raise Unreadable
        return name


def _is_name(word: str) -> bool:
    return word in FUNCTIONS or word in ("pi", "sqrt")


def _letters(token: tuple[str, str]) -> list[tuple[str, str]]:
    kind, text = token
    return [(kind, letter) for letter in text] if kind == "word" and not _is_name(text) else [token]


def _number(token: str) -> Fraction:
    if len(token) > DIGITS:
        raise Unreadable
    whole, repeats, rest = re.sub(r"\\(overline|bar|dot)", "\\\\", token).partition("\\")
    if not repeats:
        mantissa, _, exponent = token.lower().partition("e")
        if abs(int(exponent or 0)) > LARGEST:
            raise Unreadable
        return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)
    period, decimals = rest.strip("{}"), len(whole.partition(".")[2])
    return Fraction("0" + whole + "0") + Fraction(int(period), (10 ** len(period) - 1) * 10**decimals)


def _times(left: Node, right: Node) -> Node:
    """One product of all its factors."""
    factors = [part for node in (left, right) for part in (node.parts if node.kind == "*" else (node,))]
    return Node("*", tuple(factors))
