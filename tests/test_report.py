"""The report: tables out of run folders."""

import json
import os

import numpy as np
import pandas as pd
import pytest

from rftkit.analysis.claims import decide, dose_rows, read_rows
from rftkit.analysis.comparisons import kind_rows, set_rows, size_rows
from rftkit.analysis.methods import method_rows
from rftkit.analysis.paper import paper_numbers, paper_sets, paper_size_difference, paper_tables
from rftkit.common.errors import UserError
from rftkit.common.statistics import proportion
from rftkit.report.pages import write_report
from rftkit.report.tables import claims_table, dose_table, kinds_table, markdown, methods_table, sets_table
from rftkit.runs.collect import families, load_runs, recipe_of, short_names, sort_out
from rftkit.runs.folder import write_results
from rftkit.runs.results import Run
from rftkit.settings import Settings, read_claims

# The least that a run writes about what came out.
OUTCOME = {"mode": "thinking", "eval": {}, "measures": [], "completion_length": 3.0, "seconds": 10.0, "training": None}


def make_run(folder, method, seed, mode, base, new, seconds=10.0, model="nano-s", tests=None, **settings):
    """A run folder with given strict answers (0 or 1) on base and new items, whose digest is `tests`."""
    folder.mkdir(parents=True)
    rows = []
    for split, answers in (("base", base), ("new", new)):
        for number, right in enumerate(answers):
            rows.append({"split": split, "id": f"{split}{number}", "group": f"{split}{number}", "mode": mode,
                         "strict": float(right), "lenient": 1.0})  # fmt: skip
    pd.DataFrame(rows).to_parquet(folder / "predictions.parquet")
    content = {
        "mode": mode, "eval": {"base": proportion(sum(base), len(base)), "new": proportion(sum(new), len(new))},
        "measures": [{"split": "base", "mode": "no_thinking", "measure": "likelihood"} | proportion(9, 10)]
                    + [{"split": split, "mode": mode, "measure": rule} | proportion(right, len(answers))
                       for split, answers in (("base", base), ("new", new))
                       for rule, right in (("strict", sum(answers)), ("lenient", len(answers)))],
        "training": {"seconds": seconds},
    }  # fmt: skip
    content |= {"tests_sha256": tests} if tests else {}
    write_results(folder, Settings(method=method, seed=seed, model=model, **settings), OUTCOME | content, data_sha="")


def some_run(**found):
    """A run as it is read; what matters not is made up."""
    said = {"profile": "nano", "task": "classification", "dataset": "shapes", "method": "cls_rl", "model": "nano-s"}
    said |= {"seed": 0, "mode": "thinking", "scoring": "strict", "parts": {}, "measures": [], "completion_length": 3.0}
    said |= {"training": None, "seconds": 1.0, "versions": {}, "git_revision": None}
    return Run(**said | {"config_sha256": "", "data_sha256": ""} | found)


@pytest.fixture(name="runs")
def two_methods(tmp_path):
    for seed in range(3):
        make_run(tmp_path / f"sft-{seed}", "sft", seed, "no_thinking", [1, 1, 1, 0], [1, 0, 0, 0])
        make_run(tmp_path / f"cls-{seed}", "cls_rl", seed, "thinking", [1] * 4, [1] * 4, seconds=20.0 + seed)
    return tmp_path


