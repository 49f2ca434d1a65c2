"""A real HTTP server that speaks the OpenAI-compatible protocol as far as a teacher needs it, and fails on demand.

`with OpenAiServer() as server:` listens on a free port of the loopback in threads; `server.url` is the base URL,
`server.questions` what was asked so far, `server.faults` what the next questions get instead of an answer,
`server.list_faults` the same for the list of models.
"""

import hashlib
import json
import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKENS = {"0": 15, "1": 16, "2": 17, "3": 18, " 3": 19, "The": 20}


def masses(prompt: str) -> dict[str, float]:
    """Probability of the likeliest tokens after a prompt: different for each prompt, 0.9 in all."""
    drawn = [1 + byte for byte in hashlib.blake2b(prompt.encode(), digest_size=len(TOKENS)).digest()]
    return {token: 0.9 * weight / sum(drawn) for token, weight in zip(TOKENS, drawn)}


@dataclass
class Status:
    """Answer with a status, a body and headers."""

    code: int
    body: str = '{"error": {"message": "told to fail"}}'
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Drop:
    """Close the connection without an answer."""


@dataclass
class Hang:
    """Say nothing for some seconds."""

    seconds: float = 5.0


@dataclass
class Asked:
    """One question as it came."""

    at: float
    path: str
    headers: dict[str, str]
    body: dict
    prompt: str


class OpenAiServer:
    """Serve one model (or those named); every question gets an answer unless there is a fault for it.

    Args:
        models: names in the list of models.
        owned_by: "vllm" adds /tokenize and answers in token ids, as that dialect asks.
        key: which every request must bring, if any.
        longest: characters of a prompt; a longer one gets status 400.
        chat_template: whether the model has one; without it, only /completions answers.
        labels: the label tokens are among the likeliest, or not.
        seconds: that it takes for a question.
    """

    def __init__(
        self,
        *,
        models=("tiny",),
        owned_by="someone",
        key=None,
        longest=10_000,
        chat_template=True,
        labels=True,
        seconds=0.0,
    ):
        self.models, self.owned_by, self.key, self.longest = models, owned_by, key, longest
        self.chat_template, self.labels, self.seconds = chat_template, labels, seconds
        self.faults: deque = deque()
        self.list_faults: deque = deque()
        self.fault_for_all = None
        self.questions: list[Asked] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def __enter__(self) -> "OpenAiServer":
        handler = type("Handler", (_Handler,), {"told": self})
        self._http = _Threads(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        self._http.shutdown()
        self._http.server_close()

    def next_fault(self, asked: Asked):
        """Note a question; its fault, if it gets one."""
        with self._lock:
            self.questions.append(asked)
            return self.faults.popleft() if self.faults else self.fault_for_all

    def sleep(self, seconds: float) -> None:
        """Sleep, but not longer than the server lives."""
        self._closed.wait(seconds)


class _Threads(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # many connect at once; the default of 5 makes some wait a second for their turn


class _Handler(BaseHTTPRequestHandler):
    told: OpenAiServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        if self._refused():
            return
        if self.path != "/v1/models":
            return self._send(404, {"detail": "Not Found"})
        if self.told.list_faults:
            fault = self.told.list_faults.popleft()
            return self._send(fault.code, fault.body, fault.headers)
        cards = [{"id": name, "root": f"/models/{name}", "owned_by": self.told.owned_by} for name in self.told.models]
        self._send(200, {"object": "list", "data": cards})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._refused():
            return
        vllm = self.told.owned_by == "vllm"
        if self.path == "/tokenize" and vllm:
            return self._tokenize(body)
        if self.path not in ("/v1/chat/completions", "/v1/completions"):
            return self._send(404, {"detail": "Not Found"})
        chat = "chat" in self.path
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        fault = self.told.next_fault(Asked(time.monotonic(), self.path, dict(self.headers), body, prompt))
        self.told.sleep(self.told.seconds)
        if isinstance(fault, Hang):
            self.told.sleep(fault.seconds)
        if isinstance(fault, Hang | Drop):
            self.close_connection = True
            return
        if isinstance(fault, Status):
            return self._send(fault.code, fault.body, fault.headers)
        if body["model"] not in self.told.models:
            return self._send(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        if len(prompt) > self.told.longest:
            return self._send(400, {"error": {"message": f"maximum context length is {self.told.longest}"}})
        if chat and not self.told.chat_template:
            return self._send(400, {"error": {"message": "no chat template"}})
        found = masses(prompt) if self.told.labels else {"The": 0.5, "I": 0.3}
        if vllm:
            wanted = set(body["logprob_token_ids"])
            found = {f"token_id:{TOKENS[token]}": mass for token, mass in found.items() if TOKENS[token] in wanted}
        logs = {token: math.log(mass) for token, mass in found.items()}
        alternatives = [{"token": token, "logprob": value} for token, value in logs.items()]
        told = {"content": [{"top_logprobs": alternatives}]} if chat else {"top_logprobs": [logs]}
        self._send(200, {"choices": [{"index": 0, "logprobs": told, "finish_reason": "length"}]})

    def _tokenize(self, body: dict) -> None:
        if "messages" in body:
            return self._send(200 if self.told.chat_template else 400, {"tokens": [1, 2]})
        token = TOKENS.get(body["prompt"])
        self._send(200, {"tokens": [token] if token else [ord(letter) for letter in body["prompt"]]})

    def _refused(self) -> bool:
        if self.told.key is None or self.headers.get("Authorization") == f"Bearer {self.told.key}":
            return False
        self._send(401, {"error": {"message": f"Incorrect API key: {self.headers.get('Authorization')}"}})
        return True

    def _send(self, code: int, content: object, headers: dict[str, str] | None = None) -> None:
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
