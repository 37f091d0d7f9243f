"""GTR's study: its chapter, what is read of its runs, the verdicts, an archive, and a report of its runs alone."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import yaml

from rftkit.analysis.arms import as_designed, verdict_rows
from rftkit.analysis.guided import GTR, answers, arm_rows, curves, parted
from rftkit.common.errors import UserError
from rftkit.gtr.play import by_hand, fixed_deals
from rftkit.gtr.rules import GAMES, State, part_of
from rftkit.gtr.select import best_point, points_of
from rftkit.gtr.settings import designed, load_settings, read_claims
from rftkit.report.guided import arms_table, collapse_figure, side_by_side, verdicts_table
from rftkit.report.pages import write_report
from rftkit.runs.arms import ArmRun, archive_arm_runs, arm_run, arm_runs
from rftkit.runs.folder import complete_runs
from rftkit.study.chapters import chapters, dealt, parts_of

MEASURES = ("json", "legal", "facts", "thought", "plan", "gap", "self_bleu", "distinct", "tokens")
SIZE = 40  # deals, and states


def made(tmp_path, dataset, arm, seed, won, right=(0.5, 0.5), profile="nano", **changes):
    """A run folder in which a share of deals is won and of thoughts is right, before and after."""
    settings = replace(load_settings(profile, dataset=dataset, arm=arm, seed=seed), **changes)
    folder = tmp_path / profile / f"{dataset}-{arm}-s{seed}-{len(changes)}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(asdict(settings)))
    rng = np.random.default_rng([seed, int(100 * won)])
    parts = ("train", "test") if dataset == "points24" else ("all",)
    pd.DataFrame([
        {"split": part, "id": n, "cards": str(n % 20), "success": rng.random() < won, "return": 1.0, "steps": 3}
        for part in parts for n in range(SIZE)
    ]).to_parquet(folder / "episodes.parquet")  # fmt: skip
    pd.DataFrame([
        {"update": update, "id": n, "cards": str(n), "formula": "", "text": "so", "action": "2",
         "facts": True, "thought": rng.random() < share}
        for update, share in zip((0, settings.updates), right, strict=True) for n in range(SIZE)
    ]).to_parquet(folder / "states.parquet")  # fmt: skip
    fixed = pd.DataFrame([dict.fromkeys(MEASURES, share) for share in right]).assign(update=[0, settings.updates])
    fixed.to_csv(folder / "fixed.csv", index=False)
    pd.DataFrame({"update": [1], "loss": [0.5]}).to_csv(folder / "metrics.csv", index=False)
    (folder / "gtr.json").write_text(json.dumps({"seconds": 60.0, "eval": {part: {"accuracy": won} for part in parts}}))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Four seeds: without guidance thoughts get worse; with it deals are won; nothing else differs."""
    for seed in range(4):
        made(tmp_path, "points24", "unguided", seed, 0.05, (0.6, 0.1))
        made(tmp_path, "points24", "gtr", seed, 0.9, (0.6, 0.6))
        made(tmp_path, "points24", "cloned", seed, 0.9, (0.6, 0.9))
    return tmp_path


def test_verdicts_are_those_of_the_rule(runs):
    rows = {row.claim: row for row in verdict_rows(as_designed(arm_runs("gtr", [runs]), GTR), GTR)}
    verdicts = {claim: row.verdict for claim, row in rows.items()}
    assert verdicts == {
        "Thoughts get less true without guidance": "same direction",
        "Thoughts do not get less true with guidance": "undecided",
        "Guidance wins more": "same direction",
        "RL adds something to cloning": "undecided",
    }
    wins = rows["Guidance wins more"]
    assert wins.place == "points24" and len(wins.runs) == 4 and list(wins.beside) == ["test"]
    assert 0.7 < wins.difference[0] < 1 and wins.difference[1] > 0.5
    assert "0.9" not in verdicts_table(list(rows.values())).to_string()  # points, not shares


