"""Settings: who overrides whom, and what is said about values that cannot work."""

from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from rftkit.common.errors import UserError
from rftkit.common.paths import PROFILES
from rftkit.run import with_seeds
from rftkit.settings import FIELDS, METHODS, Settings, completion_limit, load_settings, of_study, with_steps


@pytest.fixture
def profile(tmp_path):
    """Writes a profile and returns its path."""

    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_every_profile_loads_for_every_method(name, method):
    settings = load_settings(name, method)
    assert (settings.profile, settings.method) == (name, method)


@pytest.mark.parametrize(
    ("text", "given", "steps"),
    [
        ("{}", {}, Settings().steps),
        ("steps: 10", {}, 10),
        ("steps: 10\nmethods: {sft: {steps: 20}}", {}, 20),
        ("steps: 10\nmethods: {cls_rl: {steps: 20}}", {}, 10),  # another method's part
        ("steps: 10\nmethods: {sft: {steps: 20}}", {"steps": 30}, 30),
        ("steps: 10\nmethods: {sft: {steps: 20}}", {"steps": None}, 20),  # None: not given
        ("steps: 10\nmethods:", {}, 10),
    ],
)
def test_command_line_over_method_over_profile(profile, text, given, steps):
    assert load_settings(profile(text), "sft", **given).steps == steps


@pytest.mark.parametrize(("text", "seeds"), [("{}", 1), ("study: {seeds: 3}", 3)])
def test_a_study_has_the_seeds_its_profile_says(profile, text, seeds):
    assert of_study(profile(text)) == {"seeds": seeds, "num_cpus": 1}


@pytest.mark.parametrize(
    "text", ["study:", "study: 3", "study: {seeds: five}", "study: {seeds: 0}", "study: {seedz: 3}"]
)
def test_a_study_without_a_number_of_seeds_is_one_line(profile, text):
    with pytest.raises(UserError, match="must hold a number of seeds, as in study: {seeds: 5}"):
        of_study(profile(text))


def test_models_of_a_profile_take_the_seeds_in_turn(profile):
    mine = profile("model: [a/a, b/b, c/c]")
    assert [load_settings(mine, "sft", seed=seed).model for seed in (None, 0, 1, 2, 3)] == [
        "a/a",
        "a/a",
        "b/b",
        "c/c",
        "a/a",
    ]
    assert load_settings(mine, "sft", seed="1").model == "b/b"  # as a flag gives it
    assert load_settings(mine, "sft", seed=1, model="d/d").model == "d/d"
    assert [(run.model, run.seed) for run in with_seeds(mine, "zero_shot", [1, 2, 4, 5])] == [("b/b", 1), ("c/c", 2)]
    assert [run.seed for run in with_seeds(mine, "sft", [1, 2, 4, 5])] == [1, 2, 4, 5]
    beside = Path(mine).resolve().parent / "b" / "b"
    beside.mkdir(parents=True)
    (beside / "config.json").write_text("{}")
    assert load_settings(mine, "sft", seed=1).model == str(beside)


@pytest.mark.parametrize("models", ["[]", "[nano-s, 3]", "['']"])
def test_models_that_are_no_names_are_one_line(profile, models):
    with pytest.raises(UserError, match="'model' of a profile must be a name or a list of names, as in model: "):
        load_settings(profile(f"model: {models}"), "sft")


def test_a_profile_that_calls_itself_otherwise_is_refused(profile):
    with pytest.raises(UserError, match="calls itself 'nano': write profile: mine"):
        load_settings(profile("profile: nano"), "sft")


@pytest.mark.parametrize(
    ("text", "given", "task", "dataset", "rule"),
    [
        ("{}", {}, "classification", "shapes", "strict"),
        ("{}", {"task": "math"}, "math", "math", "math"),
        ("{}", {"dataset": "puzzle"}, "puzzle", "puzzle", "choice_letter"),
        ("dataset: digits", {"task": "math"}, "math", "math", "math"),  # the command line decides
        ("task: math", {"dataset": "shapes"}, "classification", "shapes", "strict"),
        ("task: math", {"scoring": "strict"}, "math", "math", "strict"),
    ],
)
def test_task_and_dataset_follow_from_each_other(profile, text, given, task, dataset, rule):
    settings = load_settings(profile(text), "sft", **given)
    assert (settings.task, settings.dataset, settings.scoring) == (task, dataset, rule)


