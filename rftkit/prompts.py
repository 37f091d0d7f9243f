"""Modes: how the model is told to respond, what a well-formed completion is, and where the answer stands.

Suffixes are the paper's, word for word (arXiv 2503.16188, section 3 and appendix E).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from rftkit.common.errors import UserError
from rftkit.tasks.example import PLACE, Example

# A completion is cut to this many characters before anything looks at it: no parser may be slow on hostile text.
MAX_CHARACTERS = 16_384


@dataclass(frozen=True)
class Mode:
    """A way to respond.

    `tags` are the tags of a well-formed completion, in order; none means free text. `optional` ones may be missing.
    """

    name: str
    suffix: str
    tags: tuple[str, ...]
    optional: tuple[str, ...] = ()


MODES = {
    mode.name: mode
    for mode in (
        Mode(
            "thinking",
            "Please output the thinking process in <think> </think> and final answer in <answer> </answer> tags.",
            ("think", "answer"),
        ),
        Mode("no_thinking", "Please directly output the answer.", ()),
        Mode(
            "think_after_answer",
            "Please first output the answer in <answer> </answer> tags and then output a brief reasoning process "
            "in <reason> </reason> tags.",
            ("answer", "reason"),
        ),
        Mode(  # the paper does not publish its wording: ours
            "adaptive",
            "Please first decide whether to think. If so, output the thinking process in <think> </think> and then the "
            "final answer in <answer> </answer> tags; if not, output only the final answer in <answer> </answer> tags.",
            ("think", "answer"),
            optional=("think",),
        ),
    )
}


def get_mode(name: str) -> Mode:
    """The mode called `name`; UserError if there is none."""
    if name not in MODES:
        raise UserError(f"unknown mode '{name}': choose one of {', '.join(MODES)}")
    return MODES[name]


def question_text(example: Example, mode: str) -> str:
    """The user's text: question, choice list, suffix, joined by newline and space as in the released code.

    Classes stand in the paper's list; the choices of other tasks have letters, as in CV-Bench and PuzzleVQA.
    """
    lines = [example.question]
    if example.choices is not None and example.task == "classification":
        lines.append(f"Please choose one from list [ {', '.join(example.choices)}].")
    elif example.choices is not None:
        lettered = zip(ascii_uppercase, example.choices, strict=False)
        lines.append(" ".join(f"({letter}) {text}" for letter, text in lettered))
    lines.append(get_mode(mode).suffix)
    return "\n ".join(lines)


def conversation(example: Example, mode: str) -> list[dict[str, Any]]:
    """One user turn, no system message: TRL's conversational format. Images without a place come before the text."""
    image = {"type": "image"}
    first, *rest = question_text(example, mode).split(PLACE, min(example.question.count(PLACE), len(example.images)))
    content = [image] * (len(example.images) - len(rest)) + [{"type": "text", "text": first}]
    for text in rest:
        content += [image, {"type": "text", "text": text}]
    return [{"role": "user", "content": [part for part in content if part.get("text") != ""]}]


def target_completion(answer: str, mode: str) -> str:
    """What SFT trains towards: the bare label without thinking, the label in answer tags in the other modes."""
    return f"<answer> {answer} </answer>" if get_mode(mode).tags else answer


def completion_text(completion: str | list[dict[str, Any]]) -> str:
    """The text of a completion in either of TRL's shapes (a string, or a list of messages), cut to a safe length."""
    if isinstance(completion, str):
        return completion[:MAX_CHARACTERS]
    parts = []
    for message in completion:
        content = message.get("content") or ""
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        parts += [block.get("text") or "" for block in blocks if block.get("type") == "text"]
    return "".join(parts)[:MAX_CHARACTERS]


def is_well_formed(text: str, mode: str, rule: str = "strict") -> bool:
    """The format rule of a mode.

    `authors` is the released regular expression, which also accepts repeated and nested tags; the other rules want
    each tag exactly once, in order, and nothing but white space around them. A mode without tags has no format rule.
    """
    tags, optional = get_mode(mode).tags, get_mode(mode).optional
    if rule == "authors" and not optional:
        return not tags or _released_format(text, *tags)
    rest = text.strip()
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if tag in optional and opening not in text and closing not in text:
            continue
        if text.count(opening) != 1 or text.count(closing) != 1:
            return False
        if not rest.startswith(opening) or closing not in rest:  # the closing tag may stand in an earlier part
            return False
        rest = rest.partition(closing)[2].lstrip()
    return not tags or rest == ""


def _released_format(text: str, first: str, second: str) -> bool:
    """Whether `<first>.*?</first>\\s*<second>.*?</second>` matches the whole text, without its quadratic search."""
    opening, closing = f"<{first}>", f"</{second}>"
    inner = text[len(opening) : -len(closing)]
    between = re.search(rf"</{first}>\s*<{second}>", inner)
    return text.startswith(opening) and text.endswith(closing) and between is not None


def parse_answer(text: str, mode: str, rule: str = "strict") -> str | None:
    """The answer in a completion, stripped; None where there is none.

    - `strict` and the rules of other tasks: the content of the only answer tag after the thinking, or before the
      reason; without tags in the mode, the whole completion.
    - `lenient` (the paper's evaluation): the content of the first answer tag, else the whole completion.
    - `authors` (the released reward): without thinking the whole completion, unstripped; else like `lenient`, but
      the first tag pair that stands on one line.
    """
    tags = get_mode(mode).tags
    if rule not in ("lenient", "authors"):
        return _only_answer(text, tags) if tags else text.strip()
    if rule == "authors" and not tags:
        return text
    for part in text.split("\n") if rule == "authors" else [text]:
        content, closing, _ = part.partition("<answer>")[2].partition("</answer>")
        if closing:
            return content.strip()
    return text.strip()


def thought_of(completion: str) -> str | None:
    """What stands in the think tag of a completion, or its reason tag; one that is never closed ends at the answer.
    None without one."""
    opened, tag, rest = completion.partition("<think>")
    if not tag:
        _, tag, rest = opened.partition("<reason>")
    return re.split(r"</think>|</reason>|<answer>", rest, maxsplit=1)[0].strip() if tag else None


def _only_answer(text: str, tags: tuple[str, ...]) -> str | None:
    place = tags.index("answer")
    for before in tags[:place]:
        text = text.rpartition(f"</{before}>")[2]
    for after in tags[place + 1 :]:
        text = text.partition(f"<{after}>")[0]
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    content, closing, _ = text.partition("<answer>")[2].partition("</answer>")
    return content.strip() if closing else None