def test_items_drawn_anew_under_the_same_names_are_not_pooled_with_the_old(runs):
    for seed in range(2, 6):
        make_run(runs / f"old-{seed}", "sft", seed, "no_thinking", [0] * 4, [0] * 4, tests="old")
    for seed in range(3, 6):
        make_run(runs / f"new-{seed}", "sft", seed, "no_thinking", [1] * 4, [1] * 4, tests="new")
        make_run(runs / f"new-rl-{seed}", "no_thinking_rl", seed, "no_thinking", [1] * 4, [1] * 4, tests="new")
    ((methods,),) = [load_runs(runs).values()]
    with pytest.raises(UserError, match="two methods were tested on different items"):  # more of SFT's are on old ones
        decide(methods)
    make_run(runs / "new-6", "sft", 6, "no_thinking", [1] * 4, [1] * 4, tests="new")
    make_run(runs / "new-7", "sft", 7, "no_thinking", [1] * 4, [1] * 4, tests="new")
    ((methods,),) = [load_runs(runs).values()]
    assert [run.tests_sha256 for run in methods["sft"]] == [None] * 3 + ["new"] * 5
    text, _ = write_report(runs)
    assert "Not counted (runs: 4)" in text and all(f"old-{seed}`" in text for seed in range(2, 6))


def test_a_file_of_ones_own_is_not_written_over_by_a_report(runs):
    (runs / "report.md").write_text("# My report")
    with pytest.raises(UserError, match="is not a report's: move it"):
        write_report(runs)
    assert (runs / "report.md").read_text() == "# My report"


def test_rows_hold_means_over_seeds_and_items(runs):
    (methods,) = load_runs(runs).values()
    sft, cls = method_rows(methods)
    strict = sft.accuracy["strict"]
    assert (len(sft.runs), strict["base"][0], strict["new"][0]) == (3, 0.75, 0.25)
    assert strict["h"][0] == pytest.approx(2 * 0.75 * 0.25 / 1.0)
    assert cls.accuracy["strict"]["h"] == pytest.approx((1.0, 4 / (4 + 1.959964**2), 1.0))  # Wilson's, of 4 of 4
    assert cls.seconds == 21.0
    assert sft.likelihood == {"base": 0.9, "new": None}
    assert np.all(np.array(strict["base"][1:]) != 0.75)


def test_the_table_stands_beside_the_papers_numbers(runs):
    (methods,) = load_runs(runs).values()
    table = markdown(methods_table(method_rows(methods)))
    assert "81.2 / 79.2 / 80.2" in table.replace("79.1", "79.2")  # the paper's thinking row
    assert "; 71.5 / 71.1 / 71.3 |" in table  # and the same method as others ran it
    assert table.count("\n") == 3
    assert "| paper, mean of 11 sets: base / new / H; Fine-R1's rerun: seen / unseen / all |" in table


def test_write_report_leaves_text_and_figure(runs):
    text, path = write_report(runs)
    assert path.read_text().endswith(text)
    assert list(runs.glob("report-*.png"))
    page = path.with_suffix(".html").read_text()
    headings = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    assert headings and [f">{title}</a>" in page for title in headings] == [True] * len(headings)  # its contents
    assert page.count("<table>") == text.count("| --- |\n") and 'src="data:image/png;base64,' in page
    assert 'src="report' not in page  # one file, nothing beside it


def test_claims_are_decided_by_their_paired_difference(runs, monkeypatch):
    claims = [
        {"name": "rl", "first": "cls_rl", "second": "sft", "measure": "h", "paper": "above"},
        {"name": "sft", "first": "sft", "second": "cls_rl", "measure": "new", "paper": "above"},
        {"name": "same", "first": "sft", "second": "sft", "measure": "new", "paper": "above"},
        {"name": "zero", "first": "cls_rl", "second": "zero_shot", "measure": "new", "paper": "above"},
        {"name": "no runs", "first": "cls_rl", "second": "no_thinking_rl", "measure": "h", "paper": "above"},
    ]
    monkeypatch.setattr("rftkit.analysis.claims.read_claims", lambda: read_claims() | {"primary": claims})
    make_run(runs / "zero", "zero_shot", 0, "no_thinking", [0] * 4, [0] * 4)
    (methods,) = load_runs(runs).values()
    rows = decide(methods)
    assert [(row.claim, len(row.runs), row.verdict) for row in rows] == [
        ("rl", 3, "same direction"), ("sft", 3, "opposite"), ("same", 3, "undecided"), ("zero", 3, "same direction"),
    ]  # fmt: skip
    assert rows[0].difference[0] == pytest.approx(1 - 0.375)
    assert "H +62.5" in markdown(claims_table(rows))
    assert rows[3].paper == pytest.approx({"new": 0.792 - 0.663}, abs=1e-3) and not rows[0].paper  # of sft it has none


