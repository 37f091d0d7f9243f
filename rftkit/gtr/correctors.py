"""Who corrects thoughts. All answer the same question: what should have been said in place of a reply, if anything?

The paper asks GPT-4o with a solver as its tool. `Exact` knows the state and every solution: it is never wrong, so it is
stronger than the paper's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from numpy.random import Generator
from PIL import Image

from rftkit.common.chat_server import ChatServer, picture_block
from rftkit.gtr.policy import Policy, completions, encoded
from rftkit.gtr.replies import MOST_CHARACTERS, Reply, read, written
from rftkit.gtr.rollout import Step, Target
from rftkit.gtr.rules import State, play
from rftkit.gtr.thoughts import correct
from rftkit.gtr.worlds import picture

SHOWN_SOLUTIONS = 5
OBJECT = re.compile(r"\{.*\}", re.DOTALL)  # what stands around it, as a fence of Markdown, is passed over
ASKED_TEMPERATURE, ASKED_TOKENS = 0.4, 400  # of the paper's corrector


class Corrector(Protocol):
    """What the trainer needs of one. `counts` are logged with each update."""

    counts: dict[str, float]

    def correct(self, steps: Sequence[Step], policy: Policy, rng: Generator) -> list[Reply | None]:
        """What should have been said in each step; None where nothing is to be cloned. Steps have valid JSON."""

    def observe(self, policy: Policy) -> None:
        """Called after each update."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""

    def restore(self, state: dict[str, Any]) -> None: ...


class Exact:
    """By the environment's state and the solver."""

    def __init__(self) -> None:
        self.counts: dict[str, float] = {"asked": 0, "corrected": 0}

    def correct(self, steps: Sequence[Step], policy: Policy, rng: Generator) -> list[Reply | None]:
        found = [None if all(step.verdict) else correct(step.state, rng) for step in steps]
        self.counts["asked"] += len(steps)
        self.counts["corrected"] += sum(reply is not None for reply in found)
        return found

    def observe(self, policy: Policy) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return dict(self.counts)

    def restore(self, state: dict[str, Any]) -> None:
        self.counts = dict(state)


class Past:
    """The policy's own past: what the mean of its weights after each update so far says, near its likeliest.

    GTR-Turbo (arXiv 2512.13043) merges checkpoints with TIES; here it is their plain mean, of LoRA factor by factor.
    """

    def __init__(self, policy: Policy, temperature: float, most: int) -> None:
        self.temperature, self.most = temperature, most
        self.counts: dict[str, float] = {"asked": 0, "corrected": 0, "merged": 1}
        self.mean = {name: weight.detach().clone() for name, weight in self._weights(policy)}

    @staticmethod
    def _weights(policy: Policy) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, weight) for name, weight in policy.model.named_parameters() if weight.requires_grad]

    def correct(self, steps: Sequence[Step], policy: Policy, rng: Generator) -> list[Reply | None]:
        now = {name: weight.data for name, weight in self._weights(policy)}
        try:
            for name, weight in self._weights(policy):
                weight.data = self.mean[name]
            replies = policy.sample([step.state for step in steps], self.temperature, self.most)
        finally:
            for name, weight in self._weights(policy):
                weight.data = now[name]
        found = []
        for step, reply in zip(steps, replies, strict=True):
            said = read(step.state.game, policy.text(reply))
            same = said and (said.seen, said.formula, said.thoughts) == _thought(step.parsed)
            found.append(None if same else said)
        self.counts["asked"] += len(steps)
        self.counts["corrected"] += sum(reply is not None for reply in found)
        return found

    def observe(self, policy: Policy) -> None:
        self.counts["merged"] += 1
        for name, weight in self._weights(policy):
            self.mean[name] += (weight.detach() - self.mean[name]) / self.counts["merged"]

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "counts": dict(self.counts)}

    def restore(self, state: dict[str, Any]) -> None:
        self.mean, self.counts = state["mean"], dict(state["counts"])


def _thought(reply: Reply) -> tuple:
    return reply.seen, reply.formula, reply.thoughts


Ask = Callable[[list[tuple[str, Image.Image]]], list[str | None]]  # questions with their pictures; None: no answer


class Asked:
    """A model that is shown the picture and the thought, and says whether it is right and what would be.

    An answer that cannot be read is nothing to clone, and counted as `nonsense`; no answer at all as `failed`.

    Args:
        ask: what answers; its own counts, of calls and cost, are in `counts` too.
        side: of the pictures, pixels.
    """

    def __init__(self, ask: Ask, side: int, own_counts: Callable[[], dict[str, float]] = dict) -> None:
        self.ask, self.side, self.own_counts = ask, side, own_counts
        self._counts: dict[str, float] = {"asked": 0, "corrected": 0, "nonsense": 0, "failed": 0}

    @property
    def counts(self) -> dict[str, float]:
        return self._counts | {f"server_{name}": count for name, count in self.own_counts().items()}

    def correct(self, steps: Sequence[Step], policy: Policy, rng: Generator) -> list[Reply | None]:
        questions = [(question(step.state, step.parsed), picture(step.state, self.side)) for step in steps]
        found = []
        for step, answer in zip(steps, self.ask(questions), strict=True):
            right, reply = (None, None) if answer is None else verdict_of(step.state, answer)
            self._counts["asked"] += 1
            self._counts["failed"] += answer is None
            self._counts["nonsense"] += answer is not None and right is None
            self._counts["corrected"] += reply is not None
            found.append(reply)
        return found

    def observe(self, policy: Policy) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return dict(self._counts)

    def restore(self, state: dict[str, Any]) -> None:
        self._counts = dict(state)


