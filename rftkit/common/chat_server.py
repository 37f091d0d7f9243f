"""A client of any OpenAI-compatible server: bounded in time, counted, and able to answer from recorded replies.

Nothing is asked unless the user named an address. The key comes from the environment and is written nowhere.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from rftkit.common.errors import UserError

KEY = "RFTKIT_API_KEY"  # the environment's name of the key
MOST_BYTES = 2**20  # of an answer that is read
REFUSED = {401: f"refuses the key: set {KEY}", 403: f"refuses the key: set {KEY}", 404: "has no such model or address"}
PAUSE = 0.5  # seconds before the first retry, doubled for each further one


@dataclass
class Usage:
    """What was asked: requests sent, replies got, questions given up, answers from the record, tokens, seconds."""

    requests: int = 0
    replies: int = 0
    failed: int = 0
    replayed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


@dataclass
class ChatServer:
    """A model behind an address.

    Args:
        url: up to and with `/v1`, http or https; None: only recorded replies are given.
        model: its name there.
        timeout: seconds a request may take in all, whatever the server sends meanwhile.
        retries: further requests for a question after one that failed.
        most_failures: questions in a row that may fail; then the server is given up with a UserError.
        prices: of a million prompt and completion tokens, in any currency.
        record: a file of JSON lines that replies are looked up in, and added to.
        at_once: requests sent at the same time.
    """

    url: str | None
    model: str = ""
    timeout: float = 60.0
    retries: int = 2
    most_failures: int = 10
    prices: tuple[float, float] = (0.0, 0.0)
    record: Path | None = None
    at_once: int = 8
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise UserError(f"'{self.url}' is no address of a server: it begins with http:// or https://")
        self._lock, self._in_a_row = threading.Lock(), 0
        self._recorded, self._cut = _read_record(self.record)

    @property
    def cost(self) -> float:
        """What the counted tokens cost, in the currency of `prices`."""
        asked, said = self.prices
        return (self.usage.prompt_tokens * asked + self.usage.completion_tokens * said) / 1e6

    def ask_all(self, questions: Sequence[list[dict]], seconds: float = math.inf, **options: Any) -> list[str | None]:
        """The answers to several conversations, `at_once` at a time; None where there is none within `seconds`.

        What is still asked then is left behind in daemon threads, which hold up nobody and ask nothing more.
        """
        ends, places = time.monotonic() + seconds, iter(range(len(questions)))
        answers: list[str | None] = [None] * len(questions)
        errors: list[BaseException] = []

        def work() -> None:
            for place in places:  # each is taken by one thread
                if errors or time.monotonic() >= ends:
                    return
                try:
                    answers[place] = self.ask(questions[place], **options)
                except BaseException as error:
                    errors.append(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(self.at_once, len(questions)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(min(max(0.0, ends - time.monotonic()), threading.TIMEOUT_MAX))
        if errors:
            raise errors[0]
        return answers.copy()

    def ask(self, messages: list[dict], **options: Any) -> str | None:
        """The answer to a conversation; None if the server gave none in time. `options` are the API's, as temperature.

        UserError if the server refuses the key or the model, or has failed `most_failures` times in a row.
        """
        content = json.dumps({"model": self.model, "messages": messages} | options, sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        if digest in self._recorded:
            with self._lock:
                self.usage.replayed += 1
            return self._recorded[digest]
        if self.url is None:
            raise UserError(f"no recorded reply in '{self.record}' to this question, and no server is named")
        answer = self._from_server(content.encode())
        with self._lock:
            self._in_a_row = 0 if answer is not None else self._in_a_row + 1
            if answer is None:
                self.usage.failed += 1
            elif self.record is not None:
                self._recorded[digest] = answer
                with self.record.open("a") as file:
                    file.write("\n" * self._cut + json.dumps({"request": digest, "reply": answer}) + "\n")
                self._cut = False
            if self._in_a_row >= self.most_failures:
                raise UserError(
                    f"the server at {self.url} failed {self._in_a_row} times in a row: start the same command again "
                    f"when it answers"
                )
        return answer

    def _from_server(self, content: bytes) -> str | None:
        for attempt in range(self.retries + 1):
            if self._in_a_row >= self.most_failures:
                return None  # given up meanwhile
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            began = time.perf_counter()
            try:
                status, body = within_seconds(self.timeout, lambda: self._post(content))
            except Exception:  # of the network: its libraries raise all kinds
                status, body = 0, b""
            answer = _answer(body) if status == 200 else None
            with self._lock:
                self.usage.requests += 1
                self.usage.seconds += time.perf_counter() - began
                if answer is not None:
                    self.usage.replies += 1
                    self.usage.prompt_tokens += answer.prompt_tokens
                    self.usage.completion_tokens += answer.completion_tokens
            if answer is not None:
                return answer.text
            if status in REFUSED:
                raise UserError(f"the server at {self.url} {REFUSED[status]}")
            if 400 <= status < 500 and status not in (408, 429):
                return None  # the same question would be refused again
        return None

    def _post(self, content: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", content, headers)
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout) as response:
                return response.status, response.read(MOST_BYTES)
        except urllib.error.HTTPError as error:
            return error.code, b""

    def counts(self) -> dict[str, float]:
        """`usage` and `cost` as numbers by name."""
        return asdict(self.usage) | {"cost": self.cost}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key goes to the address that the user named, and to no other."""

    def redirect_request(self, *args):
        return None


@dataclass(frozen=True)
class _Answer:
    text: str
    prompt_tokens: int
    completion_tokens: int


def _answer(body: bytes) -> _Answer | None:
    """What a server's answer says; None if it is none."""
    try:
        found = json.loads(body)
        text, used = found["choices"][0]["message"]["content"], found.get("usage")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(text, str):
        return None
    counts = [used.get(name) if isinstance(used, dict) else 0 for name in ("prompt_tokens", "completion_tokens")]
    tokens = [count if isinstance(count, int) and 0 <= count < MOST_BYTES else 0 for count in counts]
    return _Answer(text.encode(errors="replace").decode(), *tokens)  # half a surrogate pair cannot be written


def _read_record(path: Path | None) -> tuple[dict[str, str], bool]:
    """Recorded replies by the digest of their request, and whether the last line was cut off; such a one is left out.

    UserError if replies cannot be recorded there, or if there is something else.
    """
    if path is None or not path.exists():
        if path is not None and not path.parent.is_dir():
            raise UserError(f"replies cannot be recorded in '{path}': there is no folder '{path.parent}'")
        return {}, False
    found = {}
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' is no record of replies: name another file") from error
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            if isinstance(entry["reply"], str):
                found[entry["request"]] = entry["reply"]
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
    if text and not found and not text.startswith('{"request"'):
        raise UserError(f"'{path}' is no record of replies: name another file")
    return found, bool(text) and not text.endswith("\n")


def within_seconds(seconds: float, work: Callable[[], Any]) -> Any:
    """What `work` returns, or TimeoutError after so many seconds: the thread it runs in is left behind then.

    A socket's own timeout starts anew with each byte: a server that sends one now and then would hold us for ever.
    """
    found: list = []

    def run() -> None:
        try:
            found.append((work(), None))
        except BaseException as error:
            found.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise TimeoutError
    result, error = found[0]
    if error is not None:
        raise error
    return result


def picture_block(image: Image.Image) -> dict[str, Any]:
    """A picture as a block of a message's content."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