def test_of_two_runs_of_a_seed_the_newer_counts_and_a_selection_never(runs):
    make_run(runs / "newer", "sft", 1, "no_thinking", [0] * 4, [0] * 4)
    make_run(runs / "selection" / "other", "sft", 2, "no_thinking", [0] * 4, [0] * 4)
    os.utime(runs / "newer" / "results.json", (2e9, 2e9))
    (methods,) = load_runs(runs).values()
    assert [run.folder.name for run in methods["sft"]] == ["sft-0", "newer", "sft-2"]


def test_a_single_trained_run_is_not_taken_for_several_seeds(tmp_path, monkeypatch):
    claim = {"name": "rl", "first": "cls_rl", "second": "sft", "measure": "h", "paper": "above"}
    monkeypatch.setattr("rftkit.analysis.claims.read_claims", lambda: read_claims() | {"primary": [claim]})
    for seed in range(3):
        make_run(tmp_path / f"sft-{seed}", "sft", seed, "no_thinking", [1, 1, 1, 0], [1, 0, 0, 0])
    make_run(tmp_path / "cls", "cls_rl", 0, "thinking", [1] * 4, [1] * 4)
    (methods,) = load_runs(tmp_path).values()
    assert [(len(row.runs), row.verdict) for row in decide(methods)] == [(1, "too few seeds")]


def test_runs_of_other_settings_are_not_pooled(runs):
    for seed in (3, 4):  # longer, and fewer
        make_run(runs / f"long-{seed}", "sft", seed, "no_thinking", [0] * 4, [0] * 4, steps=500)
    make_run(runs / "elsewhere", "sft", 5, "no_thinking", [0] * 4, [0] * 4, device="cpu", eval_every=5)  # as usual
    (methods,) = load_runs(runs).values()
    assert [run.seed for run in methods["sft"]] == [0, 1, 2, 5]
    text, _ = write_report(runs)
    assert "Not counted (runs: 2)." in text
    assert all(
        f"long-{seed}`: other settings or test items than most (SFT, loss on the answer)" in text for seed in (3, 4)
    )


def test_a_section_that_cannot_be_made_does_not_take_the_others_with_it(runs):
    for seed in range(3):
        make_run(runs / f"few-{seed}", "sft", seed, "no_thinking", [1] * (2 + seed), [1] * 4, dataset="digits")
    with pytest.raises(UserError, match="^digits, nano-s, profile nano: these runs were tested.*the rest"):
        write_report(runs)
    text = (runs / "report.md").read_text()
    assert "## shapes, nano-s, profile nano" in text and "**Not reported: digits, nano-s, profile nano: these" in text
    assert "nano/shapes/nano-s/sft/strict/base" in json.loads((runs / "report.json").read_text())