def question(state: State, reply: Reply) -> str:
    """What a corrector is asked: the thought without its action, what the solver knows, the form of the answer."""
    game = state.game
    thought = json.loads(written(game, reply))
    thought.pop("action")
    keys = ", ".join(f'"{key}"' for key in thought)
    lines = [f"An agent that sees the picture plays {game.title} and thinks: {json.dumps(thought)}"]
    if game.target:
        plans = ["".join(plan) for plan in state.plans()[:SHOWN_SOLUTIONS]]
        known = ", ".join(plans) if plans else "there are none"
        lines += [f"The formula so far: '{''.join(state.formula)}'. Solutions that go on from it: {known}."]
    lines += [
        "What is on the picture, and does the thought agree with it? Is its plan right?",
        'Answer in JSON: "evaluation": YES if both are so, else NO; and for NO "correction": an object with the fields '
        f"{keys} as they should be, the thought in the agent's words.",
    ]
    return "\n".join(lines)


def verdict_of(state: State, answer: str) -> tuple[bool | None, Reply | None]:
    """Whether a corrector's answer says YES, and what it corrects; (None, None) of nonsense."""
    found = OBJECT.search(answer[:MOST_CHARACTERS])
    try:
        fields = json.loads(found[0]) if found else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return None, None
    said = str(fields.get("evaluation")).strip().upper()
    if said == "YES":
        return True, None
    correction = fields.get("correction")
    if said != "NO" or not isinstance(correction, dict):
        return None, None
    text = json.dumps(correction | {"action": ""}).replace("<|", "< |")  # no special token by the back door
    reply = read(state.game, text)
    return (None, None) if reply is None else (False, reply)


def targets_of(
    steps: Sequence[Step], corrector: Corrector, policy: Policy, clone_action: bool, rng: Generator
) -> list[Target | None]:
    """What is to be cloned from each step: the corrected fields with the agent's own action, which does not count."""
    readable = [place for place, step in enumerate(steps) if step.parsed]
    targets: list[Target | None] = [None] * len(steps)
    replies = corrector.correct([steps[place] for place in readable], policy, rng)
    for place, reply in zip(readable, replies, strict=True):
        if reply is not None:
            step = steps[place]
            targets[place] = target(policy, step.state, reply if clone_action else replace(reply, action=step.action),
                                    clone_action)  # fmt: skip
    return targets


def target(policy: Policy, state: State, reply: Reply, clone_action: bool) -> Target:
    tokens = policy.tokens(written(state.game, reply))
    return Target(state, tokens, len(tokens) if clone_action else policy.thought_tokens(tokens))


def along_plans(steps: Sequence[Step], policy: Policy, clone_action: bool, rng: Generator) -> list[Target]:
    """Targets along the whole plan of each deal that begins in these steps and can be won: not in the paper.

    With early stop most episodes end after a step or two, and nothing is cloned from the later states of a plan.
    """
    found = []
    for state in (step.state for step in steps if step.state.turn == 0 and step.state.game.target):
        while not state.is_hopeless:
            reply = correct(state, rng)
            found.append(target(policy, state, reply, clone_action))
            if reply.action == "=":
                break
            state = play(state, reply.action, rng).state
    return found


def server(client: ChatServer) -> Ask:
    """A server's model as what answers; the picture goes with the question."""

    def ask(questions: list[tuple[str, Image.Image]]) -> list[str | None]:
        blocks = ([picture_block(image), {"type": "text", "text": text}] for text, image in questions)
        messages = [[{"role": "user", "content": content}] for content in blocks]
        return client.ask_all(messages, temperature=ASKED_TEMPERATURE, max_tokens=ASKED_TOKENS)

    return ask


def local_model(model, processor, batch: int = 8) -> Ask:
    """A model of this machine as what answers."""

    def ask(questions: list[tuple[str, Image.Image]]) -> list[str | None]:
        answers: list[str | None] = []
        for start in range(0, len(questions), batch):
            texts, pictures = zip(*questions[start : start + batch], strict=True)
            asked = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": t}]}] for t in texts]
            vision = encoded(model, processor, asked, pictures)
            replies = completions(model, processor, vision, ASKED_TEMPERATURE, ASKED_TOKENS)
            answers += processor.tokenizer.batch_decode(replies, skip_special_tokens=True)
        return answers

    return ask