def test_a_profile_of_ones_own_is_named_after_its_file(profile):
    assert load_settings(profile("study: {seeds: 2}"), "sft").profile == "mine"


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("learning_rate: 1e-5", "learning_rate", 1e-5),  # YAML reads this as text
        ("learning_rate: 1", "learning_rate", 1.0),
        ("steps: '7'", "steps", 7),
        ("steps: 1e2", "steps", 100),
        ("max_pixels: null", "max_pixels", None),
        ("max_pixels: 4096", "max_pixels", 4096),
        ("quantize: yes", "quantize", True),
        ("device: cpu", "device", "cpu"),
    ],
)
def test_values_take_the_type_of_their_field(profile, text, name, value):
    found = getattr(load_settings(profile(text), "sft"), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "is not a YAML mapping"),
        ("- steps", "is not a YAML mapping"),
        ("a: b: c", "is not valid YAML: mapping values are not allowed here"),
        (b"\xff\xfe", "is not valid YAML"),
        ("steps: 3\nsteps: 4", "is not valid YAML: 'steps' stands in it twice"),
        ("study: {seeds: 2}\nmethods: {sft: {steps: 3, steps: 3}}", "is not valid YAML: 'steps' stands in it twice"),
        ("!!python/object/apply:os.system [date]", "is not valid YAML"),
        ("step: 3", "unknown setting 'step': choose one of profile, task"),
        ("3: step", "unknown setting '3': choose one of profile, task"),
        ("methods: {cls_rl: {step: 3}}", "unknown setting 'step'"),
        ("methods: {sftt: {steps: 3}}", "as in sft: {steps: 60}; 'sftt': Input should be 'zero_shot', 'sft', "),
        ("methods: [sft]", "'methods' of a profile must map each method to its settings"),
        ("methods: {sft: 3}", "'methods' of a profile must map each method to its settings"),
        ("dataset: [shapes]", "setting 'dataset' needs a text, not '['shapes']'"),
        ("task: 3", "unknown task '3': choose one of classification, math"),
        ("steps: many", "setting 'steps' needs a whole number, not 'many'"),
        ("steps: 2.5", "setting 'steps' needs a whole number, not '2.5'"),
        ("steps: true", "setting 'steps' needs a whole number, not 'True'"),
        ("steps: .inf", "setting 'steps' needs a whole number, not 'inf'"),
        (f"steps: 1{'0' * 400}", "setting 'steps' needs a whole number, not 'inf'"),
        ("steps:", "setting 'steps' needs a whole number, not 'None'"),
        ("learning_rate: fast", "setting 'learning_rate' needs a number, not 'fast'"),
        ("learning_rate: .nan", "setting 'learning_rate' needs a number, not 'nan'"),
        ("quantize: 'no'", "setting 'quantize' needs true or false, not 'no'"),
        ("model: 3", "'model' of a profile must be a name or a list of names"),
        ("steps: 0", "setting 'steps' must be at least 1, not 0"),
        ("num_generations: 1", "setting 'num_generations' must be at least 2, not 1"),  # no group, no advantage
        ("learning_rate: 0", "setting 'learning_rate' must be above 0, not 0"),
        ("temperature: -1", "setting 'temperature' must be above 0, not -1"),
        ("max_pixels: 0", "setting 'max_pixels' must be at least 1, not 0"),
        ("max_pixels: 4\nmin_pixels: 5", "setting 'min_pixels' must be at most 4, not 5"),
        ("epochs: {eurosat: 100, other: many}", "setting 'epochs' needs a whole number, not 'many'"),
        ("seed: -1", "setting 'seed' must be at least 0, not -1"),
        ("seed: 4294967296", "setting 'seed' must be at most 4294967295, not 4294967296"),
        ("min_pixels: 1e30", "setting 'min_pixels' must be at most 40000000, not 1"),
        ("steps: 1e300", "setting 'steps' must be at most 1000000, not 1"),
        ("epochs: {eurosat: 100, math: 1}", "' has no number for 'shapes': add other: 10"),
        ("dataset: ''", "setting 'dataset' needs a text, not ''"),
        ('dataset: "\\udc80"', "setting 'dataset' needs a text"),
        (
            "protocol: one_shot",
            "unknown protocol 'one_shot': choose one of base_to_new, new_to_base",
        ),
        ("task: dancing", "unknown task 'dancing': choose one of classification"),
        ("loss_type: hinge", "unknown loss_type 'hinge': choose one of grpo"),
        ("scoring: loose", "unknown scoring 'loose': choose one of strict, lenient, authors"),
        ("device: tpu", "unknown device 'tpu': choose one of cpu, cuda"),
        ("report_to: dreams", "unknown report_to 'dreams': choose one of wandb, trackio, tensorboard, mlflow"),
        ("quantize: true\nlora_rank: 0", "set lora_rank above 0 or quantize to false"),
        ("micro_batch: 5\nprompts_per_step: 2\nnum_generations: 4", "micro_batch 5 must divide the 8 rollouts"),
    ],
)
def test_what_cannot_work_is_one_line(profile, text, line):
    with pytest.raises(UserError) as error:
        load_settings(profile(text), "cls_rl")
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "method", "given", "line"),
    [
        ("nano", "sfl", {}, "unknown method 'sfl': choose one of zero_shot, sft"),
        (
            "nona",
            "sft",
            {},
            "no profile 'nona': choose one of gpu-2b, gpu-3b, gpu-7b, gpu-qwen3-2b, gpu-qwen3-4b, nano, nano-swapped, "
            "smoke, or give the path",
        ),
        (".", "sft", {}, "no profile '.'"),
        ("nano", "sft", {"step": 3}, "unknown setting 'step'"),
        ("nano", "sft", {"steps": 0}, "setting 'steps' must be at least 1, not 0"),
    ],
)
def test_wrong_names_are_one_line(name, method, given, line):
    with pytest.raises(UserError) as error:
        load_settings(name, method, **given)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_settings_that_are_changed_are_checked_again():
    settings = load_settings("smoke", "cls_rl")
    for change in ({"steps": 0}, {"micro_batch": 3}, {"lora_rank": 0, "quantize": True}, {"protocol": "one_shot"}):
        with pytest.raises(ValidationError):
            replace(settings, **change)
    assert replace(settings, steps="7").steps == 7
    many = replace(settings, epochs=10**6)
    with pytest.raises(UserError, match="setting 'steps' must be at most 1000000, not 50000000"):
        with_steps(many, examples=100)