def test_the_opposite_is_said_too_and_few_seeds_decide_nothing(tmp_path):
    for seed in range(3):
        made(tmp_path, "ezpoints", "unguided", seed, 0.9)
        made(tmp_path, "ezpoints", "gtr", seed, 0.1)
    rows = verdict_rows(arm_runs("gtr", [tmp_path]), GTR)
    assert next(row for row in rows if row.claim == "Guidance wins more").verdict == "opposite"
    few = [run for run in arm_runs("gtr", [tmp_path]) if run.settings["seed"] < 2]
    assert {row.verdict for row in verdict_rows(few, GTR)} == {"too few seeds"}


def test_smoke_runs_decide_nothing(tmp_path):
    for arm in ("unguided", "gtr"):
        made(tmp_path, "ezpoints", arm, 0, 0.5, profile="smoke")
    runs = as_designed(arm_runs("gtr", [tmp_path]), GTR)
    assert len(runs) == 2 and verdict_rows(runs, GTR) == []


def test_answers_are_paired_by_deal_and_by_state(runs):
    (run,) = [run for run in arm_runs("gtr", [runs]) if run.place[2] == "gtr" and run.settings["seed"] == 0]
    played, thought = answers([run], "success"), answers([run], "thought")
    assert len(played) == 2 * SIZE and len(thought) == SIZE and set(thought["split"]) == {"states"}
    before = answers([run], "thought", before=True)
    assert not before["correct"].equals(thought["correct"]) and list(before["id"]) == list(range(SIZE))


def test_runs_with_other_settings_do_not_count(runs):
    made(runs, "points24", "gtr", 9, 0.0, learning_rate=1.0)
    made(runs, "points24", "gtr", 8, 0.0, device="cpu", micro_batch=8)  # where a run was made does not matter
    found = arm_runs("gtr", [runs])
    kept = as_designed(found, GTR)
    assert len(found) == 14 and len(kept) == 13 and all(run.settings["learning_rate"] < 1 for run in kept)


def test_tables_and_figure_have_all_arms(runs):
    found = as_designed(arm_runs("gtr", [runs]), GTR)
    table = arms_table(arm_rows(found))
    assert list(table["arm"]) == ["start model", "unguided (RL4VLM)", "GTR, exact", "cloned thoughts alone"]
    assert table["right thoughts, %"].tolist() == ["60.0", "10.0", "60.0", "90.0"]
    assert parted(found) == (found, [])
    of_two = found + [replace(found[0], settings=found[0].settings | {"arm": "gtr_lambda_0", "dataset": "ezpoints"})]
    assert [len(part) for part in parted(of_two)] == [len(found), 1]
    (legend,) = collapse_figure(curves(of_two)).legends  # an arm of one environment alone is named too
    assert [text.get_text() for text in legend.get_texts()][-1] == "GTR, lambda 0"
    lines = curves(found)
    assert len(collapse_figure(lines).axes) == 4 and set(lines["update"]) == {0, found[0].settings["updates"]}
    sides = side_by_side(pd.read_parquet(next(runs.rglob("states.parquet"))), 3)
    assert len(sides) == 3 and all(text.startswith("so (") for text in (*sides["before"], *sides["after"]))


