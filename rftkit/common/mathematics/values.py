"""What expressions are worth, as exact fractions or to 50 digits, with variables at points.

Sizes are bounded, and so is time.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, reduce
from random import Random

import mpmath

from rftkit.common.mathematics.expressions import DIGITS, LARGEST, Node, Unreadable

_exactly = mpmath.MPContext()
_exactly.dps = DIGITS + 15
UNLIKE = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "log": "log10", "abs": "fabs"}  # names in mpmath
MOST = 1000 * LARGEST  # argument of a function
BITS = 10_000  # of a numerator or denominator


@lru_cache(maxsize=2**14)
def exact(node: Node) -> Fraction | None:
    """The rational number that an expression is, or None; Unreadable if it is too large to be written out."""
    if node.kind == "number":
        return node.number
    values = [exact(part) for part in node.parts]
    if not values or None in values:
        return None
    if node.kind in ("+", "*"):
        return reduce(lambda left, right: _bounded(left + right if node.kind == "+" else left * right), values)
    if node.kind == "neg":
        return -values[0]
    if node.kind == "/":
        if not values[1]:
            raise Unreadable
        return _bounded(values[0] / values[1])
    return _exact_power(*values) if node.kind == "^" else None


def _bounded(number: Fraction) -> Fraction:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > BITS:
        raise Unreadable
    return number


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return _exact_root(base, exponent) if base > 0 and exponent.denominator <= 10 else None
    bits = base.numerator.bit_length() + base.denominator.bit_length()
    if abs(exponent) > LARGEST or bits * abs(exponent) > BITS or not base and exponent <= 0:
        raise Unreadable
    return base ** int(exponent)


def _exact_root(base: Fraction, exponent: Fraction) -> Fraction | None:
    """Such as 3 for 9^(1/2); None where the root is irrational."""
    roots = [int(_exactly.nint(_exactly.root(n, exponent.denominator))) for n in (base.numerator, base.denominator)]
    root = Fraction(*roots)
    return _exact_power(root, Fraction(exponent.numerator)) if root**exponent.denominator == base else None


def value(node: Node, point: dict[str, float] | None = None) -> mpmath.mpc:
    """The number that an expression is to 65 digits, its variables at a point; Unreadable where there is none."""
    point = point or {}
    if node.kind == "number":
        return _exactly.mpf(node.number.numerator) / node.number.denominator
    if node.kind.startswith("$"):
        return _exactly.mpf(point[node.kind[1:]])
    if node.kind in ("pi", "e", "i"):
        return {"pi": +_exactly.pi, "e": +_exactly.e, "i": _exactly.mpc(0, 1)}[node.kind]
    if node.kind == "infty":
        raise Unreadable
    values = [value(part, point) for part in node.parts]
    try:
        return _operation(node.kind, *values)
    except (ZeroDivisionError, ValueError, OverflowError, TypeError, mpmath.libmp.NoConvergence):
        raise Unreadable from None


def _operation(kind: str, *values: mpmath.mpc) -> mpmath.mpc:
    first = values[0]
    if kind == "+":
        return _exactly.fsum(values)
    if kind == "*":
        return _exactly.fprod(values)
    if kind == "neg":
        return -first
    if kind == "/":
        return first / values[1]
    if kind == "°":
        return first * _exactly.pi / 180
    if kind == "^":
        if abs(values[1]) > LARGEST:
            raise Unreadable
        return first ** values[1]
    if abs(first) > MOST:
        raise Unreadable
    if kind == "!":
        return _factorial(first)
    if kind == "binom":
        return _factorial(first) / _factorial(values[1]) / _factorial(first - values[1])
    return getattr(_exactly, UNLIKE.get(kind, kind))(first)


def _factorial(number: mpmath.mpc) -> mpmath.mpf:
    if not _exactly.isint(number) or not 0 <= number.real <= LARGEST:
        raise Unreadable
    return _exactly.factorial(number)


def is_close(left: mpmath.mpc, right: mpmath.mpc) -> bool:
    """Equal to the digits that are compared."""
    scale = abs(left) + abs(right)
    return scale < 10.0**-DIGITS or abs(left - right) < scale * _exactly.mpf(10) ** -(DIGITS - 5)


def points(names: set[str]) -> list[dict[str, float]]:
    """Places where expressions of these variables are compared: always the same, of both signs."""
    random = Random(0)
    return [{name: random.choice((-1, 1)) * random.uniform(0.3, 3) for name in sorted(names)} for _ in range(8)]


def same(left: Node, right: Node) -> bool:
    """Whether two expressions have the same value, for all values of their variables."""
    if left == right:
        return True
    names = left.variables()
    if names != right.variables():
        return False
    try:
        if not names and None not in (numbers := (exact(left), exact(right))):
            return numbers[0] == numbers[1]
        if not names:
            return is_close(value(left), value(right))
    except Unreadable:
        return False
    return agreements(lambda point: is_close(value(left, point), value(right, point)), names)


def agreements(holds: Callable[[dict[str, float]], bool], names: set[str]) -> bool:
    """Whether something holds at all points where it can be asked, and these are three or more."""
    found = []
    for point in points(names):
        try:
            found.append(holds(point))
        except Unreadable:
            continue
    return len(found) >= 3 and all(found)
