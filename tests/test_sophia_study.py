"""SOPHIA's study: its arms, what is read of its runs, the verdicts, an archive, and a report of its runs alone."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import yaml

from rftkit.analysis.arms import as_designed, verdict_rows
from rftkit.analysis.offpolicy import SOPHIA, answers, arm_rows
from rftkit.common.errors import UserError
from rftkit.common.paths import PROFILES
from rftkit.common.validation import read_mapping
from rftkit.models import load_processor
from rftkit.report.offpolicy import arms_table, flow_figure, hallucination_figure, verdicts_table
from rftkit.report.pages import write_report
from rftkit.runs.arms import TABLES, archive_arm_runs, arm_run, arm_runs
from rftkit.runs.folder import complete_runs
from rftkit.sophia import examine
from rftkit.sophia import settings as sophia
from rftkit.sophia.captions import items, true_caption
from rftkit.sophia.rule import Rule
from rftkit.sophia.run import execute
from rftkit.sophia.selection import SELECTIONS, select
from rftkit.sophia.settings import designed, load_settings, read_claims
from rftkit.sophia.stages import by_hand
from rftkit.study.chapters import Chapter, parts_of
from rftkit.study.workers import MAKERS
from rftkit.tasks.registry import DRAWN

SIZE = 40  # items a level, and pictures
LEVELS = ("level 1", "level 2", "level 3")
FACTS = {"asserted": 2, "steps": 1, "wrong_steps": 0, "right_numbers": True, "false": 0, "abstains": False}


def made(out, arm, seed, right, whole=0.8, invented=0.2, profile="nano", **changes):
    """A run folder in which shares of answers are right, of captions whole, and of thoughts invented."""
    settings = replace(load_settings(profile, arm=arm, seed=seed), **changes)
    folder = out / profile / f"math-{arm}-s{seed}-{len(changes)}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(asdict(settings)))
    rng = np.random.default_rng([seed, int(100 * right)])
    thinks = settings.mode == "thinking"
    pd.DataFrame([
        {"split": level, "id": f"{level}-{n}", "group": str(n), "mode": settings.mode, "completion": "so",
         "answer": "1", "math": float(rng.random() < right), "tokens": 3}
        | FACTS | {"asserted": 2 * thinks, "invented": int(thinks and rng.random() < invented)}
        for level in LEVELS for n in range(SIZE)
    ]).to_parquet(folder / "predictions.parquet")  # fmt: skip
    pd.DataFrame([
        {"when": when, "id": str(n), "group": str(n), "caption": "1 red", "whole": rng.random() < share, "said": 2,
         "invented": 0, "suffices": True}
        for when, share in (("before", 0.8), ("after", whole)) for n in range(SIZE)
    ]).to_parquet(folder / "seen.parquet")  # fmt: skip
    found = {"scoring": "math", "seconds": 60.0, "blank": {"n": 9, "abstains": 0.5, "right": 0.25}}
    found |= {} if settings.instead else {"rows": 400, "flow": {"kept_whole": 0.75}}
    found["eval"] = {level: {"accuracy": right} for level in LEVELS}
    (folder / "sophia.json").write_text(json.dumps(found))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Four seeds: SOPHIA learns and beats GRPO, the caption reward changes nothing, captions get worse."""
    for seed in range(4):
        made(tmp_path, "zero_shot", seed, 0.1, invented=0.0)
        made(tmp_path, "cls_rl", seed, 0.11)
        made(tmp_path, "sophia", seed, 0.6, whole=0.2)
        made(tmp_path, "outcome", seed, 0.6, whole=0.2)
        made(tmp_path, "other_captions", seed, 0.3, invented=0.9)
        made(tmp_path, "sft", seed, 0.05)
    return tmp_path