def test_an_archive_decides_as_the_folders_do(runs, tmp_path):
    found = as_designed(arm_runs("gtr", [runs]), GTR)
    out = tmp_path / "archive"
    archive_arm_runs("gtr", found, out)
    again = arm_runs("gtr", [out])
    assert [asdict(row) for row in verdict_rows(again, GTR)] == [asdict(row) for row in verdict_rows(found, GTR)]
    assert arms_table(arm_rows(again)).equals(arms_table(arm_rows(found)))
    assert "text" not in again[0].tables["states"] and not list(out.glob(".*"))
    archive_arm_runs("gtr", again, out)  # once more, of itself
    with pytest.raises(UserError, match="1 of the runs in"):
        archive_arm_runs("gtr", again[1:], out)
    (out / "gtr-states.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="is no archive that can be read"):
        arm_runs("gtr", [out])


def test_a_truncated_run_is_named(tmp_path):
    folder = made(tmp_path, "ezpoints", "gtr", 0, 0.5)
    (folder / "episodes.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="is not what a run writes"):
        arm_run("gtr", folder)


def test_a_report_of_these_runs_alone(runs, tmp_path):
    text, path = write_report(runs, tmp_path / "report", tmp_path / "kept")
    assert "## GTR: agents that think at every step" in text and "cloned thoughts alone" in text
    rows = json.loads((path.parent / "report-gtr.json").read_text())
    assert len(rows) == 4 and (path.parent / "report-gtr-thoughts-by-update.png").is_file()
    assert len(arm_runs("gtr", [tmp_path / "kept"])) == 12
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no complete runs"):
        write_report(tmp_path / "empty")


def test_runs_within_anothers_folder_are_no_runs_of_the_study(tmp_path):
    for place in ("nano/a", "nano/b/grpo/nano/c"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("")
        (folder / "results.json").write_text("{}")
    (tmp_path / "nano" / "b" / "config.yaml").write_text("")
    assert complete_runs(tmp_path) == [tmp_path / "nano" / "a"]


def test_the_chapter_has_the_designs_runs_and_its_own_number_of_seeds(tmp_path):
    design = read_claims()["design"]
    (seeds,) = dealt("nano", ("07",), None, [], None).values()
    assert seeds == list(range(5))
    assert list(dealt("nano", ("07",), [2, 3], [], None).values()) == [[2, 3]]
    (part,) = parts_of(dealt("smoke", ("07",), None, [], None), "smoke", None, tmp_path)
    assert len(part.runs) == len(design["arms"]) * len(design["datasets"]) == len(part.missing())
    assert part.parameters["environments"] == design["datasets"] and part.parameters["arms"] == design["arms"]
    assert {settings.method for settings in part.runs.values()} == {"gtr"}
    assert parts_of(dealt("smoke", ("07",), None, [], None), "smoke", "shapes", tmp_path) == []
    (one,) = parts_of(dealt("smoke", ("07",), None, [], None), "smoke", "ezpoints", tmp_path)
    assert {settings.dataset for settings in one.runs.values()} == {"ezpoints"}


def test_profiles_and_models_of_the_study_are_not_the_agents():
    with pytest.raises(UserError, match="notebook 07_gtr has profiles of its own"):
        chapters("nano-swapped", ("07",))
    assert not [chapter for chapter in chapters("nano-swapped", ("all",)) if chapter.own]
    assert not [chapter for chapter in chapters("nano", ("all",), ["nano-s"]) if chapter.own]


def test_points_are_chosen_by_the_rule():
    grid = points_of("nano")
    rule = read_claims()["selection"]
    assert {(s.learning_rate, s.clone_norm) for s in grid} == {
        (rate, norm) for rate in rule["learning_rates"] for norm in rule["clone_norms"]
    }
    assert {(s.seed, s.arm, s.dataset, s.held_out) for s in grid} == {(rule["seed"], "gtr", "points24", True)}
    points = ((1e-4, None, 3), (1e-4, 0.05, 7), (5e-4, None, 7), (5e-4, 0.05, 2))
    rows = [{"learning_rate": rate, "clone_norm": norm, "correct": correct} for rate, norm, correct in points]
    assert best_point(rows) == {"learning_rate": 1e-4, "clone_norm": 0.05}


def test_deals_to_choose_by_are_none_of_the_studys():
    study, held_out = (fixed_deals("points24", "train", 200, held_out) for held_out in (False, True))
    assert study != held_out and {part_of(state.cards) for state in held_out} == {"train"}


def test_replies_by_hand_are_judged():
    state = State(GAMES["ezpoints"], (2, 10), ("2", "Q"))
    seen = '"cards": [2, 10], "formula": ""'
    table = by_hand(state, [f'{{{seen}, "thoughts": "2+10 gives 12, next 2", "action": "2"}}',
                            f'{{{seen}, "thoughts": "2*10 gives 12, next 2", "action": "5"}}', "2"])  # fmt: skip
    assert table["legal action"].fillna("").tolist() == ["2", "5", ""] and table["reward"].tolist()[:2] == [0, -1]
    assert table["right thought"].tolist() == [True, False, None] and table["corrected"].isna().tolist() == [
        True,
        False,
        True,
    ]


def test_each_seed_of_an_arm_is_designed_once():
    runs = designed("nano", range(5))
    assert len({(run.dataset, run.arm, run.seed) for run in runs}) == len(runs) == 75
    assert isinstance(ArmRun(asdict(runs[0]), {}, {}, None).pair, tuple)
