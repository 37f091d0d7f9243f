"""An example, and what every set of examples offers, wherever it comes from."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from rftkit.common.errors import UserError

ImageRef = Image.Image | Path | bytes  # a drawn image, or a file or its content, opened when it is needed

# Each task and the rule (`rftkit.rewards`) that trains and scores it.
TASK_RULES = {"classification": "strict", "math": "math", "puzzle": "choice_letter", "spatial": "choice_letter"}
PLACE = "<image>"  # in a question: here stands a picture
# Of classification: train on base classes and test both halves; the same with the halves swapped; all classes at once;
# all classes at once without choice lists.
PROTOCOLS = ("base_to_new", "new_to_base", "few_shot", "open_set")


@dataclass(frozen=True)
class Example:
    """One item. Only `images`, `question` and `choices` ever reach the model.

    The last pictures stand where the question has `PLACE`; those without a place stand before it.
    """

    id: str
    images: tuple[ImageRef, ...]
    question: str
    answer: str
    choices: tuple[str, ...] | None = None
    task: str = "classification"
    dataset: str = ""
    split: str = ""
    group: str = ""  # what intervals are clustered by, such as the drawing an image was made from
    steps: tuple[str, ...] = ()  # true statements that lead to the answer, where they are known
    unit: str = ""  # that the answer is asked in, such as cm
    precision: int | None = None  # decimals that the answer is rounded to


class ExampleSet(ABC):
    """A set of examples. Each kind of source is a subclass; `rftkit.tasks.registry.open_set` makes one from a name."""

    name: str  # without the place that it is read from, which may change
    spec: str  # the name that opens it again, from any folder
    task: str = "classification"
    bundled = False  # made by the kit: the same arguments always give the same examples
    usual_items: int | None = None  # test items a part if nobody says how many; None: all
    usual_protocol = "base_to_new"  # if nobody says which
    published = False  # others use it too: what is wrong with it is not the user's to fix
    passed_over = ""  # what of its folder is not read, in words; `lacks_pictures`: and that there are pictures among it
    lacks_pictures = False
    # What is there to train on, to choose steps with and to test on, and what its source calls these.
    splits: dict[str, str] = {"shots": "train", "val": "val", "test": "test"}

    def as_task(self, task: str | None) -> ExampleSet:
        """The set as one of a task, where its source leaves the task open; else as it is."""
        return self

    @property
    def rule(self) -> str:
        """The scoring rule of its task."""
        return TASK_RULES[self.task]

    def parts(self, protocol: str) -> tuple[str, ...]:
        """The parts that a protocol tests on."""
        return ("test",)

    def trained_parts(self, protocol: str) -> tuple[str, ...]:
        """The parts that validation looks at: both halves in base-to-new, else one part for all that is trained on."""
        return ("all",)

    @abstractmethod
    def examples(
        self, split: str, part: str, count: int | None, seed: int = 0, protocol: str = "base_to_new"
    ) -> list[Example]:
        """Up to `count` examples of a part (None: all, where a set is not drawn).

        Args:
            split: `shots` (training), `val` (held out for choosing steps and learning rate) or `test`.
        """

    def size(self, part: str, protocol: str) -> int:
        """How many test items of a part there are, where a set is not drawn."""
        return len(self.examples("test", part, None, protocol=protocol))

    def rows(self, split: str) -> Iterable[Example | UserError]:
        """All there is of a split (1,000 examples where it is drawn), and what is wrong with what is no example."""
        return self.examples(split, "all", 1000 if self.bundled else None)

    def training(self, protocol: str, shots: int, items: int, seed: int) -> list[Example]:
        """What a run is trained on: `shots` pictures of each class, or `items` examples of another task."""
        return self.examples("shots", "all", items, seed, protocol)


def tell_what_is_asked(
    data: ExampleSet, asked: dict[str, list[Example]], cap: int | None, protocol: str
) -> dict[str, int]:
    """How many test items there are of each part, where a set is not drawn; a line on stderr if not all are asked, and
    one if files of the set are passed over."""
    if data.bundled:
        return {}
    whole = {part: data.size(part, protocol) if len(items) == cap else len(items) for part, items in asked.items()}
    if capped := [f"{len(asked[part])} of {n:,} ({part})" for part, n in whole.items() if n > len(asked[part])]:
        print(f"{data.name}: a plain sample of the test items is asked: {', '.join(capped)}", file=sys.stderr)
    if data.passed_over:
        print(f"{data.name}: {data.passed_over}", file=sys.stderr)
    return whole


def as_asked(examples: list[Example], protocol: str) -> list[Example]:
    """The examples as a protocol asks them: in `open_set` without a choice list."""
    return [replace(example, choices=None) for example in examples] if protocol == "open_set" else examples