def test_verdicts_are_those_of_the_rule(runs):
    rows = {row.claim: row for row in verdict_rows(as_designed(arm_runs("sophia", [runs]), SOPHIA), SOPHIA)}
    assert {claim: row.verdict for claim, row in rows.items()} == {
        "SOPHIA learns": "same direction",
        "SOPHIA beats GRPO": "same direction",
        "the caption reward helps": "undecided",
        "own captions beat another model's": "same direction",
        "own captions invent less than another model's": "same direction",
        "SOPHIA leaves captions whole": "opposite",
    }
    learns = rows["SOPHIA learns"]
    assert learns.place == "math" and len(learns.runs) == 4 and tuple(learns.beside) == LEVELS
    assert 0.35 < learns.difference[0] < 0.65
    assert len(verdicts_table(list(rows.values()))) == 6


def test_the_control_stands_apart(runs):
    for seed in range(3):
        made(runs, "zero_shot", seed, 0.6, profile="nano/thinks")
        made(runs, "sophia", seed, 0.2, profile="nano/thinks")
    rows = verdict_rows(as_designed(arm_runs("sophia", [runs]), SOPHIA), SOPHIA)
    learns = {row.profile: row.verdict for row in rows if row.claim == "SOPHIA learns"}
    assert learns == {"nano": "same direction", "nano/thinks": "opposite"}


def test_answers_are_paired_by_item_and_by_picture(runs):
    (run,) = [run for run in arm_runs("sophia", [runs]) if run.place[2] == "sophia" and run.settings["seed"] == 0]
    right, invented, whole = (answers([run], name) for name in ("accuracy", "with_invented", "captions whole"))
    assert len(right) == len(invented) == 3 * SIZE and len(whole) == SIZE
    before = answers([run], "captions whole", before=True)
    assert before["correct"].mean() > 0.5 > whole["correct"].mean()
    unseen = replace(run, tables={"predictions": run.tables["predictions"].drop(columns=["asserted", "invented"]),
                                  "seen": pd.DataFrame()})  # fmt: skip
    assert answers([unseen], "captions whole").empty and answers([unseen], "with_invented").empty
    assert arm_rows([unseen])[0].whole == {} and arm_rows([unseen])[0].with_invented is None


def test_tables_and_figures_have_all_arms(runs):
    rows = arm_rows(as_designed(arm_runs("sophia", [runs]), SOPHIA))
    table = arms_table(rows).set_index("arm")
    assert list(table.index) == ["start model", "SFT on answers", "GRPO", "SOPHIA", "no caption reward",
                                 "another model's captions"]  # fmt: skip
    assert table.loc["SFT on answers", ["invented, %", "kept", "of whole captions, %"]].tolist() == ["", "", ""]
    assert table.loc["SOPHIA", "of whole captions, %"] == "75.0"
    assert table.loc["SOPHIA", "kept"] == "400" and table.loc["SOPHIA", "seeds"] == "4 on 2 bases"
    assert table.loc["SOPHIA", "parts right, %"].count("/") == 2
    (run,) = arm_runs("sophia", [runs])[:1]
    puzzle = replace(run, tables=run.tables | {"predictions": run.tables["predictions"].assign(right_numbers=None)})
    assert arms_table(arm_rows([puzzle]))["right numbers, %"].tolist() == [""]
    left, right = hallucination_figure(rows).axes
    assert len(left.get_yticks()) == 6 and len(right.containers) == 5


def test_an_archive_decides_as_the_folders_do(runs, tmp_path):
    found, out = as_designed(arm_runs("sophia", [runs]), SOPHIA), tmp_path / "archive"
    archive_arm_runs("sophia", found, out)
    again = arm_runs("sophia", [out])
    assert [asdict(row) for row in verdict_rows(again, SOPHIA)] == [asdict(r) for r in verdict_rows(found, SOPHIA)]
    assert arms_table(arm_rows(again)).equals(arms_table(arm_rows(found)))
    assert "completion" not in again[0].tables["predictions"] and "caption" not in again[0].tables["seen"]
    archive_arm_runs("sophia", again, out)  # once more, of itself


def test_a_report_of_these_runs_alone(runs, tmp_path):
    text, path = write_report(runs, tmp_path / "report", tmp_path / "kept")
    assert "## SOPHIA: reasoning learnt" in text and "| no caption reward |" in text and "## GTR" not in text
    assert len(json.loads((path.parent / "report-sophia.json").read_text())) == 6
    assert (path.parent / "report-sophia-accuracy-by-arm.png").is_file()
    assert len(arm_runs("sophia", [tmp_path / "kept"])) == 24