def test_base_models_are_pooled_and_untrained_runs_stand_for_their_own_seeds(tmp_path, monkeypatch):
    claim = {"name": "rl", "first": "sft", "second": "zero_shot", "measure": "base", "paper": "above"}
    design = {"dataset": "shapes", "bases": ["one", "two"]}
    for module in ("analysis.claims", "runs.collect", "analysis.methods", "analysis.paper_claims"):
        monkeypatch.setattr(
            f"rftkit.{module}.read_claims", lambda: read_claims() | {"primary": [claim], "design": design}
        )
    for model, right in (("one", 1), ("two", 0), ("third", 1)):
        make_run(tmp_path / f"zero-{model}", "zero_shot", 0, "no_thinking", [1, 0, 0, 0], [0] * 4, model=model)
        for seed in range(2):
            make_run(tmp_path / f"{model}-{seed}", "sft", seed, "no_thinking", [1, right, 0, 0], [0] * 4, model=model)
    sections = load_runs(tmp_path)
    together = families(sections)
    key = ("nano", "shapes", ("one", "two"))
    assert set(together) == {key, ("nano", "shapes", ("third",))} and len(together[key]["sft"]) == 4
    (row,) = decide(together[key])
    assert row.runs == [("one", 0), ("one", 1), ("two", 0), ("two", 1)]
    assert row.difference[0] == 0.125 and row.difference[1] == 0  # one base gains a quarter, one nothing
    text, _ = write_report(tmp_path)
    # The second table stands beside the archived study, which has more seeds.
    assert text.count("claim of the paper") == 2 and "| rl |  | base +12.5" in text and "4 on 2 bases" in text
    apart = {key: methods for key, methods in sections.items() if key.models != ("two",)}
    assert families(apart) == apart and families(together) == together


def test_effects_are_tabled_against_the_share_of_answers_not_as_asked(tmp_path, monkeypatch):
    claim = {"name": "rl", "first": "cls_rl", "second": "sft", "measure": "h", "paper": "above"}
    monkeypatch.setattr("rftkit.analysis.claims.read_claims", lambda: read_claims() | {"primary": [claim]})
    runs = tmp_path / "runs"
    for number, (base, vague, right) in enumerate(((0, 0.5, 0), (1, 0.5, 0), (0, 1.0, 1))):
        model = tmp_path / f"model-{number}"
        model.mkdir()
        (model / "config.json").write_text("{}")
        (model / "recipe.json").write_text(json.dumps({"seed": base, "vague": vague, "size": "s"}))
        for seed in range(3):
            make_run(
                runs / f"sft-{number}-{seed}", "sft", seed, "no_thinking", [1] * 4, [right, right], model=str(model)
            )
            make_run(runs / f"cls-{number}-{seed}", "cls_rl", seed, "thinking", [1] * 4, [1, 1], model=str(model))
    half, whole = dose_rows(load_runs(runs))
    assert (half.vague, half.runs, half.verdict) == (0.5, [("model-0", n) for n in range(3)], "same direction")
    assert (whole.vague, len(whole.runs), whole.verdict) == (1.0, 3, "undecided")
    assert half.difference[0] == 1 and whole.difference[0] == 0
    text, path = write_report(runs)
    assert "| nano, shapes, size s | rl (h) | +100.0 [" in text and "vague 0.5 | vague 1 |" in text
    assert "## shapes, model-0, model-1, profile nano" in text and (runs / "report-doses.png").is_file()
    assert markdown(dose_table(read_rows(runs / "report-doses.json"))) in text


def test_each_comparison_has_a_row_a_set_and_kind_of_base_model(tmp_path):
    for model, thinking, without in (("one", 1, 0), ("two", 0, 1), ("three", 1, 1)):
        for seed in range(8):
            place = tmp_path / f"{model}-{seed}"
            make_run(place / "cls", "cls_rl", seed, "thinking", [1, thinking] * 4, [1] * 4, model=model)
            make_run(place / "no", "no_thinking_rl", seed, "no_thinking", [1, without] * 4, [1] * 4, model=model)
    make_run(tmp_path / "alone", "cls_rl", 0, "thinking", [1] * 4, [1] * 4, model="alone")
    (rows,) = set_rows(load_runs(tmp_path)).values()  # one comparison has runs of both methods
    one, three, two = rows
    assert [row.place for row in rows] == [f"shapes, {name}, profile nano" for name in ("one", "three", "two")]
    assert [row.verdict for row in rows] == [
        "CLS-RL (thinking) ahead", "undecided", "No-Thinking-RL ahead",
    ]  # fmt: skip
    assert one.measure == "h" and one.difference[0] == pytest.approx(1 - 2 / 3)
    assert one.beside["base"][0] == 0.5 and one.beside["new"] == (0, 0, 0) and len(one.runs) == 8
    assert two.paper == pytest.approx({"base": -0.022, "new": -0.027, "H": -0.024}, abs=1e-3)
    text, _ = write_report(tmp_path)
    assert (
        markdown(sets_table(rows)) in text
        and "| shapes, one, profile nano | base -2.2, new -2.7, H -2.5 | H +33.3 [" in text
    )
    written = read_rows(tmp_path / "report-sets.json")
    assert list(written) == ["Thinking before the answer beats not thinking"] and [rows] == list(written.values())
    assert len(list(tmp_path.glob("report-sets-*.png"))) == 1


