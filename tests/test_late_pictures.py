"""Pictures are opened when a batch needs them, and those that cannot be used are told of before the costly part."""

import json
import shutil

import pytest
from PIL import Image

from rftkit.cli import main
from rftkit.common.errors import UserError
from rftkit.evaluate import evaluate_data
from rftkit.models import load
from rftkit.run import execute, training_examples
from rftkit.runs.check import check_run, tell_of_no_reward
from rftkit.runs.log import RunLog
from rftkit.settings import load_settings
from rftkit.sft import dpo_trainer, sft_trainer
from rftkit.tasks import images
from rftkit.tasks.example import Example
from rftkit.tasks.images import MAX_PIXELS
from rftkit.tasks.late import BATCH_PIXELS, batches, open_late
from rftkit.tasks.registry import open_set
from rftkit.trainer import grpo_trainer, training_rows

ROW = {"question": "What is it?", "answer": "cat", "choices": ["cat", "dog"]}


def jsonl(folder, **counts):
    """A folder with so many pictures a file, no two alike."""
    for number, (split, count) in enumerate(counts.items()):
        rows = []
        for place in range(count):
            name = f"{split}-{place}.png"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (number * 80, place % 256, place // 256)).save(folder / name)
            rows.append(json.dumps(ROW | {"image": name}))
        (folder / f"{split}.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture
def opened(monkeypatch):
    """The names of the pictures that are decoded, in order."""
    names, convert = [], images.open_image

    def watched(image, *args, **options):
        names.append(getattr(image, "name", "drawn"))
        return convert(image, *args, **options)

    for module in ("rftkit.tasks.images", "rftkit.tasks.late", "rftkit.evaluate"):
        monkeypatch.setattr(f"{module}.open_image", watched)
    return names


@pytest.mark.parametrize("make", [sft_trainer, dpo_trainer, grpo_trainer], ids=["sft", "dpo", "grpo"])
def test_a_trainer_opens_no_picture_before_its_first_batch_and_then_that_of_the_batch(tmp_path, opened, make):
    method, changes = ("no_thinking_rl", {}) if make is grpo_trainer else ("sft", {"sft_batch": 4})
    changes |= {"rejected": "random"} if make is dpo_trainer else {}
    folder = jsonl(tmp_path / "mine", train=40, test=2)
    settings = load_settings("smoke", method, dataset=str(folder), steps=1, **changes)
    shots = training_examples(settings)
    trainer = make(settings, *load("nano-s", device="cpu"), shots, RunLog(tmp_path, "late"))
    assert len(shots) > 30 and opened == []
    trainer.train()
    assert 0 < len(opened) <= 2 * 4  # a batch, and the one that is fetched ahead
    if make is grpo_trainer:
        assert len(opened) == len(set(opened))  # once for all completions of a group


def test_a_batch_has_the_pictures_of_its_rows():
    examples = [Example(str(n), (Image.new("RGB", (40, 20 + n)),) * (n + 1), "?", "a") for n in range(3)]
    rows = list(training_rows(examples, "no_thinking"))
    batch = open_late(list, examples)([rows[2], rows[0], rows[2]])
    assert [[image.size for image in row["images"]] for row in batch] == [[(40, 22)] * 3, [(40, 20)], [(40, 22)] * 3]
    assert batch[0]["images"][0] is batch[2]["images"][0]


def test_a_batch_of_evaluation_is_bounded_in_pixels():
    large = [Example("", (Image.new("1", (6000, 6000)),), "?", "a") for _ in range(5)]
    small = [Example("", (Image.new("1", (64, 64)),), "?", "a") for _ in range(600)]
    assert 6000 * 6000 <= BATCH_PIXELS < 2 * 6000 * 6000 and MAX_PIXELS <= BATCH_PIXELS
    assert batches(large, 250) == [slice(n, n + 1) for n in range(5)]
    assert batches(small, 250) == [slice(0, 250), slice(250, 500), slice(500, 600)] and batches([], 250) == []


def test_train_items_caps_a_folder_of_jsonl_by_a_plain_sample_of_the_seed(tmp_path, capsys):
    folder = jsonl(tmp_path / "mine", train=60, test=2)

    def ids(seed):
        settings = load_settings("smoke", "sft", dataset=str(folder), seed=seed, train_items=8)
        return [example.id for example in training_examples(settings)]

    assert len(ids(0)) == 8 and ids(0) == ids(0) != ids(1)
    (line,) = capsys.readouterr().err.splitlines()  # once, however often it is asked for
    assert line.startswith(f"{folder}: trained on 8 of ") and line.endswith("a larger train_items takes more")


def test_headers_are_read_of_what_is_asked_for_alone(tmp_path, monkeypatch):
    folder, seen, header = jsonl(tmp_path / "mine", train=60, test=2), [], images.opened
    monkeypatch.setattr(images, "opened", lambda image, item: seen.append(image.name) or header(image, item))
    assert len(open_set(str(folder)).training("base_to_new", 4, 8, 0)) == len(seen) == 8


def broken(folder, split, place):
    """One picture that lost its end."""
    path = folder / f"{split}-{place}.png"
    Image.effect_noise((40, 40), 90).save(path)
    path.write_bytes(path.read_bytes()[:400])
    return path.name


@pytest.mark.parametrize("split", ["test", "train"])
def test_a_truncated_picture_is_told_before_the_model_is_loaded(tmp_path, capsys, split):
    folder = jsonl(tmp_path / "mine", train=12, test=4)
    name = broken(folder, split, 3)
    command = f"run --profile smoke --method sft --model nobody/nothing --dataset {folder} --steps 9"
    assert main([*command.split(), "--out", str(tmp_path / "runs")]) == 2
    assert "nobody/nothing" in capsys.readouterr().err  # that is looked at first
    command = command.replace("nobody/nothing", "nano-s")
    assert main([*command.split(), "--out", str(tmp_path / "runs")]) == 2
    written = capsys.readouterr().err
    assert f"cannot read image '{name}'" in written and written.count("\n") == 1
    assert not [*(tmp_path / "runs").rglob("config.yaml")]


def test_what_a_run_may_never_come_to_is_known_by_its_header(opened):
    examples = [Example(str(n), (b"",), "?", "a") for n in range(3)]
    settings = load_settings("smoke", "cls_rl", steps=1)  # two questions a step
    with pytest.raises(UserError, match="^0: cannot read image"):
        check_run(settings, {"test": examples}, [])
    drawn = [Example("", (Image.new("RGB", (8, 8)),), "?", "a")]
    check_run(settings, {"test": drawn}, drawn)
    assert opened == ["drawn"]  # of the file that is none; drawings are not looked at


def test_evaluate_tells_of_a_picture_before_it_loads_a_model(tmp_path):
    folder = jsonl(tmp_path / "mine", test=3)
    name = broken(folder, "test", 2)
    with pytest.raises(UserError, match=f"^test-3: cannot read image '{name}'"):
        evaluate_data("no model", str(folder))


def test_an_export_finds_moved_pictures_before_it_merges(tmp_path, capsys, monkeypatch):
    folder = jsonl(tmp_path / "mine", train=12, test=3)
    run = execute(load_settings("smoke", "sft", dataset=str(folder), steps=1), tmp_path / "runs")
    shutil.move(folder / "test-1.png", tmp_path / "elsewhere.png")
    monkeypatch.setattr("rftkit.tools.export._merge", lambda *_: pytest.fail("merged"))
    assert main(["export", str(run), str(tmp_path / "out")]) == 2
    assert "there is no image 'test-1.png'" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("accuracy_reward,format_reward\n0,1\n0,0\n", "accuracy_reward 0 in every one of 2 steps"),
        ("accuracy_reward,format_reward\n0,0\n0,0\n", "accuracy_reward and format_reward 0 in every one of 2 steps"),
        ("reward\n0\n0\n", "reward 0 in every one of 2 steps"),
        ("accuracy_reward\n0\n0.1\n", None),
        ("loss\n0\n0\n", None),
    ],
)
def test_a_reward_that_nothing_earned_is_told_at_the_end(tmp_path, capsys, columns, said):
    lines = [f"{'step' if n == 0 else n},{line}" for n, line in enumerate(columns.splitlines())]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    tell_of_no_reward(tmp_path)
    written = capsys.readouterr().err
    assert (said in written and written.count("\n") == 1) if said else written == ""


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:400]), "cannot read image 'c3-test.png'"),
        (lambda path: Image.new("1", (30_000, 300)).save(path), "image 'c3-test.png' is 30000 x 300 pixels"),
    ],
    ids=["truncated", "oversized"],
)
def test_a_photograph_of_coops_that_cannot_be_tested_on_is_told_before_the_training(tmp_path, capsys, spoil, said):
    folder, split = tmp_path / "dtd", {"train": [], "val": [], "test": []}
    (folder / "images").mkdir(parents=True)
    for number in range(4):
        for part, many in (("train", 3), ("val", 1), ("test", 1)):
            for place in range(many):
                name = f"c{number}-{part}{place or ''}.png"
                Image.effect_noise((40, 40), 90).save(folder / "images" / name)
                split[part].append([name, number, f"class {number}"])
    (folder / "split_zhou_DescribableTextures.json").write_text(json.dumps(split))
    spoil(folder / "images" / "c3-test.png")
    command = f"run --profile smoke --method sft --dataset dtd@{tmp_path} --shots 2 --out {tmp_path / 'runs'}"
    assert main(command.split()) == 2
    written = capsys.readouterr().err
    assert said in written and written.count("\n") == 1 and not [*(tmp_path / "runs").rglob("metrics.csv")]