def test_a_truncated_run_is_named(tmp_path):
    folder = made(tmp_path, "sophia", 0, 0.5)
    (folder / "seen.parquet").unlink()
    with pytest.raises(UserError, match="is not what a run writes"):
        arm_run("sophia", folder)


def test_the_kits_methods_have_the_kits_steps_and_rates():
    usual = read_mapping(PROFILES / "nano.yaml", "profile")["methods"]
    for arm, method in (("sft", "sft"), ("cls_rl", "cls_rl"), ("raft", "cls_rl")):
        run = load_settings("nano", arm=arm, model="plain/nano-s").as_instead()
        assert (run.method, run.steps, run.learning_rate) == (method, *usual[method].values())
        assert (run.train_items, run.sft_batch, run.prompts_per_step, run.micro_batch) == (512, 16, 8, 64)
        assert run.negatives == (arm != "raft") and (run.control is None) == (arm != "raft")
    assert load_settings("nano", arm="grpo").grpo_steps == usual["cls_rl"]["steps"]
    assert load_settings("smoke", arm="cls_rl").steps == 2


def test_a_kits_run_is_read_as_sophias_is(tmp_path, monkeypatch):
    monkeypatch.setattr(examine, "BLANKS", 2)
    for arm in ("sft", "zero_shot"):
        folder = execute(load_settings("smoke", arm=arm), tmp_path)
        run = arm_run("sophia", folder)
        assert set(run.tables) == {name.partition(".")[0] for name in TABLES["sophia"]}
        assert run.results["mode"] == run.tables["predictions"]["mode"].unique()
        assert len(run.tables["seen"]) == 4 and set(run.tables["seen"]["when"]) == {"before", "after"}
        assert set(run.results["captions"]) == {"before", "after"} and len(run.tables["predictions"]) == 6
    assert complete_runs(tmp_path) == [] and len(list(tmp_path.rglob("results.json"))) == 1
    assert len(arms_table(arm_rows(as_designed(arm_runs("sophia", [tmp_path]), SOPHIA)))) == 2


def test_the_chapter_has_the_designs_runs(tmp_path):
    parts = read_claims()["design"]
    assert len(designed("nano", range(5))) == sum(part.get("seeds", 5) * len(part["arms"]) for part in parts)
    assert {run.profile for run in designed("nano", [0])} == {"nano", "nano/thinks"}
    assert {run.model for run in designed("nano", [0, 1], "puzzle")} == {"plain/nano-s"}
    named = {name for claim in read_claims()["comparisons"] for name in (claim["first"], claim["second"])}
    assert named <= set(parts[0]["arms"]) <= set(read_claims()["arms"])
    (part,) = parts_of({Chapter("08_sophia", (), own=sophia): [0]}, "smoke", None, tmp_path)
    assert len(part.runs) == len(part.missing()) == 13 and {run.dataset for run in part.runs.values()} == {
        "math",
        "puzzle",
    }
    assert part.parameters["arms"] == parts[0]["arms"] and "environments" not in part.parameters
    assert set(MAKERS) == {"gtr", "sophia"}


def test_rewards_flow_from_answers_to_captions():
    item = next(item for item in items(DRAWN["math"], "val", "level 2", 12) if item.kind == "bars")
    said = [true_caption(item.scene, "columns"), "1 red"]
    tokenizer = load_processor("plain/nano-s").tokenizer
    table = by_hand(item.example, said, "columns", Rule(0, 0), 4, 0, tokenizer)
    assert table.groupby("k")["r_caption"].first()[0] == 1 and len(table) == 8
    kept = select(table, SELECTIONS["sophia"])
    assert kept[["k", "n"]].to_numpy().tolist() == [[0, 0]]
    figure = flow_figure(item.example, said, table, kept)
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts == [str(int(right)) for right in table["right"]] and len(figure.axes[1].patches) == 1
