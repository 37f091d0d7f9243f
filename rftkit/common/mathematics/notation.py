"""Text without what only dresses it, and the notations of mathematics turned into one."""

from __future__ import annotations

import re
import unicodedata

WRAPPERS = "** **", "* *", "__ __", "` `", "$$ $$", "$ $", "\\( \\)", "\\[ \\]", '" "', "' '", "“ ”"
TYPE = "text|textnormal|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox|operatorname"
BRACED = re.compile(rf"\\(?:boxed|fbox|rm|bf|{TYPE})\s*\{{")
UPRIGHT = re.compile(rf"\\(?:{TYPE})\s*\{{([^{{}}]*)\}}")
GREEK = "alpha beta gamma delta epsilon theta lambda mu rho sigma phi phi omega Delta"
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
SIGNS = {
    **dict.fromkeys("−–—‒﹣-", "-"),
    **dict.fromkeys(("×", "·", "⋅", "∙", "∗", "✕", "\\times", "\\cdot", "\\ast"), "*"),
    **dict.fromkeys(("÷", "⁄", "∕", "\\div"), "/"),
    **dict.fromkeys(("≤", "⩽", "\\leqslant", "\\leq", "\\le", "<=", "=<"), "≤"),
    **dict.fromkeys(("≥", "⩾", "\\geqslant", "\\geq", "\\ge", ">="), "≥"),
    **dict.fromkeys(("\\neq", "\\ne", "!="), "≠"),
    **dict.fromkeys(("\\approx", "\\simeq", "≃", "≅"), "≈"),
    **dict.fromkeys(("\\lt",), "<"),
    **dict.fromkeys(("\\gt",), ">"),
    **dict.fromkeys(("^{\\circ}", "^\\circ", "^{∘}", "^∘", "\\degree", "\\circ", "º", "˚"), "°"),
    **dict.fromkeys(("\\dfrac", "\\tfrac", "\\cfrac"), "\\frac "),
    **dict.fromkeys(("\\left", "\\right", "\\bigl", "\\bigr", "\\Bigl", "\\Bigr", "\\big", "\\Big", "\\!"), ""),
    **dict.fromkeys(("\\,", "\\;", "\\:", "\\ ", "~", "\\quad", "\\qquad", "\u00a0", "\u202f"), " "),
    **dict.fromkeys(("\\displaystyle", "\\boxed", "\\fbox"), " "),
    **dict.fromkeys(("\\{", "\\lbrace"), "⦃"),
    **dict.fromkeys(("\\}", "\\rbrace"), "⦄"),
    **dict.fromkeys(("\\langle", "⟨"), "("),
    **dict.fromkeys(("\\rangle", "⟩"), ")"),
    **dict.fromkeys(("\\lvert", "\\rvert", "\\vert"), "|"),
    **dict.fromkeys(("\\cup", "∪"), "∪"),
    **dict.fromkeys(("\\pm", "±"), "±"),
    **dict.fromkeys(("\\in", "∈"), "∈"),
    **dict.fromkeys(("\\emptyset", "\\varnothing", "∅"), "∅"),
    **dict.fromkeys(("\\angle", "∠"), "∠"),
    **dict.fromkeys(("π",), "\\pi "),
    **{sign: f"\\{name} " for sign, name in zip("αβγδεθλμρσφϕωΔ", GREEK.split(), strict=True)},
    **dict.fromkeys(("∞", "\\infin"), "\\infty "),
    **dict.fromkeys(("√",), "\\sqrt "),
    **dict.fromkeys(("\\%",), "%"),
    **dict.fromkeys(("\\$", "US$"), "$"),
    "**": "^",
}
# Longest first; a command ends where its letters do: \le is no \left.
SIGN = re.compile("|".join(re.escape(sign) + (r"(?![A-Za-z])" if sign[-1].isalpha() and sign[0] == "\\" else "")
                           for sign in sorted(SIGNS, key=len, reverse=True)))  # fmt: skip


def plain(text: str) -> str:
    """The text in Unicode's composed form, without bold, box, mathematics delimiters, quotes and a final full stop."""
    text, before = unicodedata.normalize("NFC", text).strip(), None
    while text != before:
        before = text
        text = _unwrapped(text).strip()
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip()
    return text


def _unwrapped(text: str) -> str:
    for opening, closing in map(str.split, WRAPPERS):
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and inner.strip() and opening not in inner:
            return inner
    found = BRACED.match(text)
    if found and _closing(text, found.end() - 1) == len(text) - 1:
        return text[found.end() : -1]
    return text


def _closing(text: str, place: int) -> int:
    """Where the brace at `place` is closed; -1 if it is not."""
    depth = 0
    for number in range(place, len(text)):
        depth += {"{": 1, "}": -1}.get(text[number], 0)
        if not depth:
            return number
    return -1


def same_text(left: str, right: str) -> bool:
    """Equal as text: in any case, with white space, underscores and upright type as spaces, dressed or not."""
    return _words(left) == _words(right)


def _words(text: str) -> str:
    text = UPRIGHT.sub(r" \1 ", plain(text)).replace("_", " ").casefold()
    return re.sub(r"\s*([,;:()\[\]=<>⊥∥])\s*", r"\1", " ".join(text.split()))


def one_notation(text: str) -> str:
    """LaTeX or plain mathematics as `expressions.parse` reads it."""
    text = re.sub(r"(?<!\\)\$([^$]*)(?<!\\)\$", r" \1 ", text)  # mathematics in a text: $28$ percent
    text = UPRIGHT.sub(r" \1 ", text)
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda found: "^{" + found[0].translate(SUPERSCRIPTS) + "}", text)
    text = "".join(_vulgar(sign) for sign in text)
    text = SIGN.sub(lambda found: SIGNS[found[0]], text)
    # Digit groups, 1{,}000 and 1 000; and a decimal comma that LaTeX writes 3{,}5.
    text = re.sub(r"(?<![\d.,])[1-9]\d{0,2}(?:(?:\{,\}|\s)\d{3})+(?![\d,])", lambda found: _digits(found[0]), text)
    text = re.sub(r"(\d)\{,\}(\d)", r"\1.\2", text)
    # \frac12 and \frac{1}2; mixed numbers 2 1/3.
    text = re.sub(r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{", text)
    text = re.sub(r"(?<![\d.^/])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])", r"\1\\frac{\2}{\3}", text)
    text = re.sub(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", "*", text)  # 3x10^8
    text = re.sub(r"_\{(\w)\}", r"_\1", text)
    return " ".join(re.sub(r",\s*and\s", ", ", text).split())


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _vulgar(sign: str) -> str:
    """½ as a fraction."""
    upper, slash, lower = unicodedata.normalize("NFKD", sign).partition("⁄")
    return f"\\frac{{{upper}}}{{{lower}}}" if slash and upper and lower else sign


def without_thousands(text: str) -> str:
    """Without the commas of 1,000, except in brackets, where a comma separates."""

    def joined(found: re.Match) -> str:
        before = text[: found.start()]
        inside = sum(before.count(sign) for sign in "([⦃") - sum(before.count(sign) for sign in ")]⦄")
        return found[0] if inside else found[0].replace(",", "")

    return re.sub(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])", joined, text)
