"""Is the thinking collapsing? Measures of replies, on a fixed set of states and in play.

What informs: shares of true facts and right thoughts, and how much likelier a thought is in its own state than in
another. In play they mix what is thought with where play goes, so each is taken on fixed states too. Self-BLEU and the
share of distinct thoughts stand beside them to show why they mislead: they count states and mistakes, not collapse.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rftkit.gtr.policy import Policy
from rftkit.gtr.rollout import Step, act
from rftkit.gtr.rules import State, game_named
from rftkit.gtr.settings import GTRSettings
from rftkit.gtr.states import some_state

WORD = re.compile(r"\d+|[a-zA-Z]+|[^\s\w]")
COMPARED = 60  # thoughts that self-BLEU is taken of, and pairs of states of the gap


def fixed_states(settings: GTRSettings) -> list[State]:
    """The states that the thoughts of all arms are measured on; for Points24 of the multisets trained on."""
    rng = np.random.default_rng(7)
    return [some_state(game_named(settings.dataset), rng, "train") for _ in range(settings.fixed_states)]


def on_fixed_states(
    policy: Policy, states: Sequence[State], settings: GTRSettings
) -> tuple[dict[str, float], list[dict]]:
    """`measures` of replies to fixed states, and a row for each; the caller's random numbers are left as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        steps = act(policy, states, settings, np.random.default_rng(7))
        return measures(policy, steps), [{"id": number} | told(step) for number, step in enumerate(steps)]


def told(step: Step) -> dict[str, Any]:
    """A step as a row of a table: the state, what was said of it, and what is true of that."""
    return {
        "cards": " ".join(map(str, step.state.cards)), "formula": "".join(step.state.formula),
        "hopeless": step.state.is_hopeless, "text": step.text, "action": step.action,
        "json": step.parsed is not None, "legal": step.legal, "facts": step.verdict.facts,
        "thought": step.verdict.thought,
    }  # fmt: skip


def measures(policy: Policy, steps: Sequence[Step]) -> dict[str, float]:
    """Shares (0-1) over all replies: valid `json`, `legal` action, true `facts`, right `thought`, and `plan`, which is
    `thought` where the game can still be won. Mean `tokens`. Over the readable ones `distinct`, `self_bleu` and `gap`.
    """
    alive = [step.verdict.thought for step in steps if not step.state.is_hopeless]
    found = {
        "json": np.mean([step.parsed is not None for step in steps]),
        "legal": np.mean([step.legal for step in steps]),
        "facts": np.mean([step.verdict.facts for step in steps]),
        "thought": np.mean([step.verdict.thought for step in steps]),
        "plan": np.mean(alive) if alive else math.nan,
        "tokens": np.mean([len(step.reply) for step in steps]),
    }
    spoken = [step for step in steps if step.parsed]
    if len(spoken) > 1:
        thoughts = [step.parsed.thoughts for step in spoken]
        some = [spoken[row] for row in np.random.default_rng(0).permutation(len(spoken))[:COMPARED]]
        found["distinct"] = len(set(thoughts)) / len(thoughts)
        found["self_bleu"] = self_bleu([step.parsed.thoughts for step in some])
        found["gap"] = state_gap(policy, some)
    return {name: float(value) for name, value in found.items()}


@torch.no_grad()
def state_gap(policy: Policy, steps: Sequence[Step]) -> float:
    """How much likelier a thought's token is in its own state than in another's, nats; 0: the state is not looked at.

    Each step has the next one's state as the other; pairs of equal states are left out. The thought includes the fields
    that say what is seen.
    """
    others = [*steps[1:], steps[0]]
    pairs = [(step, other.state) for step, other in zip(steps, others, strict=True) if _key(step) != _key(other)]
    pairs = [(step, other) for step, other in pairs if step.thought]
    if not pairs:
        return math.nan
    replies = [step.reply[: step.thought] for step, _ in pairs]
    own = policy.score([step.state for step, _ in pairs], replies).log_probs
    other = policy.score([state for _, state in pairs], replies).log_probs
    return float((own - other).sum() / sum(map(len, replies)))


def _key(step: Step) -> tuple:
    return step.state.cards, step.state.formula


def self_bleu(texts: Sequence[str]) -> float:
    """The mean BLEU-2 of each text against all others, smoothed as by the released code's `metric.py` (0-1)."""
    words = [WORD.findall(text) for text in texts]
    return float(np.mean([bleu2(own, words[:row] + words[row + 1 :]) for row, own in enumerate(words)]))


def bleu2(text: list[str], references: Sequence[list[str]]) -> float:
    """BLEU of one- and two-grams (Papineni et al., 2002); no match counts as a tenth of one (NLTK's smoothing 1)."""
    logs = 0.0
    for n in (1, 2):
        grams = _grams(text, n)
        if not grams:
            return 0.0
        most: Counter = Counter()
        for reference in references:
            most |= _grams(reference, n)
        logs += 0.5 * math.log(max(sum((grams & most).values()), 0.1) / sum(grams.values()))
    nearest = min((len(reference) for reference in references), key=lambda size: (abs(size - len(text)), size))
    return math.exp(logs + min(0.0, 1 - nearest / len(text)))


def _grams(words: list[str], n: int) -> Counter:
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))
