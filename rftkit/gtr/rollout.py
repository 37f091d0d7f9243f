"""A rollout: replies of a batch of environments, their rewards, and what PPO makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.random import Generator

from rftkit.gtr.policy import Policy
from rftkit.gtr.replies import Reply, action_of, read
from rftkit.gtr.rules import State
from rftkit.gtr.settings import GTRSettings
from rftkit.gtr.thoughts import Verdict, judge
from rftkit.gtr.worlds import CardTable


@dataclass(frozen=True)
class Target:
    """What is to be cloned: a reply to a state, and how many of its tokens count."""

    state: State
    reply: list[int]
    count: int


@dataclass
class Step:
    """One step of one environment.

    Args:
        reply: token ids; the first `thought` of them stand before the action.
        parsed: its fields, if it is valid JSON.
        legal: whether it named an action; else `action` is a random one.
        verdict: what is true of it by the environment's state; nothing of what cannot be read.
        log_prob: lambda-weighted log-probability when it was sampled; `value` of the state then.
        target_return: of the value head, the format reward in it; `advantage` is normalised over the rollout.
    """

    state: State
    reply: list[int]
    thought: int
    text: str
    parsed: Reply | None
    action: str
    legal: bool
    verdict: Verdict
    reward: float = 0.0
    done: bool = False
    log_prob: float = 0.0
    value: float = 0.0
    target_return: float = 0.0
    advantage: float = 0.0


@dataclass
class Rollout:
    steps: list[Step] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)  # of the episodes that ended in it
    tokens: int = 0


def act(policy: Policy, states: Sequence[State], settings: GTRSettings, rng: Generator) -> list[Step]:
    """A reply to each state, read."""
    options = {"most": settings.max_tokens, "penalty": settings.repetition_penalty}
    return [
        heard(policy, state, reply, rng)
        for state, reply in zip(states, policy.sample(states, settings.temperature, **options), strict=True)
    ]


def heard(policy: Policy, state: State, reply: list[int], rng: Generator) -> Step:
    """A reply as a step that has not been taken yet."""
    text = policy.text(reply)
    parsed = read(state.game, text)
    action, legal = action_of(state.game, text, rng)
    verdict = judge(state, parsed) if parsed else Verdict(False, False)
    return Step(state, reply, policy.thought_tokens(reply), text, parsed, action, legal, verdict)


def roll_out(policy: Policy, table: CardTable, totals: list[float], settings: GTRSettings, rng: Generator) -> Rollout:
    """`settings.rollout` steps of all environments of a table, with advantages.

    Args:
        totals: rewards of each environment's episode so far; carried on from rollout to rollout.
    """
    columns, found = [], Rollout()
    for _ in range(settings.rollout // settings.envs):
        column = act(policy, table.states, settings, rng)
        rewards, terminated, truncated = table.play([step.action for step in column])
        for place, step in enumerate(column):
            step.reward, step.done = float(rewards[place]), bool(terminated[place] or truncated[place])
            totals[place] += step.reward
            if step.done:
                found.returns.append(totals[place])
                totals[place] = 0.0
        columns.append(column)
    found.steps = [step for column in columns for step in column]
    found.tokens = sum(len(step.reply) for step in found.steps)
    score_steps(policy, found.steps, settings)
    following = values_of(policy, table.states)
    rewards, values, done = (
        np.array([[getattr(step, name) for step in column] for column in columns])
        for name in ("reward", "value", "done")
    )
    gains = advantages(rewards, values, done, following, settings.gamma, settings.gae).ravel()
    for step, gain in zip(found.steps, gains, strict=True):
        step.target_return = gain + step.value + settings.format_reward * (step.parsed is not None)
    raw = np.array([step.target_return - step.value for step in found.steps])
    for step, advantage in zip(found.steps, (raw - raw.mean()) / (raw.std() + 1e-8), strict=True):
        step.advantage = float(advantage)
    return found


def advantages(
    rewards: np.ndarray, values: np.ndarray, done: np.ndarray, following: np.ndarray, gamma: float, gae: float
) -> np.ndarray:
    """Generalised advantage estimation (arXiv 1506.02438).

    Args:
        rewards, values, done: [T, N] of T steps of N environments.
        following: [N], values of the states after the last step. Nothing follows on a step that is done, an episode cut
            off by its horizon included (as in the released code).

    Returns:
        [T, N], without the format reward, which the paper adds afterwards so that it is not propagated.
    """
    found, later = np.zeros(rewards.shape), np.zeros(rewards.shape[1])
    for t in reversed(range(len(rewards))):
        alive = 1.0 - done[t]
        later = rewards[t] + gamma * following * alive - values[t] + gamma * gae * alive * later
        found[t], following = later, values[t]
    return found


def like_lengths(said: Sequence[Step] | Sequence[Target], size: int) -> Iterator[list]:
    """Parts of at most `size`, the shortest first: there is least padding in them."""
    ordered = sorted(said, key=lambda one: len(one.reply) + len(one.state.formula))
    return (ordered[start : start + size] for start in range(0, len(ordered), size))


@torch.no_grad()
def score_steps(policy: Policy, steps: Sequence[Step], settings: GTRSettings) -> None:
    """Set `log_prob` and `value` of steps, by the weights as they are: what the update compares with."""
    for part in like_lengths(steps, settings.micro_batch):
        log_probs, values = policy.score([s.state for s in part], [s.reply for s in part], settings.temperature)
        of_steps = step_log_probs(log_probs, [s.thought for s in part], settings.thought_weight)
        for step, log_prob, value in zip(part, of_steps.tolist(), values.tolist(), strict=True):
            step.log_prob, step.value = log_prob, value


@torch.no_grad()
def values_of(policy: Policy, states: Sequence[State]) -> np.ndarray:
    return policy.score(states, [[] for _ in states]).values.cpu().numpy()


def step_log_probs(log_probs: torch.Tensor, thoughts: Sequence[int], weight: float) -> torch.Tensor:
    """log pi(a) = lambda * sum of log p(thought tokens) + sum of log p(action tokens) [N] (RL4VLM, section 4).

    Args:
        log_probs: [N, T] of the tokens, 0 beyond a reply's end.
        thoughts: how many of a reply's tokens are thought.
    """
    index = torch.arange(log_probs.shape[1], device=log_probs.device)
    is_thought = index < torch.tensor(thoughts, device=log_probs.device)[:, None]
    return (log_probs * torch.where(is_thought, weight, 1.0)).sum(1)
