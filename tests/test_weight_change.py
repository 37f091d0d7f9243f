"""How far a run moved the weights: known changes are found where they were made."""

import json
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_report import OUTCOME, some_run

from rftkit.analysis import weight_change as change
from rftkit.analysis.weight_change import archived_changes, mean_changes, parameter_change, write_changes
from rftkit.common.errors import UserError
from rftkit.models import load
from rftkit.report.tables import changes_table
from rftkit.runs.folder import write_results
from rftkit.runs.results import Training
from rftkit.settings import Settings


@pytest.fixture
def folder(tmp_path):
    write_results(tmp_path, Settings(model="nano-s"), OUTCOME, data_sha="")
    return tmp_path


def test_a_known_change_of_all_weights(folder):
    model, processor = load("nano-s", device="cpu")
    for name, weight in model.named_parameters():
        if "language_model" in name and ".mlp." in name:
            weight.data *= 1.01
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    change = parameter_change(folder)
    assert change["mlp_language"] == pytest.approx(0.01, rel=1e-4)
    assert 0 < change["language"] < 0.01
    others = ("visual", "mlp_visual", "norm_visual", "attn_visual", "norm_language", "attn_language")
    assert [change[part] for part in others] == [0] * 6 and len(change) == 8


def test_an_adapter_is_merged_first(folder):
    base, _ = load("nano-s", device="cpu")
    query = base.model.language_model.layers[0].self_attn.q_proj.weight.detach().clone()
    model = get_peft_model(base, LoraConfig(r=1, lora_alpha=1, target_modules=r".*language_model.layers.0.*q_proj"))
    for name, weight in model.named_parameters():
        if "lora" in name:
            torch.nn.init.constant_(weight, 0.1)  # every weight of the layer moves by 0.01
    model.save_pretrained(folder / "adapter")
    whole = sum(w.abs().sum() for n, w in load("nano-s", device="cpu")[0].named_parameters()
                if "language_model" in n and "self_attn" in n)  # fmt: skip
    change = parameter_change(folder)
    assert change["attn_language"] == pytest.approx(0.01 * query.numel() / whole.item(), rel=1e-4)
    assert change["visual"] == change["mlp_language"] == 0


def test_a_run_without_weights(folder):
    with pytest.raises(UserError, match="no trained weights"):
        parameter_change(folder)


def test_the_mean_is_over_one_run_of_each_base_model(monkeypatch):
    monkeypatch.setattr(change, "parameter_change", lambda folder: {"visual": 0.0, "language": folder})
    trained = Training(1.0)
    seeds = [some_run(model=f"nano-s-{seed % 2}", folder=10.0**seed, training=trained) for seed in range(5)]
    found = mean_changes({"sft": seeds, "cls_rl": [], "zero_shot": [replace(seeds[0], training=None)]})
    assert found == {"sft": {"visual": 0.0, "language": (1.0 + 10.0) / 2}}


def test_changes_are_written_beside_runs_and_shown_in_per_cent(tmp_path):
    path = write_changes({"sft+dpo": {"visual": 0.0, "language": 0.0123}}, tmp_path, "my/photos")
    assert path == tmp_path / "weights-photos.json"
    table = changes_table(json.loads(path.read_text()))
    assert table.loc["SFT, loss on the answer, DPO, own wrong answers", "language"] == 1.23
    assert archived_changes("nosuch") == {} and archived_changes("shapes")["cls_rl"]["visual"] == 0
