"""What an agent is asked and what it says: one JSON a step, its action, and which tokens are thought or action."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from numpy.random import Generator

from rftkit.gtr.rules import GAMES, Game, State, pick

MOST_CHARACTERS = 4000  # of a reply that is read; what is longer is no JSON
ACTION = re.compile(r'(?<!\\)"action"\s*:')  # unescaped, so it is a key: within a JSON string its quotes would be
WORD = re.compile(r"\d+|[a-z]+|[^\sa-z\d]")
SEEN = {"numberline": ("current number", "target number")}  # of the others: cards


def _rules(game: Game, aim: str) -> str:
    keys = ", ".join(f'"{key}"' for key in keys_of(game))
    return f"{aim} Answer in JSON with {keys}. The action is one of {' '.join(game.actions)}."


def keys_of(game: Game) -> tuple[str, ...]:
    """The keys of a reply, in their order."""
    seen = () if game.name == "blackjack" else SEEN.get(game.name, ("cards", "formula"))
    return (*seen, "thoughts", "action")


SPELL = "Spell a formula of all the cards, each used once, that equals {}; = ends it. J, Q and K count 10."
AIMS = {
    "numberline": "Bring the current number to the target number, one step at a time.",
    "ezpoints": SPELL.format(12),
    "points24": SPELL.format(24),
    "blackjack": "Come closer to 21 than the dealer, and not above it.",
}
RULES = {name: _rules(GAMES[name], aim) for name, aim in AIMS.items()}


def asked(state: State) -> str:
    """The text of a prompt: rules, legal actions and, where there is one, the formula so far."""
    rules = RULES[state.game.name]
    return f"{rules} The formula so far: {''.join(state.formula)}" if state.game.target else rules


def conversation(state: State) -> list[dict[str, Any]]:
    """The prompt of a state, in TRL's form; its picture goes with it."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked(state)}]}]


@dataclass(frozen=True)
class Reply:
    """The fields of a reply, as text.

    Args:
        seen: the cards; of NumberLine the current and the target number; of Blackjack nothing.
    """

    seen: tuple[str, ...]
    formula: str
    thoughts: str
    action: str


def written(game: Game, reply: Reply) -> str:
    """A reply as the JSON that stands for it."""
    if game.name == "numberline":
        fields: dict[str, Any] = dict(zip(SEEN[game.name], reply.seen, strict=True))
    elif game.name == "blackjack":
        fields = {}
    else:
        cards = [int(card) if card.isascii() and card.isdigit() else card for card in reply.seen]
        fields = {"cards": cards, "formula": reply.formula}
    return json.dumps(fields | {"thoughts": reply.thoughts, "action": reply.action}, ensure_ascii=False)


def read(game: Game, text: str) -> Reply | None:
    """A reply that is one JSON object with all its keys, or None."""
    fields = _object(text)
    if fields is None or not fields.keys() >= set(keys_of(game)):
        return None
    cards = fields["cards"] if "cards" in keys_of(game) else [fields[key] for key in SEEN.get(game.name, ())]
    single = [fields[key] for key in ("formula", "thoughts", "action") if key in keys_of(game)]
    if not isinstance(cards, list) or any(isinstance(part, list | dict) for part in (*cards, *single)):
        return None
    formula = _said(fields["formula"]) if game.target else ""
    return Reply(tuple(map(_said, cards)), formula, _said(fields["thoughts"]), _said(fields["action"]))


def _object(text: str) -> dict | None:
    if len(text) > MOST_CHARACTERS:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # too many digits or brackets are among them
        return None
    return found if isinstance(found, dict) else None


def _said(part: Any) -> str:
    """A JSON value as text that can be written in UTF-8: half a surrogate pair cannot."""
    return str(part).encode("utf-8", "replace").decode()


def named_action(game: Game, text: str) -> str | None:
    """The one legal action that a reply names; None if it names none, or several.

    Looked for in the field of a JSON object, else, as in the released code, behind the last `"action":` in the text. A
    number is read whole: 10 is no 1, and 11 is no action.
    """
    found = (_object(text) or {}).get("action")
    if not isinstance(found, str | int | float):
        text = text[-MOST_CHARACTERS:]
        *_, last = [None, *ACTION.finditer(text)]
        found = "" if last is None else text[last.end() :]
    words = set(WORD.findall(str(found).lower()))
    named = [action for action in game.actions if action in words]
    return named[0] if len(named) == 1 else None


def action_of(game: Game, text: str, rng: Generator) -> tuple[str, bool]:
    """The action of a reply and whether it named one; else any, all equally likely."""
    named = named_action(game, text)
    return (pick(rng, game.actions), False) if named is None else (named, True)


def thought_tokens(tokenizer, ids: list[int]) -> int:
    """How many of a reply's tokens stand before its action: the first that reaches into the last `"action":` is the
    action's. All of them where there is none."""

    def text(count: int) -> str:
        return tokenizer.decode(ids[:count], skip_special_tokens=True, clean_up_tokenization_spaces=False)

    *_, last = [None, *ACTION.finditer(text(len(ids)))]
    if last is None:
        return len(ids)
    low, high = 0, len(ids) - 1
    while low < high:  # the first token behind which the text is longer than what stands before the key
        middle = (low + high) // 2
        low, high = (low, middle) if len(text(middle + 1)) > last.start() else (middle + 1, high)
    return low