def test_a_larger_model_profits_more_by_the_difference_of_differences(tmp_path):
    runs = tmp_path / "runs"
    for name, size, thinking in (("small", 10**6, 0), ("large", 4 * 10**6, 1), ("other", 8 * 10**6, 0)):
        model = tmp_path / name
        model.mkdir()
        (model / "config.json").write_text("{}")
        recipe = {"size": name, "seed": 0, "start": None, "vague": float(name == "other"), "parameters": size}
        (model / "recipe.json").write_text(json.dumps(recipe))
        for seed in range(3):
            place = runs / f"{name}-{seed}"
            make_run(place / "cls", "cls_rl", seed, "thinking", [1, thinking] * 4, [1] * 4, model=str(model))
            make_run(place / "no", "no_thinking_rl", seed, "no_thinking", [1, 0] * 4, [1] * 4, model=str(model))
    (row,) = size_rows(load_runs(runs))  # one of another mixture is compared with neither
    assert row.difference[0] == pytest.approx(1 - 2 / 3) and row.difference[1] > 0
    assert row.parameters == (10**6, 4 * 10**6) and len(row.runs) == 6
    assert {model: cell[0] for model, cell in row.beside.items()} == pytest.approx({"small": 0, "large": 1 / 3})
    text, _ = write_report(runs)
    assert "| shapes, profile nano | 1.0 M and 4.0 M | 6 on 2 bases | H +33.3 [" in text
    assert read_rows(runs / "report-sizes.json") == [row]


def test_drawn_tasks_are_compared_kind_by_kind_and_level_by_level(tmp_path):
    ids = [
        f"puzzle-test-{kind}-{level}-{number}" for kind in ("clock", "numbers") for level in (1, 2) for number in "ab"
    ]
    for seed in range(3):
        for method, mode, right in (("cls_rl", "thinking", "clock"), ("no_thinking_rl", "no_thinking", "numbers-1")):
            run = tmp_path / f"{method}-{seed}"
            make_run(run, method, seed, mode, [], [], dataset="puzzle", task="puzzle", scoring="choice_letter")
            rows = {"split": "patterns", "id": ids, "group": ids, "mode": mode,
                    "choice_letter": [float(right in name) for name in ids]}  # fmt: skip
            pd.DataFrame(rows).to_parquet(run / "predictions.parquet")

    def means(row):
        return {level: mean for level, (mean, _, _) in row.beside.items()}

    clock, numbers = kind_rows(load_runs(tmp_path))
    assert (clock.claim, numbers.claim) == ("clock (not trained on)", "numbers")
    assert clock.difference[0] == 1 and means(clock) == {"level 1": 1, "level 2": 1}
    assert numbers.difference[0] == -0.5 and means(numbers) == {"level 1": -1, "level 2": 0}
    assert "| numbers | 3 | -50.0 [" in markdown(kinds_table([clock, numbers]))


