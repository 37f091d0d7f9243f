"""Runs that somebody played with, and runs that a class pools: what counts, what stands apart, what is set aside."""

import shutil

import pytest
from test_report import make_run, some_run

from rftkit.analysis.claims import decide
from rftkit.analysis.comparisons import set_rows
from rftkit.report.pages import write_report
from rftkit.runs.archive import write_archive
from rftkit.runs.changed import as_set
from rftkit.runs.collect import all_runs, load_runs, sort_out
from rftkit.runs.folder import write_config
from rftkit.settings import load_settings


def made(folder, method, seed, profile="nano", right=1, **given):
    """A run folder as a run of that profile leaves it; half of its base items are right."""
    settings = load_settings(profile, method, seed=seed, model="nano-s", **given)
    own = {name: value for name, value in vars(settings).items() if name not in ("method", "seed", "model")}
    mode = "thinking" if method == "cls_rl" else "no_thinking"
    make_run(folder, method, seed, mode, [right, 0] * 2, [right] * 4, **own)
    write_config(folder, settings)
    return folder


@pytest.mark.parametrize(
    ("method", "given", "words"),
    [
        ("cls_rl", {}, ""),
        ("cls_rl", {"steps": 10}, "10 steps"),
        ("cls_rl", {"learning_rate": 0.01, "steps": 10}, "10 steps, learning rate 0.01"),
        ("cls_rl", {"num_generations": 4, "quantize": True}, "num generations 4, quantize True"),
        ("cls_rl", {"micro_batch": 8, "eval_every": 5, "device": "cpu"}, ""),  # how the machine was used
        ("zero_shot", {"steps": 10}, ""),  # it makes none
        ("zero_shot", {"test_items": 50}, "test items 50"),
        ("sft", {"control": "dpo"}, ""),
        ("cls_rl", {"profile": "gpu-2b", "steps": 10}, "10 steps"),
        ("cls_rl", {"profile": "gpu-2b"}, ""),
    ],
)
def test_what_was_changed_is_told_from_the_profile(tmp_path, method, given, words):
    (run,) = all_runs(load_runs(made(tmp_path / "run", method, 0, **given)))
    assert run.changed == words
    assert run.label == ", ".join(filter(None, (method + ("+dpo" if "control" in given else ""), words)))


def test_what_cannot_be_told_is_not_guessed(tmp_path):
    assert as_set(some_run(profile="of-my-own", folder=tmp_path)).changed is None
    assert as_set(some_run(kind_sha256="no config.yaml beside it", folder=tmp_path)).changed is None
    assert as_set(some_run(changed="10 steps")).changed == "10 steps"  # as an archive has it


def test_play_does_not_become_the_study(tmp_path):
    for seed in range(3):
        made(tmp_path / f"rl-{seed}", "cls_rl", seed)
        made(tmp_path / f"sft-{seed}", "sft_all", seed, right=0)
    before = decide(*load_runs(tmp_path).values())
    for seed in range(9):  # more of them than of the others, and newer
        made(tmp_path / f"play-{seed}", "sft_all", seed, steps=10)
    (methods,) = load_runs(tmp_path).values()
    assert [(label, len(runs)) for label, runs in methods.items()] == [
        ("cls_rl", 3), ("sft_all", 3), ("sft_all, 10 steps", 9),
    ]  # fmt: skip
    assert decide(methods) == before and [row.claim for row in before] == ["thinking RL beats SFT on all tokens"]
    text, path = write_report(tmp_path)
    assert "| SFT, loss on all tokens, 10 steps | 9 |" in text and "Not counted" not in text
    assert '"nano/shapes/nano-s/sft_all, 10 steps/strict/base"' in path.with_suffix(".json").read_text()


def test_play_is_told_in_an_archive_too(tmp_path):
    made(tmp_path / "runs" / "usual", "cls_rl", 0)
    made(tmp_path / "runs" / "play", "cls_rl", 0, steps=10)
    sections = load_runs(tmp_path / "runs")
    write_archive(all_runs(sections), tmp_path / "archive")
    ((usual, play),) = [list(methods) for methods in load_runs(tmp_path / "archive").values()]
    assert (usual, play) == ("cls_rl", "cls_rl, 10 steps")


def test_smoke_runs_decide_nothing(tmp_path):
    for profile, found in (("smoke", 0), ("nano", 1)):
        for seed in range(3):
            for method in ("cls_rl", "no_thinking_rl"):
                made(tmp_path / profile / f"{method}-{seed}", method, seed, profile, method == "cls_rl")
        sections = load_runs(tmp_path / profile)
        assert len(decide(*sections.values())) == len(set_rows(sections)) == found


def test_a_class_can_report_twice(tmp_path):
    for seed, student in enumerate(("ada", "bob")):
        made(tmp_path / "class" / student / "run", "cls_rl", seed)
    first, path = write_report(sorted((tmp_path / "class").glob("*")))
    assert path == tmp_path / "class" / "report" / "report.md"
    again, _ = write_report(sorted((tmp_path / "class").glob("*")))
    assert first == again and "Not counted" not in again


def test_two_people_with_one_seed_are_named(tmp_path):
    for student in ("ada", "bob"):
        made(tmp_path / "runs" / student, "cls_rl", 7)
        made(tmp_path / "runs" / f"{student}-sft", "sft", 7)
        write_archive(all_runs(load_runs(tmp_path / "runs")), tmp_path / "class" / student)
        shutil.rmtree(tmp_path / "runs")
    ada, bob = tmp_path / "class" / "ada", tmp_path / "class" / "bob"
    assert [(one.run.source, one.instead.source) for one in sort_out(ada, bob)[1]] == [(bob, ada)] * 2
    text, _ = write_report([ada, bob])
    line = f"- seed 7 from nano-s: `{ada}` counts, not `{bob}` (CLS-RL (thinking), SFT, loss on the answer)"
    assert "Not counted (runs: 2)." in text and f"\n{line}\n" in text


def test_a_report_says_which_claims_lack_runs(tmp_path):
    for seed in range(3):
        made(tmp_path / f"rl-{seed}", "cls_rl", seed)
        made(tmp_path / f"no-{seed}", "no_thinking_rl", seed + 1)
    text, _ = write_report(tmp_path)
    (line,) = [line for line in text.splitlines() if line.startswith("Not decided")]
    assert "thinking RL learns (no runs of Zero-shot)" in line
    assert "thinking RL beats SFT on all tokens (no runs of SFT, loss on all tokens)" in line
    assert "no-thinking RL beats thinking RL" not in line  # two seeds are both's, and it is decided
