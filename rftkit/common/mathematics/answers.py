"""Whether an answer says what the right answer says: the same value, whole, in any notation, with no other unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from rftkit.common.mathematics import units
from rftkit.common.mathematics.expressions import FUNCTIONS, Node, Unreadable, parse
from rftkit.common.mathematics.notation import one_notation, plain, same_text, without_thousands
from rftkit.common.mathematics.units import Asked, asked
from rftkit.common.mathematics.values import agreements, exact, same, value

LONGEST = 200  # characters of an answer that is read as mathematics
MONTHS = "january february march april may june july august september october november december"
ORDER = re.compile(r"\d+(?:-\d+)+|\d+(?:/\d+){2,}")  # places, a score, a range, 3/4/2020: nothing to calculate
BRACKETS = {"(": ")]", "[": ")]", "⦃": "⦄"}
COMMAS = {" and ": ",", ";": ","}
SEPARATORS = ("∪", " or ", ";", ",", " and ", ":")
NAMED = re.compile(
    r"(?P<name>[A-Za-z]|\\[A-Za-z]+|m? ?∠ ?[A-Z]{1,3}|[A-Z]{2,4}|[A-Za-z]_(?:\w|\{\w+\})|[A-Za-z] ?\([A-Za-z]\)"
    r"|\([A-Za-z](?:, ?[A-Za-z])+\)) ?[=≈∈] ?(?P<rest>(?![A-Z]$)[^=<>≤≥≠]+)"
)
RELATION = re.compile(r"[=<>≤≥≠]")
FLIPPED = {">": "<", "≥": "≤", "<": ">", "≤": "≥"}


@dataclass(frozen=True)
class Quantity:
    """A value and its unit; the unit `ratio` is that of 0.5 read from 50 %."""

    value: Node
    unit: str | None = None


@dataclass(frozen=True)
class Group:
    """Several answers: what stands around and between them."""

    brackets: str
    separator: str
    items: tuple[str, ...]


def same_answer(gold: str, said: str, question: str = "", unit: str = "", precision: int | None = None) -> bool:
    """Whether `said` is the right answer `gold`.

    Args:
        question: what was asked, which may name a unit.
        unit: the unit that the set states, if it states one.
        precision: decimals that the set rounds to; without one, a gold of three or more decimals is met to its last.
    """
    if same_text(gold, said):
        return bool(plain(said))
    if max(len(gold), len(said)) > LONGEST or not plain(gold) or not plain(said):
        return False
    return _same(one_notation(plain(gold)), one_notation(plain(said)), asked(question, unit), precision)


def _same(gold: str, said: str, question: Asked, precision: int | None) -> bool:
    gold, said = gold.lstrip("≈= "), said.lstrip("≈= ")
    if not gold or not said:
        return False
    if same_text(gold, said):
        return True
    if date := _date(gold):
        return date == _date(said)
    if ORDER.fullmatch(gold.replace(" ", "")):
        return gold.replace(" ", "") == said.replace(" ", "")
    gold_name, gold_rest = _name_and_rest(gold)
    said_name, said_rest = _name_and_rest(said)
    if said_name and gold_name != said_name and (gold_name or not _is_in_order(said_name.strip("()").split(","))):
        return False
    if (gold_name or said_name) and not RELATION.search(gold_rest + said_rest):
        return _same(gold_rest, said_rest, question, precision)
    gold, said = without_thousands(gold), without_thousands(said)
    groups = _group(gold), _group(said)
    if any(groups):
        return all(groups) and _same_group(*groups, question, precision)
    if RELATION.search(gold) or RELATION.search(said):
        return _same_relation(gold, said)
    return _same_value(gold, said, question, precision)


def _name_and_rest(text: str) -> tuple[str, str]:
    """What stands before the equals sign of x = 3, if it is a name, and what stands behind it."""
    found = NAMED.fullmatch(text)
    return (re.sub(r"[\s{}]|^m(?=.?∠)", "", found["name"]), found["rest"]) if found else ("", text)


def _is_in_order(names: list[str]) -> bool:
    """(7, 6) is x = 7, y = 6 and (x, y) = (7, 6); it is no y = 7, x = 6."""
    letters = [name for name in names if name.isalpha()]
    return letters == sorted(letters)


def _date(text: str) -> tuple[int, ...] | None:
    """Year (0: none), month and day of 2020-05-01, May 1, 2020 or 1st of May."""
    if found := re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})", text):
        return tuple(int(part) for part in found.groups())
    words = re.findall(r"[^\W\d]+|\d+", text.casefold())
    numbers = [int(word) for word in words if word.isdecimal()]
    months = [number for number, month in enumerate(MONTHS.split(), 1) for word in words if _is_month(word, month)]
    others = len({*words} - {"st", "nd", "rd", "th", "of", "the"}) - len({*numbers})
    if len(months) != 1 or len(numbers) not in (1, 2) or others != 1:
        return None
    years = [number for number in numbers if number > 31]
    days = [number for number in numbers if number <= 31]
    return (*(years or [0]), months[0], *days) if len(days) == 1 else None


def _is_month(word: str, month: str) -> bool:
    return len(word) >= 3 and month.startswith(word)


def _group(text: str) -> Group | None:
    """The parts of a pair, interval, set, list or ratio; None for one value. Brackets around one value are none."""
    if "±" in text:
        return Group("⦃⦄", ",", (text.replace("±", "+"), text.replace("±", "-")))
    brackets = ""
    if text[0] in BRACKETS and text[-1] in BRACKETS[text[0]] and _depths(text[:-1])[1:] and min(_depths(text[:-1])) > 0:
        brackets, text = text[0] + text[-1], text[1:-1]
    for separator in SEPARATORS:
        items = _split(text, separator)
        if len(items) > 1:
            return Group(brackets, COMMAS.get(separator, separator.strip()), tuple(item.strip() for item in items))
    return None


def _depths(text: str) -> list[int]:
    """How many brackets are open behind each character."""
    depth, depths = 0, []
    for sign in text:
        depth += (sign in "([{⦃") - (sign in ")]}⦄")
        depths.append(depth)
    return depths


def _split(text: str, separator: str) -> list[str]:
    items, start, depths = [], 0, _depths(text)
    for found in re.finditer(re.escape(separator), text):
        if not depths[found.start()]:
            items.append(text[start : found.start()])
            start = found.end()
    return [*items, text[start:]]


def _same_group(gold: Group, said: Group, question: Asked, precision: int | None) -> bool:
    """Item by item; in a set in any order. A set and a point may go without their brackets, an interval may not."""
    if gold.separator != said.separator or len(gold.items) != len(said.items):
        return False
    if gold.brackets != said.brackets and {gold.brackets, said.brackets} - {"", "()", "⦃⦄"}:
        return False
    if {gold.brackets, said.brackets} == {"()", "⦃⦄"}:
        return False
    names = [_name_and_rest(item)[0] for item in said.items]
    if not any(_name_and_rest(item)[0] for item in gold.items) and not _is_in_order(names):
        return False
    if "⦃⦄" not in (gold.brackets, said.brackets):
        pairs = zip(gold.items, said.items, strict=True)
        return all(_same(left, right, question, precision) for left, right in pairs)
    rest = list(said.items)
    for item in gold.items:
        place = next((place for place, other in enumerate(rest) if _same(item, other, question, precision)), None)
        if place is None:
            return False
        del rest[place]
    return True


def _same_relation(gold: str, said: str) -> bool:
    """Equations: in one variable the same sides, in more a multiple; chains of inequalities from either end."""
    chains = []
    for text in (gold, said):
        signs, sides = RELATION.findall(text), RELATION.split(text)
        if signs and all(sign in ">≥" for sign in signs):
            signs, sides = [FLIPPED[sign] for sign in reversed(signs)], sides[::-1]
        chains.append((signs, [parse(side) for side in sides]))
    (gold_signs, gold_sides), (said_signs, said_sides) = chains
    if gold_signs != said_signs or None in gold_sides or None in said_sides:
        return False
    if gold_signs != ["="]:
        return all(same(left, right) for left, right in zip(gold_sides, said_sides, strict=True))
    gold_rest, said_rest = (Node("+", (left, Node("neg", (right,)))) for left, right in (gold_sides, said_sides))
    names = gold_rest.variables()
    if len(names) < 2:
        return any(all(map(same, gold_sides, sides)) for sides in (said_sides, said_sides[::-1]))
    ratios: list = []

    def proportional(point: dict[str, float]) -> bool:
        above, below = value(said_rest, point), value(gold_rest, point)
        if abs(below) < 1e-20 or abs(above) < 1e-20:
            raise Unreadable
        ratios.append(above / below)
        return abs(ratios[-1] - ratios[0]) < 1e-20 * abs(ratios[0])

    return names == said_rest.variables() and agreements(proportional, names)


def _same_value(gold: str, said: str, question: Asked, precision: int | None) -> bool:
    for right in _quantities(gold, question):
        for given in _quantities(said, question):
            if _unit_fits(right, given, question) and _same_number(right.value, given.value, gold, precision):
                return True
    return False


def _unit_fits(gold: Quantity, said: Quantity, question: Asked) -> bool:
    if "ratio" not in (gold.unit, said.unit):
        return units.fits(gold.unit, said.unit, question)
    return gold.unit == said.unit or None in (gold.unit, said.unit) and "%" not in question.units


def _quantities(text: str, question: Asked) -> list[Quantity]:
    """All ways to read a text as a value with or without a unit."""
    whole = parse(text)
    found = [Quantity(whole)] if whole else []
    if text[0] in units.CURRENCIES and (node := parse(text[1:].strip())):
        found.append(Quantity(node, text[0]))
    for place in range(1, len(text)):
        begins = text[place].isalpha() and not text[place - 1].isalpha() or text[place] in "°%$€¢"
        if not begins or text[place - 1] == "\\":
            continue
        unit = units.unit_of(text[place:], question)
        # One letter close behind a number, as m in 5m, may be a variable: unless the question asks in it.
        close = len(text[place:]) == 1 and text[place].isalpha() and text[place - 1] != " "
        if unit is None or close and unit not in question.units:
            continue
        if node := parse(text[:place].strip()):
            found.append(Quantity(node, unit))
            if unit == "%":
                found.append(Quantity(Node("/", (node, Node("number", number=Fraction(100)))), "ratio"))
    return found


def _same_number(gold: Node, said: Node, text: str, precision: int | None) -> bool:
    if not _is_worked_out(said, gold):
        return False
    if precision is None and (found := re.fullmatch(r"\D*\d*\.(\d{3,})\D*", text)):
        precision = len(found[1])
    try:
        right = exact(gold)
        if same(gold, said):  # what is rational is written so: neither 5π/π nor √5√5
            return right is None or exact(said) is not None
        if precision is None or right is None or said.variables():
            return False
        unit = Fraction(1, 10**precision)
        rounded = Node("number", number=round(right / unit) * unit)
        given = exact(said)
        if given is not None:
            return abs(given - rounded.number) < unit / 2
        return abs(value(said) - value(rounded)) < float(unit / 2)
    except Unreadable:
        return False


def _is_worked_out(said: Node, gold: Node) -> bool:
    """Whether nothing is left to calculate: 7 + 5 is no 12, and 3 * 4 neither. A fraction, a root, a power is a number.

    What the gold leaves to calculate may be left.
    """
    if _leaves_work(gold):
        return True
    kinds, right = {node.kind for node in said.nodes()}, {node.kind for node in gold.nodes()}
    functions = {kind for kind in kinds - right if kind in FUNCTIONS or kind in ("!", "binom")}
    sums = "+" in kinds - right and not said.variables()
    return not functions and not sums and not _leaves_work(said)


def _leaves_work(node: Node) -> bool:
    for part in node.nodes():
        if part.kind == "neg" and part.parts[0].kind == "neg":
            return True
        if part.kind not in ("+", "*"):
            continue
        try:
            numbers = [operand for operand in part.parts if exact(operand) is not None]
        except Unreadable:
            return True
        scientific = part.kind == "*" and len(numbers) == 2 and _is_power_of_ten(numbers[1])
        if len(numbers) > 1 and not scientific:
            return True
    return False


def _is_power_of_ten(node: Node) -> bool:
    return node.kind == "^" and node.parts[0].number == 10