def test_every_setting_is_described_in_a_line():
    assert len(FIELDS) == len(fields(Settings)) == 46
    for name, field in FIELDS.items():
        assert field.description and "\n" not in field.description and len(field.description) < 80, name


@pytest.mark.parametrize("micro_batch", [1, 4, 8, 16, 64, 1000])
def test_a_micro_batch_may_divide_or_exceed_the_rollouts(micro_batch):
    assert load_settings("nano", "cls_rl", micro_batch=micro_batch).micro_batch == micro_batch


def test_the_micro_batch_of_sft_need_not_divide_rollouts():
    assert load_settings("nano", "sft", micro_batch=5, sft_batch=10).micro_batch == 5
    with pytest.raises(UserError, match="micro_batch 5 must divide the sft_batch 16"):
        load_settings("nano", "sft", micro_batch=5, sft_batch=16)


def test_only_direct_answers_have_the_short_limit():
    settings = Settings(max_completion_tokens=40, max_answer_tokens=12)
    limits = [completion_limit(settings, mode) for mode in ("no_thinking", "thinking", "think_after_answer")]
    assert limits == [12, 40, 40]


def test_settings_as_a_dict_make_the_same_settings():
    settings = load_settings("smoke", "cls_rl", seed=3)
    assert Settings(**asdict(settings)) == settings


def test_steps_stand_above_a_table_of_epochs(profile):
    settings = load_settings(profile("epochs: {math: 1}"), "sft", steps=7)
    assert (settings.epochs, settings.steps) == (None, 7)


@pytest.mark.parametrize("name", [field.name for field in fields(Settings) if str(field.type).startswith("Whole")])
def test_every_whole_number_has_a_largest_value(name):
    with pytest.raises(UserError, match=f"setting '{name}' must be at most .*, not 1e\\+30"):
        load_settings("smoke", "cls_rl", **{name: 1e30})


def test_a_dataset_may_have_its_own_part_for_a_method(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("steps: 3\nmethods: {sft: {steps: 5}}\ndatasets: {math: {sft: {steps: 7}}}\n")
    assert load_settings(str(path), "sft").steps == 5
    assert load_settings(str(path), "sft", dataset="math").steps == 7
    assert load_settings(str(path), "sft", task="math").steps == 7
    assert load_settings(str(path), "sft", task="math", steps=9).steps == 9
    assert load_settings(str(path), "cls_rl", task="math").steps == 3
    for wrong in ("[math]", "{maht: {sft: {steps: 7}}}"):
        path.write_text(f"datasets: {wrong}\n")
        with pytest.raises(UserError, match="'datasets' of a profile must map bundled sets"):
            load_settings(str(path), "sft")


def test_a_profile_may_be_like_another(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("like: smoke\nsteps: 9\n")
    mine, smoke = load_settings(str(path), "sft"), load_settings("smoke", "sft")
    assert (mine.profile, mine.steps, mine.sft_batch) == ("mine", 9, smoke.sft_batch)
    for wrong in ("mine", "3", "nowhere"):
        path.write_text(f"like: {wrong}\n")
        with pytest.raises(UserError, match="must name another profile of the kit"):
            load_settings(str(path), "sft")


def test_a_control_in_a_profile_is_applied(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("control: random_reward\n")
    assert load_settings(str(path), "cls_rl").reward == "random"


@pytest.mark.parametrize(
    ("dataset", "epochs", "group"),
    [
        ("hub:sat", 2, 4),
        ("hub:puzzlevqa", 2, 8),
        ("hub:eurosat-4shot-b2n", 100, 4),
        ("hub:sun-4shot-fewshot", 25, 4),
        ("hub:imagenet-4shot-b2n", 10, 4),
        ("hub:dtd-4shot-b2n", 50, 4),
    ],
)
def test_real_sets_have_the_papers_epochs_and_groups(dataset, epochs, group):
    tested = {"hub:sat": "hub:cv-bench", "hub:puzzlevqa": "hub:algopuzzlevqa"}.get(dataset, "shapes")
    settings = load_settings("gpu-2b", "cls_rl", dataset=dataset, eval_dataset=tested)
    assert (settings.epochs, settings.num_generations) == (epochs, group)
