"""Models and sets named by hub id: one question to the hub, one line if they cannot be had, the cache where there is no
network."""

import errno
import shlex
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx2
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file
from test_report import OUTCOME

from rftkit.cli import main
from rftkit.common.errors import UserError
from rftkit.common.hub import asked_once
from rftkit.models import BUNDLED, load
from rftkit.runs.folder import write_config, write_results
from rftkit.settings import load_settings

ANSWERS = {
    "none": (401, "RepoNotFound"),
    "gated": (403, "GatedRepo"),
    "down": (503, ""),
    "bare": (404, "EntryNotFound"),
}
questions: list[str] = []


class Hub(BaseHTTPRequestHandler):
    """A hub that answers by the name of what is asked for."""

    def do_HEAD(self):
        questions.append(self.path)
        status, code = next(answer for name, answer in ANSWERS.items() if f"/{name}" in self.path)
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_):
        pass


@pytest.fixture
def at(monkeypatch, tmp_path):
    """Sets the address of the hub; the cache is empty and in `tmp_path`, which is also where one is."""

    def hub_at(port):
        for name, value in {
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HUGGINGFACE_CO_URL_TEMPLATE": f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)

    questions.clear()
    monkeypatch.chdir(tmp_path)
    return hub_at


@pytest.fixture
def hub(at):
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at(server.server_port)
    yield
    server.shutdown()


@pytest.fixture
def no_network(at):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        at(free.getsockname()[1])  # nothing listens there
        yield


NO_NETWORK = "is not on this machine and the hub cannot be reached"
REFUSED = [
    ("run --profile gpu-2b --device cpu --out runs", NO_NETWORK),
    ("run --profile smoke --dataset hub:sat --out runs", NO_NETWORK),
    ("study --profile smoke --only 02 --models my/model --out runs", NO_NETWORK),
    ("evaluate --model my/model --data shapes --test-items 1", NO_NETWORK),
    ("evaluate --model nano-s --data hub:cv-bench", "or give cv-bench@DIR with a copy of it in DIR"),
    ("evaluate --model ./out --data shapes --test-items 1", "no model './out': name a bundled one"),
    ("diagnose my/model --test-items 1", "check the network, or name a folder with a copy of it"),
    ("estimate --model my/model", NO_NETWORK),
]


@pytest.mark.parametrize(("command", "said"), REFUSED)
def test_without_network_one_line_says_so_and_nothing_is_left(no_network, tmp_path, capsys, command, said):
    assert main(shlex.split(command)) == 2
    written = capsys.readouterr().err
    assert said in written and written.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_other_errors_than_missing_files_stay_what_they_are(no_network):
    for error in (torch.OutOfMemoryError("CUDA out of memory"), OSError(errno.ENOSPC, "No space left on device")):
        with pytest.raises(type(error)) as raised, asked_once("my/model", "model", "name a folder"):
            raise error
        assert raised.value is error


def test_an_export_whose_base_cannot_be_had_leaves_nothing(no_network, tmp_path, capsys):
    settings = load_settings("gpu-2b", "cls_rl")
    write_config(tmp_path / "run", settings)
    write_results(tmp_path / "run", settings, OUTCOME, data_sha="")
    (tmp_path / "run" / "adapter").mkdir()
    LoraConfig(base_model_name_or_path="none").save_pretrained(tmp_path / "run" / "adapter")
    save_file({"weight": torch.zeros(1)}, tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert main(["export", "run", "out"]) == 2
    assert NO_NETWORK in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my/none", "the hub has none of that name for you: check the spelling"),
        ("my/gated", "accept them on its page and run hf auth login"),
        ("my/down", "the hub answers with status 503: try again later"),
    ],
)
def test_what_the_hub_answers_is_told_apart_by_one_question(hub, capsys, name, said):
    assert main(["evaluate", "--model", name, "--data", "shapes", "--test-items", "1"]) == 2
    assert said in capsys.readouterr().err and questions == [f"/{name}/resolve/main/config.json"]


def test_what_the_hub_has_is_read_from_it(hub):
    with asked_once("my/bare", "dataset", ""):
        pass
    assert questions == ["/datasets/my/bare/resolve/main/README.md"]
    with pytest.raises(ZeroDivisionError), asked_once("my/bare", "model", ""):
        raise ZeroDivisionError  # what goes wrong in reading is not the hub's


def test_without_network_a_model_is_read_from_the_cache(no_network, tmp_path):
    place = tmp_path / "cache" / "models--my--model"
    shutil.copytree(BUNDLED / "nano-s", place / "snapshots" / ("0" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    model, processor = load("my/model", device="cpu")
    assert model.name_or_path == "my/model" and processor.chat_template
    (place / "snapshots" / ("0" * 40) / "model.safetensors").unlink()
    with pytest.raises(UserError, match="is not on this machine"):
        load("my/model", device="cpu")


def test_a_connection_that_breaks_off_is_one_line(capsys, monkeypatch):
    def fail(*_, **__):
        raise httpx2.ReadTimeout("The read operation timed out")

    monkeypatch.setattr("rftkit.run.execute", fail)
    assert main(["run", "--profile", "smoke"]) == 2
    assert "the connection broke off (The read operation timed out): start the same" in capsys.readouterr().err
