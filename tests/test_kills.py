"""Three kills at random moments; many of runs and studies: `python -m tests.kill_campaign`."""

import kill_campaign


def test_what_a_kill_leaves_goes_on_to_identical_results(capsys):
    assert kill_campaign.main(["--short", "--only", "not thinking", "--kills", "3"]) == 0
    assert "3 of 3 kills left identical results" in capsys.readouterr().out


def test_the_campaign_sees_what_differs(tmp_path):
    for name, text in (("whole", "1"), ("again", "2")):
        run = tmp_path / name / "smoke" / "run"
        run.mkdir(parents=True)
        (run / "results.json").write_text(f'{{"seconds": {text}, "eval": 1}}')
        (run / "metrics.csv").write_text(f"step,step_seconds\n1,{text}\n")
    assert list(kill_campaign.differences(tmp_path / "whole", tmp_path / "again")) == []
    (run / "adapter").mkdir()
    (run / "adapter" / "adapter_config.json").write_text("{}")
    (run / ".metrics.csv.1").write_text("")
    (run.parent / "other").mkdir()
    (run.parent / "other" / "results.json").write_text("{}")
    assert set(kill_campaign.differences(tmp_path / "whole", tmp_path / "again")) == {
        "smoke/other is new",
        "smoke/run: .metrics.csv.1 differs",
        "smoke/run: adapter/adapter_config.json differs",
        "smoke/run/.metrics.csv.1 is left behind",
    }
