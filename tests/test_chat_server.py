"""The client of an OpenAI-compatible server, against a real one that hangs, fails or answers nonsense."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from rftkit.common import chat_server as module
from rftkit.common.chat_server import KEY, ChatServer, picture_block
from rftkit.common.errors import UserError

QUESTION = [{"role": "user", "content": "2+2?"}]


class Server(ThreadingHTTPServer):
    """Behaves by a list: each request takes the next behaviour, the last one stays."""

    daemon_threads = True

    def __init__(self, *behaviours):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours, self.seen = list(behaviours), []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers.get("Authorization"), body))
        waiting = self.server.behaviours
        what = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if what == "hang":
            time.sleep(3)
        elif what == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(30):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
        elif isinstance(what, int):
            self.send_response(what)
            self.send_header("Location", "http://127.0.0.1:1/v1")
            self.end_headers()
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(what.encode())

    def log_message(self, *args):
        pass


def said(text, prompt=10, completion=2):
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    return json.dumps({"choices": [{"message": {"content": text}}], "usage": usage})


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    servers = []

    def start(*behaviours):
        servers.append(Server(*behaviours))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_answer_is_counted_and_costs(serve, monkeypatch):
    monkeypatch.setenv(KEY, "secret")
    server = serve(said("4"))
    client = ChatServer(server.url, "tiny", prices=(3.0, 15.0))
    assert client.ask(QUESTION, temperature=0.4) == "4"
    path, key, body = server.seen[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer secret")
    assert body == {"model": "tiny", "messages": QUESTION, "temperature": 0.4}
    assert client.counts()["requests"] == client.counts()["replies"] == 1
    assert client.cost == pytest.approx((10 * 3 + 2 * 15) / 1e6)
    assert "secret" not in repr(client)


@pytest.mark.parametrize(
    "broken", [500, 429, "nonsense", "[]", "{}", said(None), '{"choices": [{"message": {"content": 4}}]}', "[" * 9999]
)
def test_what_fails_is_asked_again(serve, broken):
    client = ChatServer(serve(broken, said("4")).url)
    assert client.ask(QUESTION) == "4"
    assert (client.usage.requests, client.usage.replies, client.usage.failed) == (2, 1, 0)


@pytest.mark.parametrize("slow", ["hang", "drip"])
def test_a_server_that_hangs_costs_bounded_time(serve, slow):
    client = ChatServer(serve(slow).url, timeout=0.2, retries=1)
    began = time.perf_counter()
    assert client.ask(QUESTION) is None
    assert time.perf_counter() - began < 1.5
    assert (client.usage.requests, client.usage.failed) == (2, 1)


def test_a_question_that_is_refused_is_not_repeated(serve):
    client = ChatServer(serve(400).url)
    assert client.ask(QUESTION) is None and client.usage.requests == 1


@pytest.mark.parametrize(("status", "why"), [(401, "refuses the key: set RFTKIT_API_KEY"), (404, "no such model")])
def test_a_server_that_refuses_is_told_of(serve, status, why):
    with pytest.raises(UserError, match=why):
        ChatServer(serve(status).url).ask(QUESTION)


def test_a_redirection_is_not_followed(serve):
    client = ChatServer(serve(302).url, retries=0)
    assert client.ask(QUESTION) is None and client.usage.requests == 1


def test_a_dead_server_is_given_up(serve):
    client = ChatServer(serve(500).url, retries=0, most_failures=3, at_once=1)
    with pytest.raises(UserError, match="failed 3 times in a row"):
        client.ask_all([QUESTION] * 20)
    assert client.usage.requests == 3


def test_nobody_listens():
    client = ChatServer("http://127.0.0.1:1/v1", retries=0)
    assert client.ask(QUESTION) is None and client.usage.failed == 1


def test_what_is_not_there_in_time_is_left_behind(serve):
    server = serve(said("4"), "hang")
    client, began = ChatServer(server.url, at_once=1), time.perf_counter()
    assert client.ask_all([QUESTION] * 9, 0.5) == ["4"] + [None] * 8
    assert time.perf_counter() - began < 1.5
    time.sleep(0.3)
    assert len(server.seen) == 2  # nothing more is asked


@pytest.mark.parametrize(
    ("usage", "counted"), [([1], 0), (3, 0), ({"prompt_tokens": -30}, 0), ({"prompt_tokens": 10**400}, 0),
                           ({"prompt_tokens": float("inf")}, 0), ({"prompt_tokens": 7}, 7)]
)  # fmt: skip
def test_an_odd_usage_costs_no_reply(serve, usage, counted):
    client = ChatServer(serve(json.dumps({"choices": [{"message": {"content": "4\ud800"}}], "usage": usage})).url)
    assert client.ask(QUESTION) == "4?" and client.usage.requests == 1
    assert client.usage.prompt_tokens == counted and client.cost == 0


@pytest.mark.parametrize("foreign", [b"my notes\n", b"\xff\xfe", b"[" * 200_000, b'{"question": 1}\n', b'["request"]'])
def test_replies_are_never_added_to_another_file(foreign, tmp_path):
    (tmp_path / "notes.md").write_bytes(foreign)
    with pytest.raises(UserError, match=r"notes.md' is no record of replies"):
        ChatServer("http://127.0.0.1:1/v1", record=tmp_path / "notes.md")
    for place in (tmp_path, tmp_path / "none" / "r.jsonl"):
        with pytest.raises(UserError, match="record"):
            ChatServer("http://127.0.0.1:1/v1", record=place)


def test_a_cut_line_costs_its_own_reply_once(serve, tmp_path):
    record = tmp_path / "replies.jsonl"
    server = serve(said("4"))
    ChatServer(server.url, record=record).ask(QUESTION)
    record.write_bytes(record.read_bytes()[:-9])
    for _ in range(3):
        assert ChatServer(server.url, record=record).ask(QUESTION) == "4"
    assert len(server.seen) == 2


def test_recorded_replies_need_no_server(serve, tmp_path):
    record = tmp_path / "replies.jsonl"
    assert ChatServer(serve(said("4")).url, "tiny", record=record).ask(QUESTION) == "4"
    with record.open("a") as file:
        file.write('{"request": "cut o')
    again = ChatServer(None, "tiny", record=record)
    assert again.ask(QUESTION) == "4" and again.usage.replayed == 1
    with pytest.raises(UserError, match="no recorded reply"):
        again.ask(QUESTION, temperature=1)


def test_answers_come_in_the_order_of_the_questions(serve):
    client = ChatServer(serve(said("4")).url)
    assert client.ask_all([QUESTION] * 5) == ["4"] * 5 and client.usage.replies == 5


def test_only_the_web_is_asked():
    with pytest.raises(UserError, match="begins with http"):
        ChatServer("file:///etc/passwd")


def test_a_picture_is_sent_as_png():
    assert picture_block(Image.new("RGB", (2, 2)))["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