@pytest.mark.parametrize(
    ("task", "protocol", "points"),
    [
        ("math", None, {"MathVista": 9.4, "MATH-Vision": 0.66}),
        ("spatial", "base_to_new", {"CV-Bench": 6.09}),
        ("puzzle", None, {"PuzzleVQA": 4.3, "AlgoPuzzleVQA": -3.16}),
        ("classification", "few_shot", {"mean of four sets": 2.72}),
        ("classification", "base_to_new", {}),
    ],
)
def test_what_the_papers_larger_model_gains_more_by_thinking(task, protocol, points):
    found = {column: 100 * value for column, value in paper_size_difference(task, protocol).items()}
    assert found == pytest.approx(points)


@pytest.mark.parametrize("recipe", ["", "[]", "{}", '{"vague": 1'])
def test_a_model_whose_recipe_cannot_be_read_is_a_family_of_its_own(tmp_path, recipe):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "recipe.json").write_text('{"vague": 0.5, "seed": 0}')
    assert recipe_of(str(tmp_path)) == {"vague": 0.5}
    (tmp_path / "recipe.json").write_text(recipe)
    assert recipe_of(str(tmp_path)) is None and recipe_of("someone/model") is None


def test_names_have_as_many_parts_as_tell_them_apart():
    models = ["nano-s", "/home/ada/models/my", "/home/bob/models/my", "my", "nano-s"]
    assert list(short_names(models).values()) == ["nano-s", "ada/models/my", "bob/models/my", "my"]
    assert short_names(["a/my", "b/my"]) == {"a/my": "a/my", "b/my": "b/my"}


def test_a_place_within_another_counts_once(tmp_path):
    inner = tmp_path / "inner"
    for number in range(2):  # of one seed: the older does not count
        make_run(inner / str(number), "sft", 0, "no_thinking", [1, 0], [1, 0])
    once = sort_out(inner)
    assert len(once[1]) == 1
    assert once == sort_out(inner, inner) and len(sort_out(tmp_path, inner)[1]) == 1


def test_every_set_has_a_figure_of_its_own(tmp_path):
    for number, dataset in enumerate(("草", "木", "a.b", "a-b", "a_b")):
        make_run(tmp_path / str(number), "sft", 0, "no_thinking", [1, 0], [1, 0], dataset=dataset)
    write_report(tmp_path)
    assert len(list(tmp_path.glob("report-*.png"))) == 5


def test_no_runs_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no complete runs"):
        load_runs(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        load_runs(tmp_path / "missing")


@pytest.mark.parametrize(
    ("task", "protocol", "row", "numbers"),
    [
        ("classification", "base_to_new", "No-Thinking-RFT", {"base": 83.4, "new": 81.9, "H": 82.6}),
        ("spatial", "base_to_new", "Adaptive-Thinking", {"CV-Bench": 77.03}),
        ("math", None, "Thinking-RFT", {"MathVista": 44.9, "MATH-Vision": 16.45}),
        ("puzzle", None, "Think-After-Answer", {"PuzzleVQA": 64.7, "AlgoPuzzleVQA": 26.94}),
        ("puzzle", None, None, {}),
        ("classification", "few_shot", "SFT", {"all": 70.65}),
        ("classification", "open_set", "No-Thinking-RFT", {"all": 74.4}),
        ("classification", "open_set", "SFT", {}),
        ("classification", "base_to_new", "Adaptive-Thinking", {}),
        ("classification", "new_to_base", "No-Thinking-RFT", {}),
    ],
)
def test_the_papers_numbers_of_each_task(task, protocol, row, numbers):
    assert paper_numbers(task, protocol, row) == pytest.approx(numbers, abs=0.06)


def test_a_mean_over_the_papers_sets_says_of_how_many():
    tables = paper_tables()
    sets = [name for name, part in tables["base_to_new"].items() if "SFT" in part and "over" not in name]
    assert paper_sets("classification", "base_to_new") == len(sets)
    for protocol, table in (("few_shot", "few_shot"), ("open_set", "open_set_few_shot")):
        assert paper_sets("classification", protocol) == len(tables[table]["Thinking-RFT"].keys() - {"Average"})
    assert paper_sets("math", "base_to_new") is None  # a column a set
